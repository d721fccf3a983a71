//! Random requests over so few keys that they affect each other: for the model here, and for a
//! comparison with any server that speaks the etcd v3 API.

use bytes::Bytes;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Few enough that etcd, whose sort is stable only for short lists, sorts them as we do.
const KEYS: [&[u8]; 11] = [
    b"\0", b"\0\xff", b"a", b"a\0", b"a\0\x01", b"a\x01", b"ab", b"b", b"b\xff", b"\xff", b"\xff\0",
];

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operation {
    Range(RangeRequest),
    Put(PutRequest),
    DeleteRange(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
}

/// Requests from a seed.
#[derive(Debug)]
pub(crate) struct Generator {
    random: StdRng,
    values: u64,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), values: 0 }
    }

    /// The next request, of which some are wrong, for a store at this revision.
    pub(crate) fn next(&mut self, revision: i64) -> Operation {
        match self.random.random_range(0..100) {
            0..30 => Operation::Put(self.put(true)),
            30..40 => Operation::DeleteRange(self.delete_range(true)),
            40..65 => Operation::Txn(self.txn(revision, 2)),
            65..98 => Operation::Range(self.range(revision)),
            _ => Operation::Compact(self.compact(revision)),
        }
    }

    fn put(&mut self, may_ignore: bool) -> PutRequest {
        self.values += 1;
        let ignore_value = may_ignore && self.one_in(8);
        let with_value = !ignore_value || self.one_in(8);
        PutRequest {
            key: self.key(),
            value: if with_value { self.value() } else { Bytes::new() },
            lease: if self.one_in(60) { 7 } else { 0 },
            prev_kv: self.one_in(3),
            ignore_value,
            ignore_lease: may_ignore && self.one_in(12),
        }
    }

    fn delete_range(&mut self, may_be_open: bool) -> DeleteRangeRequest {
        let (key, range_end) = self.span(may_be_open, 3);
        DeleteRangeRequest { key, range_end, prev_kv: self.one_in(2) }
    }

    fn range(&mut self, revision: i64) -> RangeRequest {
        let (key, range_end) = self.span(true, 1);
        RangeRequest {
            key,
            range_end,
            limit: if self.one_in(3) { self.random.random_range(-1..5) } else { 0 },
            revision: if self.one_in(2) { self.revision(revision) } else { 0 },
            sort_order: self.enumerated(3),
            sort_target: self.enumerated(5),
            serializable: self.one_in(2),
            keys_only: self.one_in(5),
            count_only: self.one_in(8),
            min_mod_revision: self.filter(revision),
            max_mod_revision: self.filter(revision),
            min_create_revision: self.filter(revision),
            max_create_revision: self.filter(revision),
        }
    }

    fn txn(&mut self, revision: i64, depth: u32) -> TxnRequest {
        // Etcd 3.4 and 3.5 panic when a put keeps the value of a key that an open-ended deletion
        // before it has removed.
        let may_ignore = self.one_in(2);
        TxnRequest {
            compare: self.some(3, |it| it.compare(revision)),
            success: self.some(4, |it| it.operation(revision, depth, may_ignore)),
            failure: self.some(4, |it| it.operation(revision, depth, may_ignore)),
        }
    }

    fn operation(&mut self, revision: i64, depth: u32, may_ignore: bool) -> RequestOp {
        let request = match self.random.random_range(0..10) {
            0..4 => Request::RequestPut(self.put(may_ignore)),
            4..6 => Request::RequestDeleteRange(self.delete_range(!may_ignore)),
            6..9 => Request::RequestRange(self.range(revision)),
            _ if depth == 0 => Request::RequestPut(self.put(may_ignore)),
            _ => {
                let may_ignore_within = may_ignore;
                let nested = TxnRequest {
                    compare: self.some(2, |it| it.compare(revision)),
                    success: self
                        .some(3, |it| it.operation(revision, depth - 1, may_ignore_within)),
                    failure: self
                        .some(3, |it| it.operation(revision, depth - 1, may_ignore_within)),
                };
                Request::RequestTxn(nested.into())
            }
        };
        RequestOp { request: Some(request) }
    }

    fn compare(&mut self, revision: i64) -> Compare {
        const RESULTS: [CompareResult; 4] = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        let (target, union) = match self.random.random_range(0..5) {
            0 => (CompareTarget::Version, TargetUnion::Version(self.random.random_range(0..4))),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(self.revision(revision))),
            2 => (CompareTarget::Mod, TargetUnion::ModRevision(self.revision(revision))),
            3 => (CompareTarget::Lease, TargetUnion::Lease(self.random.random_range(0..2))),
            _ => (CompareTarget::Value, TargetUnion::Value(self.value())),
        };
        let (key, range_end) = self.span(true, 3);
        Compare {
            result: RESULTS[self.random.random_range(0..RESULTS.len())].into(),
            target: target.into(),
            key,
            range_end,
            // Without an operand the compare is with zero.
            target_union: (!self.one_in(10)).then_some(union),
        }
    }

    fn compact(&mut self, revision: i64) -> CompactionRequest {
        CompactionRequest { revision: self.revision(revision), physical: self.one_in(2) }
    }

    /// A range one time in `single`, else one key.
    fn span(&mut self, may_be_open: bool, single: u32) -> (Bytes, Bytes) {
        let key = self.key();
        let range_end = match self.random.random_range(0..6) {
            _ if !self.one_in(single) => Bytes::new(),
            0 => Bytes::new(),
            1 if may_be_open => Bytes::from_static(b"\0"),
            2 if may_be_open => return (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            _ => self.key(),
        };
        // As the end of a range, one zero byte means the open end.
        if !may_be_open && range_end == b"\0"[..] {
            return (key, Bytes::new());
        }
        (key, range_end)
    }

    fn key(&mut self) -> Bytes {
        if self.one_in(150) {
            return Bytes::new();
        }
        Bytes::from_static(KEYS[self.random.random_range(0..KEYS.len())])
    }

    fn value(&mut self) -> Bytes {
        Bytes::from(format!("v{}", self.values % 7))
    }

    /// A revision around `revision`: sometimes compacted, sometimes one too high.
    fn revision(&mut self, revision: i64) -> i64 {
        self.random.random_range((revision - 30).max(-1)..=revision + 1)
    }

    fn filter(&mut self, revision: i64) -> i64 {
        if self.one_in(10) { self.revision(revision) } else { 0 }
    }

    fn enumerated(&mut self, values: i32) -> i32 {
        if self.one_in(2) { 0 } else { self.random.random_range(0..values) }
    }

    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.random.random_range(0..=most);
        (0..count).map(|_| make(self)).collect()
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.random.random_range(0..n) == 0
    }
}
