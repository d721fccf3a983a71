//! The rows that this crate keeps beside those of a state machine.

use prost::Message;
use proto::quorate::v1 as pb;
use rocksdb::{AsColumnFamilyRef, DB};

use crate::{
    codec,
    level::FIRST,
    read_view::{ReadView, system_key},
    rows::StorageError,
    types::{LogId, StoredMembership},
};

/// System rows: the id of the last applied entry, and the membership.
pub(super) const APPLIED: &[u8] = b"applied";
pub(super) const MEMBERSHIP: &[u8] = b"membership";
/// System row: the group's level, once it was raised.
pub(super) const LEVEL: &[u8] = b"level";

/// The index of the last applied entry in a column family that is not in use.
pub(crate) fn read_stored_applied(
    db: &DB,
    family: &impl AsColumnFamilyRef,
) -> Result<Option<u64>, StorageError> {
    let stored = db
        .get_cf(family, system_key(APPLIED))
        .map_err(|error| StorageError::of_database("cannot read rows", error))?;
    let stored = stored.map(|bytes| pb::LogId::decode(bytes.as_slice())).transpose();
    let stored =
        stored.map_err(|error| StorageError::damaged_with_source("malformed log id", error))?;
    Ok(stored.map(|id| id.index))
}

pub(crate) fn read_applied(view: &ReadView) -> Result<Option<LogId>, StorageError> {
    let stored = view.system(APPLIED)?;
    let stored = stored.map(|bytes| pb::LogId::decode(bytes.as_slice())).transpose();
    let stored =
        stored.map_err(|error| StorageError::damaged_with_source("malformed log id", error))?;
    Ok(stored.map(codec::log_id_from_proto))
}

pub(super) fn read_level(view: &ReadView) -> Result<u32, StorageError> {
    let Some(bytes) = view.system(LEVEL)? else { return Ok(FIRST) };
    let bytes = bytes.try_into().map_err(|_| StorageError::damaged("malformed level"))?;
    Ok(u32::from_be_bytes(bytes))
}

pub(crate) fn read_membership(view: &ReadView) -> Result<StoredMembership, StorageError> {
    let Some(bytes) = view.system(MEMBERSHIP)? else { return Ok(StoredMembership::default()) };
    let stored = pb::StoredMembership::decode(bytes.as_slice())
        .map_err(|error| StorageError::damaged_with_source("malformed membership", error))?;
    codec::stored_membership_from_proto(stored)
        .map_err(|error| StorageError::damaged_with_source("malformed membership", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        db::without_wal,
        state::family_name,
        testing::{GROUP, Stores},
    };

    #[tokio::test]
    async fn malformed_rows_are_damage() {
        let stores = Stores::open();
        drop(stores.group().await);
        let generation = stores.log.record(GROUP).unwrap().unwrap().generation;
        let db = &stores.state.db;
        let family = db.cf_handle(&family_name(GROUP, generation)).unwrap();
        for row in [APPLIED, MEMBERSHIP, LEVEL] {
            // Too long for a level, and a field that ends too early for a message.
            db.put_cf_opt(&family, system_key(row), b"\x0a\xff\xff\xff\xff", &without_wal())
                .unwrap();
        }
        let view = stores.view();
        let errors = [
            read_stored_applied(db, &family).unwrap_err(),
            read_applied(&view).unwrap_err(),
            read_membership(&view).unwrap_err(),
            read_level(&view).unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_damage(), "{error}");
        }
    }
}
