//! Reads the log store as it is on disk, without the jobs that wait in the queue.

use bytes::Bytes;
use mesh::GroupId;
use prost::Message;
use proto::quorate::v1 as pb;
use rocksdb::{DB, Direction, IteratorMode, ReadOptions};

use super::{Kind, STORE_ID_KEY, entry_key, index_of, meta_key};
use crate::{
    codec,
    rows::StorageError,
    types::{Entry, LogId, Vote},
};

/// The log store as it is on disk.
pub(crate) struct Stored<'a>(pub(crate) &'a DB);

/// One group's log as it is on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredLog {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    /// The first entry stored. It may be a purged one that is not deleted yet.
    pub(crate) first: Option<u64>,
    /// The first entry that was not purged.
    pub(crate) first_kept: Option<u64>,
    /// The last entry stored.
    pub(crate) last_stored: Option<LogId>,
}

impl StoredLog {
    /// The last entry, or the last one that was purged.
    pub(crate) fn last(&self) -> Option<LogId> {
        self.last_stored.max(self.purged)
    }

    /// Whether the first entry follows the last purged one.
    pub(crate) fn begins_right(&self) -> bool {
        self.first_kept.is_none_or(|first| first == self.purged.map_or(0, |id| id.index + 1))
    }
}

impl Stored<'_> {
    /// The id that the store was made with, if it has one.
    pub(crate) fn store_id(&self) -> Result<Option<u64>, StorageError> {
        let Some(bytes) = self.0.get(STORE_ID_KEY).map_err(read_error)? else { return Ok(None) };
        let bytes = <[u8; 8]>::try_from(bytes.as_slice())
            .map_err(|_| StorageError::damaged("malformed store id"))?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    /// Every group that has a record here.
    pub(crate) fn records(&self) -> Result<Vec<(GroupId, pb::StoredGroup)>, StorageError> {
        let mut records = Vec::new();
        let start = 0u32.to_be_bytes();
        for item in self.0.iterator(IteratorMode::From(&start, Direction::Forward)) {
            let (key, value) = item.map_err(read_error)?;
            if key[..4] != start {
                break;
            }
            if let [_, _, _, _, a, b, c, d, kind] = *key
                && kind == Kind::Record as u8
            {
                let record = pb::StoredGroup::decode(value.as_ref()).map_err(|error| {
                    StorageError::damaged_with_source("malformed group record", error)
                })?;
                records.push((GroupId::from_be_bytes([a, b, c, d]), record));
            }
        }
        Ok(records)
    }

    pub(crate) fn log(&self, group: GroupId) -> Result<StoredLog, StorageError> {
        let vote = self.read::<pb::Vote>(group, Kind::Vote)?;
        let vote = vote.map(|vote| codec::vote_from_proto(Some(vote))).transpose();
        let vote = vote.map_err(|error| {
            StorageError::damaged_with_source("malformed record in the log store", error)
        })?;
        let purged = self.log_id(group, Kind::Purged)?;
        let begin = purged.map_or(0, |purged| purged.index + 1);
        let first = self.first_from(group, 0)?;
        let first_kept = self.first_from(group, begin)?;
        Ok(StoredLog { vote, purged, first, first_kept, last_stored: self.last(group)? })
    }

    pub(super) fn log_id(&self, group: GroupId, kind: Kind) -> Result<Option<LogId>, StorageError> {
        Ok(self.read::<pb::LogId>(group, kind)?.map(codec::log_id_from_proto))
    }

    pub(super) fn read<M: Message + Default>(
        &self,
        group: GroupId,
        kind: Kind,
    ) -> Result<Option<M>, StorageError> {
        let stored = self.0.get(meta_key(group, kind)).map_err(read_error)?;
        stored
            .map(|bytes| {
                M::decode(bytes.as_slice()).map_err(|error| {
                    let context = format!("malformed {kind:?} of group {group}");
                    StorageError::damaged_with_source(context, error)
                })
            })
            .transpose()
    }

    /// The index of the first entry at or after `index`.
    fn first_from(&self, group: GroupId, index: u64) -> Result<Option<u64>, StorageError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(entry_key(group, index).to_vec());
        let mut iterator = self.0.raw_iterator_opt(options);
        iterator.seek(entry_key(group, index));
        iterator.status().map_err(read_error)?;
        Ok(iterator.key().and_then(|key| index_of(group, key)))
    }

    fn last(&self, group: GroupId) -> Result<Option<LogId>, StorageError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(entry_key(group, 0).to_vec());
        let mut iterator = self.0.raw_iterator_opt(options);
        iterator.seek_for_prev(entry_key(group, u64::MAX));
        iterator.status().map_err(read_error)?;
        match (iterator.key().and_then(|key| index_of(group, key)), iterator.value()) {
            (Some(_), Some(value)) => Ok(Some(decode_entry(value.into())?.log_id)),
            _ => Ok(None),
        }
    }
}

fn read_error(error: rocksdb::Error) -> StorageError {
    StorageError::of_database("cannot read the log", error)
}

pub(super) fn decode_entry(value: Box<[u8]>) -> Result<Entry, StorageError> {
    let entry = pb::Entry::decode(Bytes::from(value))
        .map_err(|error| StorageError::damaged_with_source("malformed log entry", error))?;
    codec::entry_from_proto(entry)
        .map_err(|error| StorageError::damaged_with_source("malformed log entry", error))
}
