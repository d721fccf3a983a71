//! Compaction: removing the revisions before a given one.
//!
//! Reads below the compacted revision are refused at once. The rows that only such reads needed are
//! removed in the order of the revisions that ended them: a limited number at once, and the rest
//! with later commands, a few with each, so that a compaction does not hold up the writes behind
//! it. How far the removal has come is part of the replicated state, so replicas stay alike.

use proto::etcdserverpb::CompactionRequest;
use raft::rows::{StorageError, Write};

use super::{
    layout::{ChangeKind, Meta, Revision, change_at, change_of, change_row, corrupt, history_row},
    refusal::Refusal,
};

/// Changes that a compaction forgets at once.
const SWEPT_AT_COMPACTION: usize = 16_384;

/// Changes that any later command forgets; as many as one transaction can make, so that the sweep
/// gains on the writes.
const SWEPT_PER_COMMAND: usize = 256;

/// Makes `request.revision` the first that can be read. With `physical`, all rows to be removed are
/// removed before it is answered.
pub(super) fn compact(
    rows: &mut dyn Write,
    meta: &mut Meta,
    request: &CompactionRequest,
) -> Result<Result<(), Refusal>, StorageError> {
    if request.revision <= meta.compacted {
        return Ok(Err(Refusal::Compacted));
    }
    if request.revision > meta.revision {
        return Ok(Err(Refusal::FutureRevision));
    }
    meta.compacted = request.revision;
    sweep(rows, meta, if request.physical { usize::MAX } else { SWEPT_AT_COMPACTION })?;
    Ok(Ok(()))
}

/// Removes more of what a compaction has left.
pub(super) fn sweep_on(rows: &mut dyn Write, meta: &mut Meta) -> Result<(), StorageError> {
    sweep(rows, meta, SWEPT_PER_COMMAND)
}

/// Forgets changes up to the compacted revision, at most `most` of them.
fn sweep(rows: &mut dyn Write, meta: &mut Meta, most: usize) -> Result<(), StorageError> {
    let end = Revision { main: meta.compacted.saturating_add(1), sub: 0 };
    if meta.swept >= end {
        return Ok(());
    }
    let (changes, swept) = changes_between(rows, meta.swept, end, most)?;
    for Change { at, kind, key } in changes {
        let row = change_row(at);
        meta.shrink(row.len() + 1 + key.len());
        rows.delete(row);
        if kind == ChangeKind::Create {
            continue;
        }
        let row = history_row(&key, at);
        if let Some(record) = rows.get(&row)? {
            meta.shrink(row.len() + record.len());
            rows.delete(row);
        }
    }
    meta.swept = swept;
    Ok(())
}

struct Change {
    at: Revision,
    kind: ChangeKind,
    key: Vec<u8>,
}

/// At most `most` changes, from `start` on and before `end`, and the revision at which to go on.
fn changes_between(
    rows: &dyn Write,
    start: Revision,
    end: Revision,
    most: usize,
) -> Result<(Vec<Change>, Revision), StorageError> {
    let mut changes = Vec::new();
    let mut next = end;
    let mut bad = None;
    rows.scan(&change_row(start), Some(&change_row(end)), false, &mut |row, value| {
        let (Some(at), Some((kind, key))) = (change_at(row), change_of(value)) else {
            bad = Some(corrupt("change", row));
            return false;
        };
        if changes.len() == most {
            next = at;
            return false;
        }
        changes.push(Change { at, kind, key: key.to_vec() });
        true
    })?;
    bad.map_or(Ok((changes, next)), Err)
}
