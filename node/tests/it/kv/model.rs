//! What a store should answer, as plainly as it can be said: a whole map per revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use node::kv::{Refusal, check_delete_range, check_put, check_range, check_txn};
use proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
};

type Keys = BTreeMap<Bytes, KeyValue>;

#[derive(Debug)]
pub(crate) struct Model {
    /// What there was at each revision, from 0.
    history: Vec<Keys>,
    compacted: i64,
}

/// A store in the middle of a request.
struct Draft {
    keys: Keys,
    begin: i64,
    changed: bool,
}

impl Draft {
    fn revision(&self) -> i64 {
        self.begin + i64::from(self.changed)
    }
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { history: vec![Keys::new(), Keys::new()], compacted: -1 }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.history.len() as i64 - 1
    }

    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refusal> {
        check_range(request)?;
        let current = self.revision();
        if request.revision > current {
            return Err(Refusal::FutureRevision);
        }
        let at = if request.revision <= 0 { current } else { request.revision };
        if at < self.compacted {
            return Err(Refusal::Compacted);
        }
        Ok(select(&self.history[at as usize], request, current))
    }

    pub(crate) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Refusal> {
        check_put(request)?;
        let mut draft = self.draft();
        if request.lease != 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if ignores(request) && !draft.keys.contains_key(&request.key) {
            return Err(Refusal::KeyNotFound);
        }
        let response = put(&mut draft, request);
        self.keep(draft);
        Ok(response)
    }

    pub(crate) fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Refusal> {
        check_delete_range(request)?;
        let mut draft = self.draft();
        let response = delete_range(&mut draft, request);
        self.keep(draft);
        Ok(response)
    }

    pub(crate) fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Refusal> {
        check_txn(request)?;
        let before = self.draft().keys;
        self.admit(&before, request)?;
        let mut draft = self.draft();
        let mut response = self.run(&before, &mut draft, request);
        response.header = header(draft.revision());
        self.keep(draft);
        Ok(response)
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<i64, Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision() {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = revision;
        Ok(self.revision())
    }

    fn draft(&self) -> Draft {
        let begin = self.revision();
        Draft { keys: self.history[begin as usize].clone(), begin, changed: false }
    }

    fn keep(&mut self, draft: Draft) {
        if draft.changed {
            self.history.push(draft.keys);
        }
    }

    /// Checks the puts before the ranges, since the first fault that is found is answered.
    fn admit(&self, before: &Keys, request: &TxnRequest) -> Result<(), Refusal> {
        let path = path(before, request);
        for step in &path {
            if let Request::RequestPut(put) = step {
                if ignores(put) && !before.contains_key(&put.key) {
                    return Err(Refusal::KeyNotFound);
                }
                if put.lease != 0 {
                    return Err(Refusal::LeaseNotFound);
                }
            }
        }
        for step in &path {
            if let Request::RequestRange(range) = step {
                if range.revision > self.revision() {
                    return Err(Refusal::FutureRevision);
                }
                if range.revision != 0 && range.revision < self.compacted {
                    return Err(Refusal::Compacted);
                }
            }
        }
        Ok(())
    }

    fn run(&self, before: &Keys, draft: &mut Draft, request: &TxnRequest) -> TxnResponse {
        let succeeded = request.compare.iter().all(|it| holds(before, it));
        let branch = if succeeded { &request.success } else { &request.failure };
        let mut responses = Vec::new();
        for op in branch {
            let response = match op.request.as_ref().unwrap() {
                Request::RequestRange(range) => {
                    let current = draft.revision();
                    let keys = match range.revision {
                        at if at > 0 && at < current => &self.history[at as usize],
                        _ => &draft.keys,
                    };
                    Response::ResponseRange(select(keys, range, current))
                }
                Request::RequestPut(it) => Response::ResponsePut(put(draft, it)),
                Request::RequestDeleteRange(it) => {
                    Response::ResponseDeleteRange(delete_range(draft, it))
                }
                Request::RequestTxn(nested) => {
                    let mut response = self.run(before, draft, nested);
                    response.header = header(0);
                    Response::ResponseTxn(response.into())
                }
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        TxnResponse { header: None, succeeded, responses }
    }
}

fn ignores(request: &PutRequest) -> bool {
    request.ignore_value || request.ignore_lease
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

fn path<'a>(before: &Keys, request: &'a TxnRequest) -> Vec<&'a Request> {
    let succeeded = request.compare.iter().all(|it| holds(before, it));
    let branch = if succeeded { &request.success } else { &request.failure };
    let mut steps = Vec::new();
    for op in branch {
        let request = op.request.as_ref().unwrap();
        if let Request::RequestTxn(nested) = request {
            steps.extend(path(before, nested));
        } else {
            steps.push(request);
        }
    }
    steps
}

fn within(key: &Bytes, start: &Bytes, end: &Bytes) -> bool {
    match &end[..] {
        b"" => key == start,
        b"\0" => key >= start,
        _ => key >= start && key < end,
    }
}

fn put(draft: &mut Draft, request: &PutRequest) -> PutResponse {
    draft.changed = true;
    let revision = draft.revision();
    let old = draft.keys.get(&request.key).cloned();
    let base = old.clone().unwrap_or(KeyValue {
        key: request.key.clone(),
        create_revision: revision,
        ..KeyValue::default()
    });
    let record = KeyValue {
        mod_revision: revision,
        version: base.version + 1,
        value: if request.ignore_value { base.value.clone() } else { request.value.clone() },
        lease: 0,
        ..base
    };
    draft.keys.insert(request.key.clone(), record);
    PutResponse { header: header(revision), prev_kv: old.filter(|_| request.prev_kv) }
}

fn delete_range(draft: &mut Draft, request: &DeleteRangeRequest) -> DeleteRangeResponse {
    let gone: Vec<_> = draft
        .keys
        .extract_if(.., |key, _| within(key, &request.key, &request.range_end))
        .map(|(_, kv)| kv)
        .collect();
    draft.changed |= !gone.is_empty();
    DeleteRangeResponse {
        header: header(draft.revision()),
        deleted: gone.len() as i64,
        prev_kvs: if request.prev_kv { gone } else { Vec::new() },
    }
}

fn select(keys: &Keys, request: &RangeRequest, current: i64) -> RangeResponse {
    let mut kvs: Vec<KeyValue> = keys
        .values()
        .filter(|kv| within(&kv.key, &request.key, &request.range_end))
        .cloned()
        .collect();
    let count = kvs.len() as i64;
    if request.count_only {
        return RangeResponse { header: header(current), kvs: Vec::new(), more: false, count };
    }
    for (filter, keep) in [
        (request.min_mod_revision, (|kv, it| kv.mod_revision >= it) as fn(&KeyValue, i64) -> bool),
        (request.max_mod_revision, |kv, it| kv.mod_revision <= it),
        (request.min_create_revision, |kv, it| kv.create_revision >= it),
        (request.max_create_revision, |kv, it| kv.create_revision <= it),
    ] {
        kvs.retain(|kv| filter == 0 || keep(kv, filter));
    }
    let filters = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    if request.limit > 0 && request.sort_order() == SortOrder::None && !filters {
        kvs.truncate(request.limit as usize + 1);
    }
    match request.sort_target() {
        SortTarget::Key => kvs.sort_by_key(|kv| kv.key.clone()),
        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
        SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
        SortTarget::Value => kvs.sort_by_key(|kv| kv.value.clone()),
    }
    if request.sort_order() == SortOrder::Descend {
        descend(&mut kvs, request.sort_target());
    }
    let more = request.limit > 0 && kvs.len() as i64 > request.limit;
    if more {
        kvs.truncate(request.limit as usize);
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { header: header(current), kvs, more, count }
}

/// Reverses runs of equal ones, then everything, so that equal ones keep their order.
fn descend(kvs: &mut [KeyValue], target: SortTarget) {
    for run in kvs.chunk_by_mut(|left, right| match target {
        SortTarget::Key => left.key == right.key,
        SortTarget::Version => left.version == right.version,
        SortTarget::Create => left.create_revision == right.create_revision,
        SortTarget::Mod => left.mod_revision == right.mod_revision,
        SortTarget::Value => left.value == right.value,
    }) {
        run.reverse();
    }
    kvs.reverse();
}

fn holds(before: &Keys, compare: &Compare) -> bool {
    let named: Vec<&KeyValue> =
        before.values().filter(|kv| within(&kv.key, &compare.key, &compare.range_end)).collect();
    if named.is_empty() {
        return compare.target() != CompareTarget::Value
            && holds_for(&KeyValue::default(), compare);
    }
    named.into_iter().all(|kv| holds_for(kv, compare))
}

fn holds_for(kv: &KeyValue, compare: &Compare) -> bool {
    let order = match (compare.target(), compare.target_union.clone()) {
        (CompareTarget::Version, Some(TargetUnion::Version(it))) => kv.version.cmp(&it),
        (CompareTarget::Version, _) => kv.version.cmp(&0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(it))) => {
            kv.create_revision.cmp(&it)
        }
        (CompareTarget::Create, _) => kv.create_revision.cmp(&0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(it))) => kv.mod_revision.cmp(&it),
        (CompareTarget::Mod, _) => kv.mod_revision.cmp(&0),
        (CompareTarget::Lease, Some(TargetUnion::Lease(it))) => kv.lease.cmp(&it),
        (CompareTarget::Lease, _) => kv.lease.cmp(&0),
        (CompareTarget::Value, Some(TargetUnion::Value(it))) => kv.value.cmp(&it),
        (CompareTarget::Value, _) => kv.value.cmp(&Bytes::new()),
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}
