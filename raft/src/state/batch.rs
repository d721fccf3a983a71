//! The rows while a batch of commands is applied: the writes of the batch over the stored rows.

use std::{cmp::Ordering, collections::BTreeMap, ops::Bound};

use rocksdb::{BoundColumnFamily, WriteBatch};

use crate::{
    db::Db,
    read_view::{bounds, range_options, row_key},
    rows::{Read, StorageError, Write},
};

/// The stored rows with the writes of the batch on top. Keys in `changes` have the prefix that they
/// are stored with.
pub(super) struct BatchRows<'a> {
    db: &'a Db,
    family: std::sync::Arc<BoundColumnFamily<'a>>,
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> BatchRows<'a> {
    pub(super) fn new(db: &'a Db, family: std::sync::Arc<BoundColumnFamily<'a>>) -> Self {
        Self { db, family, changes: BTreeMap::new() }
    }

    pub(super) fn into_batch(self) -> WriteBatch {
        let mut batch = WriteBatch::default();
        for (key, value) in self.changes {
            match value {
                Some(value) => batch.put_cf(&self.family, key, value),
                None => batch.delete_cf(&self.family, key),
            }
        }
        batch
    }
}

impl Read for BatchRows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let key = row_key(key);
        match self.changes.get(&key) {
            Some(changed) => Ok(changed.clone()),
            None => self
                .db
                .get_cf(&self.family, key)
                .map_err(|error| self.db.failed("cannot read rows", error)),
        }
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let Some((lower, upper)) = bounds(start, end) else { return Ok(()) };
        let range = (Bound::Included(lower.as_slice()), Bound::Excluded(upper.as_slice()));
        let changes = self.changes.range::<[u8], _>(range);
        let (options, mode) = range_options(lower.clone(), upper.clone(), reverse);
        let stored = self.db.iterator_cf_opt(&self.family, options, mode);
        let stored = stored.map(|row| row.map_err(|error| self.db.failed("cannot scan", error)));
        if reverse {
            merge(changes.rev(), stored, Ordering::reverse, visit)
        } else {
            merge(changes, stored, |order| order, visit)
        }
    }
}

impl Write for BatchRows<'_> {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(row_key(&key), Some(value));
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.changes.insert(row_key(&key), None);
    }
}

type StoredRow = Result<Row, StorageError>;

/// Visits the union of two sequences, both in key order as `direction` gives it. A change hides the
/// stored row of the same key.
fn merge<'a>(
    changes: impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
    stored: impl Iterator<Item = StoredRow>,
    direction: impl Fn(Ordering) -> Ordering,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StorageError> {
    let mut changes = changes.peekable();
    let mut stored = stored;
    let mut next = read_row(&mut stored)?;
    loop {
        let order = match (changes.peek(), &next) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((changed, _)), Some((key, _))) => direction(changed.as_slice().cmp(key.as_ref())),
        };
        if order == Ordering::Greater {
            let Some((key, value)) = next.take() else { return Ok(()) };
            next = read_row(&mut stored)?;
            if !visit(&key[1..], &value) {
                return Ok(());
            }
            continue;
        }
        if order == Ordering::Equal {
            next = read_row(&mut stored)?;
        }
        let Some((key, value)) = changes.next() else { return Ok(()) };
        if let Some(value) = value
            && !visit(&key[1..], value)
        {
            return Ok(());
        }
    }
}

/// A key, with its prefix, and its value.
type Row = (Box<[u8]>, Box<[u8]>);

fn read_row(stored: &mut impl Iterator<Item = StoredRow>) -> Result<Option<Row>, StorageError> {
    stored.next().transpose()
}
