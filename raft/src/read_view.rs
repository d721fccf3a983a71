//! A consistent, owned view of a group's rows.

use std::{fmt, sync::Arc};

use rocksdb::{BoundColumnFamily, DB, IteratorMode, ReadOptions, SnapshotWithThreadMode};
use self_cell::self_cell;

use crate::{
    db::Db,
    rows::{Read, StorageError},
};

/// First byte of the rows of a state machine.
pub(crate) const ROWS: u8 = 1;
/// First byte of the rows that this crate keeps beside them.
pub(crate) const SYSTEM: u8 = 0;

pub(crate) struct Pinned<'a> {
    snapshot: SnapshotWithThreadMode<'a, DB>,
    family: Arc<BoundColumnFamily<'a>>,
}

self_cell!(
    struct Cell {
        owner: Arc<Db>,

        #[covariant]
        dependent: Pinned,
    }
);

/// The rows of a group as they were when the view was opened. Later commands do not change it.
/// While it exists, the database keeps the old rows.
pub struct ReadView(Cell);

impl ReadView {
    /// None if there is no such column family.
    pub(crate) fn open(db: &Arc<Db>, family: &str) -> Option<Self> {
        let cell = Cell::try_new(db.clone(), |db| {
            let family = db.cf_handle(family).ok_or(())?;
            Ok::<_, ()>(Pinned { snapshot: db.snapshot(), family })
        });
        cell.ok().map(Self)
    }

    /// A value kept by this crate beside the rows.
    pub(crate) fn system(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.raw(&system_key(key))
    }

    /// Visits every row in the column family in order, with keys as they are stored.
    pub(crate) fn visit_all(
        &self,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let pinned = self.0.borrow_dependent();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for item in pinned.snapshot.iterator_cf_opt(&pinned.family, options, IteratorMode::Start) {
            let (key, value) = item.map_err(|error| self.failed(error))?;
            visit(&key, &value)?;
        }
        Ok(())
    }

    /// Reads everything in the column family once, which verifies every checksum.
    pub(crate) fn verify(&self) -> Result<(), StorageError> {
        let pinned = self.0.borrow_dependent();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for item in pinned.snapshot.iterator_cf_opt(&pinned.family, options, IteratorMode::Start) {
            item.map_err(|error| StorageError::of_database("cannot read rows", error))?;
        }
        Ok(())
    }

    fn raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let pinned = self.0.borrow_dependent();
        pinned.snapshot.get_cf(&pinned.family, key).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: rocksdb::Error) -> StorageError {
        self.0.borrow_owner().failed("cannot read rows", error)
    }
}

impl Read for ReadView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.raw(&row_key(key))
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let Some((lower, upper)) = bounds(start, end) else { return Ok(()) };
        let pinned = self.0.borrow_dependent();
        let (options, mode) = range_options(lower, upper, reverse);
        for item in pinned.snapshot.iterator_cf_opt(&pinned.family, options, mode) {
            let (key, value) = item.map_err(|error| self.failed(error))?;
            if !visit(&key[1..], &value) {
                break;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ReadView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadView")
    }
}

pub(crate) fn row_key(key: &[u8]) -> Vec<u8> {
    prefixed(ROWS, key)
}

pub(crate) fn system_key(key: &[u8]) -> Vec<u8> {
    prefixed(SYSTEM, key)
}

/// Stored bounds of a range of rows; None if the range is empty.
pub(crate) fn bounds(start: &[u8], end: Option<&[u8]>) -> Option<(Vec<u8>, Vec<u8>)> {
    if end.is_some_and(|end| end <= start) {
        return None;
    }
    Some((row_key(start), end.map_or_else(|| vec![ROWS + 1], row_key)))
}

/// How to iterate over stored keys in `lower..upper`.
pub(crate) fn range_options(
    lower: Vec<u8>,
    upper: Vec<u8>,
    reverse: bool,
) -> (ReadOptions, IteratorMode<'static>) {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(lower);
    options.set_iterate_upper_bound(upper);
    let mode = if reverse { IteratorMode::End } else { IteratorMode::Start };
    (options, mode)
}

fn prefixed(prefix: u8, key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + key.len());
    stored.push(prefix);
    stored.extend_from_slice(key);
    stored
}
