//! A hash over the history up to a revision, equal on replicas that hold the same.

use raft::rows::{Read, StorageError};
use xxhash_rust::xxh3::Xxh3;

use super::{
    layout::{KeyRecord, Meta, Revision, corrupt, history_ended, history_key},
    refusal::{KvError, Refusal},
    span::Span,
};

/// A digest of the versions that a namespace has at a revision, to compare replicas by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    pub hash: u32,
    /// Versions that ended at or before it are not in the hash.
    pub compacted: i64,
    /// The namespace's latest, which may be later than the one that was hashed.
    pub revision: i64,
}

/// Hashes the namespace as it is at `revision`, or at the latest revision if that is zero.
///
/// Two replicas with the same compacted revision give the same hash of a revision, whatever they
/// have applied since and however far their sweeps have come.
pub fn hash(rows: &dyn Read, revision: i64) -> Result<Hash, KvError> {
    let meta = Meta::load(rows)?;
    if revision > meta.revision {
        return Err(Refusal::FutureRevision.into());
    }
    if revision > 0 && revision < meta.compacted {
        return Err(Refusal::Compacted.into());
    }
    let at = if revision > 0 { revision } else { meta.revision };
    // A sum, since it does not depend on the order of the rows: a version in a current row of one
    // replica is in a history row of a replica that has applied more.
    let mut sum: u64 = 0;
    Span::From(&[]).each_current(rows, &mut |key, record| {
        if record.mod_revision <= at {
            sum = sum.wrapping_add(digest(key, record, None));
        }
        true
    })?;
    sum = sum.wrapping_add(hash_history(rows, &meta, at)?);
    let hash = (sum >> 32) as u32 ^ sum as u32;
    Ok(Hash { hash, compacted: meta.compacted, revision: meta.revision })
}

fn hash_history(rows: &dyn Read, meta: &Meta, at: i64) -> Result<u64, StorageError> {
    let (start, end) = Span::From(&[]).history(Revision::default());
    let mut sum: u64 = 0;
    let mut bad = None;
    rows.scan(&start, Some(&end), false, &mut |row, bytes| {
        let (Some(ended), Some(record), Some(key)) =
            (history_ended(row), KeyRecord::decode(bytes), history_key(row))
        else {
            bad = Some(corrupt("history", row));
            return false;
        };
        if record.mod_revision <= at && ended.main > meta.compacted {
            let ended = (ended.main <= at).then_some(ended);
            sum = sum.wrapping_add(digest(&key, record, ended));
        }
        true
    })?;
    bad.map_or(Ok(sum), Err)
}

fn digest(key: &[u8], record: KeyRecord<'_>, ended: Option<Revision>) -> u64 {
    let ended = ended.unwrap_or_default();
    let mut hasher = Xxh3::new();
    hasher.update(&key.len().to_be_bytes());
    hasher.update(key);
    for field in [
        record.create_revision,
        record.mod_revision,
        record.version,
        record.lease,
        ended.main,
        i64::from(ended.sub),
    ] {
        hasher.update(&field.to_be_bytes());
    }
    hasher.update(record.value);
    hasher.digest()
}
