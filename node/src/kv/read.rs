//! Ranges: which keys there were at a revision.

use std::cmp::Ordering;

use bytes::Bytes;
use proto::{
    etcdserverpb::{
        RangeRequest, RangeResponse, ResponseHeader,
        range_request::{SortOrder, SortTarget},
    },
    mvccpb::KeyValue,
};
use raft::rows::{Read, StorageError};

use super::{
    layout::{KeyRecord, Meta, Revision, corrupt, history_ended, history_key},
    refusal::{KvError, Refusal},
    span::Span,
};

/// Answers a range from rows that do not change meanwhile.
///
/// The header has the revision and no more.
pub fn range(rows: &dyn Read, request: &RangeRequest) -> Result<RangeResponse, KvError> {
    let meta = Meta::load(rows)?;
    let at = match request.revision {
        revision if revision > meta.revision => return Err(Refusal::FutureRevision.into()),
        ..=0 => meta.revision,
        revision if revision < meta.compacted => return Err(Refusal::Compacted.into()),
        revision => revision,
    };
    Ok(range_at(rows, request, at, meta.revision)?)
}

/// Answers a range at revision `at`, which must be readable; `current` is the latest revision.
pub(super) fn range_at(
    rows: &dyn Read,
    request: &RangeRequest,
    at: i64,
    current: i64,
) -> Result<RangeResponse, StorageError> {
    let order = Order::of(request);
    let limit = usize::try_from(request.limit).unwrap_or_default();
    let selection = Selection {
        // Keys that are sorted or filtered afterwards must all be found first. Otherwise one key
        // beyond the limit shows whether there are more.
        keys: match limit {
            _ if request.count_only => 0,
            0 => usize::MAX,
            _ if has_filters(request) || order.needs_all(request.sort_order()) => usize::MAX,
            _ => limit.saturating_add(1),
        },
        values: !request.keys_only
            || order == Order::By(SortTarget::Value, Direction::Up)
            || order == Order::By(SortTarget::Value, Direction::Down),
    };
    let span = Span::new(&request.key, &request.range_end);
    let Found { mut kvs, count } = if at >= current {
        find_current(rows, span, selection)?
    } else {
        find_at(rows, span, at, selection)?
    };
    kvs.retain(|kv| passes_filters(request, kv));
    order.sort(&mut kvs);
    let more = limit > 0 && kvs.len() > limit;
    if more {
        kvs.truncate(limit);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    Ok(RangeResponse { header: Some(header(current)), kvs, more, count })
}

/// A header as the machine knows it; the etcd service adds the fields of the server.
pub(super) fn header(revision: i64) -> ResponseHeader {
    ResponseHeader { revision, ..ResponseHeader::default() }
}

/// How much of what is found is kept.
#[derive(Clone, Copy, Debug)]
struct Selection {
    keys: usize,
    values: bool,
}

impl Selection {
    fn push_to(self, kvs: &mut Vec<KeyValue>, key: &[u8], mut record: KeyRecord<'_>) {
        if kvs.len() < self.keys {
            if !self.values {
                record.value = &[];
            }
            kvs.push(record.to_proto(key));
        }
    }
}

/// The keys that were kept, in order, and the number of all that were found.
#[derive(Debug, Default)]
struct Found {
    kvs: Vec<KeyValue>,
    count: i64,
}

fn find_current(
    rows: &dyn Read,
    span: Span<'_>,
    selection: Selection,
) -> Result<Found, StorageError> {
    let mut found = Found::default();
    span.each_current(rows, &mut |key, record| {
        selection.push_to(&mut found.kvs, key, record);
        found.count += 1;
        true
    })?;
    Ok(found)
}

/// The record of a key at an older revision is its current record, if that began by then; else it
/// is the record in its history that began by then and ended later. At most one of the two exists.
fn find_at(
    rows: &dyn Read,
    span: Span<'_>,
    at: i64,
    selection: Selection,
) -> Result<Found, StorageError> {
    let mut current = Found::default();
    span.each_current(rows, &mut |key, record| {
        if record.mod_revision <= at {
            selection.push_to(&mut current.kvs, key, record);
            current.count += 1;
        }
        true
    })?;
    let ended = find_ended(rows, span, at, selection)?;
    let mut kvs = merge(current.kvs, ended.kvs);
    kvs.truncate(selection.keys);
    Ok(Found { kvs, count: current.count + ended.count })
}

fn find_ended(
    rows: &dyn Read,
    span: Span<'_>,
    at: i64,
    selection: Selection,
) -> Result<Found, StorageError> {
    let (start, end) = span.history(Revision { main: at.saturating_add(1), sub: 0 });
    let mut found = Found::default();
    let mut bad = None;
    if end <= start {
        return Ok(found);
    }
    // The records of a key do not overlap, so only the first row beyond `at` can be the record at
    // `at`.
    let goes_on = !matches!(span, Span::Key(_));
    rows.scan(&start, Some(&end), false, &mut |row, bytes| {
        let (Some(ended), Some(record)) = (history_ended(row), KeyRecord::decode(bytes)) else {
            bad = Some(corrupt("history", row));
            return false;
        };
        if record.mod_revision > at || ended.main <= at {
            return goes_on;
        }
        found.count += 1;
        if found.kvs.len() < selection.keys {
            let Some(key) = history_key(row) else {
                bad = Some(corrupt("history", row));
                return false;
            };
            selection.push_to(&mut found.kvs, &key, record);
        }
        goes_on
    })?;
    bad.map_or(Ok(found), Err)
}

/// Merges two lists that are sorted by key and have no key in common.
fn merge(left: Vec<KeyValue>, right: Vec<KeyValue>) -> Vec<KeyValue> {
    if left.is_empty() || right.is_empty() {
        return if left.is_empty() { right } else { left };
    }
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
        let next = if l.key < r.key { left.next() } else { right.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

fn has_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

fn passes_filters(request: &RangeRequest, kv: &KeyValue) -> bool {
    let within =
        |value: i64, min: i64, max: i64| (max == 0 || value <= max) && (min == 0 || value >= min);
    within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
        && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// The order that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// By key, ascending: what a scan gives.
    AsFound,
    By(SortTarget, Direction),
}

impl Order {
    fn of(request: &RangeRequest) -> Self {
        match (request.sort_target(), request.sort_order()) {
            (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => Self::AsFound,
            (target, SortOrder::None | SortOrder::Ascend) => Self::By(target, Direction::Up),
            (target, SortOrder::Descend) => Self::By(target, Direction::Down),
        }
    }

    /// Whether all keys must be found before they are sorted and cut. Etcd cuts first if a request
    /// names a target without an order.
    fn needs_all(self, asked: SortOrder) -> bool {
        self != Self::AsFound && asked != SortOrder::None
    }

    /// Keys that are equal in the target stay in ascending order, whatever the direction.
    fn sort(self, kvs: &mut [KeyValue]) {
        let Self::By(target, direction) = self else { return };
        kvs.sort_by(|left, right| {
            let order = compare(target, left, right);
            match direction {
                Direction::Up => order,
                Direction::Down => order.reverse(),
            }
        });
    }
}

fn compare(target: SortTarget, left: &KeyValue, right: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => left.key.cmp(&right.key),
        SortTarget::Version => left.version.cmp(&right.version),
        SortTarget::Create => left.create_revision.cmp(&right.create_revision),
        SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
        SortTarget::Value => left.value.cmp(&right.value),
    }
}
