//! Ordered rows of a group's state, and the state machine that reads and writes them.
//!
//! A row is a key and a value, both bytes. A state machine accesses its rows only through [`Read`]
//! and [`Write`], so it can be tested on [`MemoryRows`] without a database.

use std::{collections::BTreeMap, error::Error, ops::Bound, sync::Arc};

use bytes::Bytes;

use crate::level::Commands;

/// The rows of one group at one point in its log.
pub trait Read {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Visits the rows in `start..end` ascending, or descending with `reverse`. No `end` means no
    /// bound; `visit` returns false to stop.
    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError>;
}

/// Rows that can be changed. Reads see the writes made before them.
pub trait Write: Read {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>);
    fn delete(&mut self, key: Vec<u8>);
}

/// A replicated, deterministic machine: the same commands in the same order leave the same rows
/// and replies on every replica.
pub trait StateMachine: Send + 'static {
    /// Which commands this version knows.
    fn commands(&self) -> Commands;

    /// Builds what the machine keeps in memory from the rows: at start, and after a Raft snapshot
    /// replaced them.
    fn load(&mut self, rows: &dyn Read) -> Result<(), StorageError>;

    /// Applies one committed command. A result that depends only on the command and the rows, such
    /// as a refusal, is a reply. An error stops the node. A command that this version does not know
    /// is an error too: [`StorageError::outdated`].
    fn apply(
        &mut self,
        entry: EntryMeta,
        command: &[u8],
        rows: &mut dyn Write,
    ) -> Result<Bytes, StorageError>;

    /// Publishes to readers that the rows include everything up to the log index `applied`. Called
    /// after the rows are written and before the writers are answered.
    fn publish(&mut self, applied: u64);
}

/// Where a command stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMeta {
    pub index: u64,
    pub term: u64,
}

/// A store failed, or holds invalid data. The node stops.
#[derive(Debug, Clone, thiserror::Error)]
#[error("storage failed: {context}")]
pub struct StorageError {
    context: String,
    outdated: bool,
    #[source]
    source: Option<Arc<dyn Error + Send + Sync>>,
    damage: bool,
}

impl StorageError {
    pub fn new(context: impl Into<String>) -> Self {
        Self { context: context.into(), outdated: false, source: None, damage: false }
    }

    /// The store is intact, but this version is too old for its content.
    pub fn outdated(context: impl Into<String>) -> Self {
        Self { outdated: true, ..Self::new(context) }
    }

    /// Whether another version of this software could go on.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// What failed, without its causes.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The stored data is not what was written.
    pub fn damaged(context: impl Into<String>) -> Self {
        Self { damage: true, ..Self::new(context) }
    }

    pub fn with_source(
        context: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            context: context.into(),
            outdated: false,
            source: Some(Arc::new(source)),
            damage: false,
        }
    }

    /// As [`Self::damaged`], with a source.
    pub fn damaged_with_source(
        context: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { damage: true, ..Self::with_source(context, source) }
    }

    /// An error of RocksDB. It may mean damage.
    pub(crate) fn of_database(context: impl Into<String>, source: rocksdb::Error) -> Self {
        let damage = is_damage(&source);
        Self { damage, ..Self::with_source(context, source) }
    }

    /// Whether the stored data is not what was written, so that nothing in the store can be relied
    /// on.
    pub const fn is_damage(&self) -> bool {
        self.damage
    }
}

impl From<StorageError> for std::io::Error {
    fn from(error: StorageError) -> Self {
        Self::other(error)
    }
}

/// Whether an error means that written data is missing or changed, and not, for instance, that the
/// process has too many open files.
fn is_damage(error: &rocksdb::Error) -> bool {
    let text = error.as_ref();
    match error.kind() {
        rocksdb::ErrorKind::Corruption => true,
        rocksdb::ErrorKind::IOError => {
            text.contains("No such file or directory") || text.contains("Input/output error")
        }
        // The file that `CURRENT` names is missing.
        rocksdb::ErrorKind::InvalidArgument => text.contains("does not exist"),
        rocksdb::ErrorKind::NotFound
        | rocksdb::ErrorKind::NotSupported
        | rocksdb::ErrorKind::MergeInProgress
        | rocksdb::ErrorKind::Incomplete
        | rocksdb::ErrorKind::ShutdownInProgress
        | rocksdb::ErrorKind::TimedOut
        | rocksdb::ErrorKind::Aborted
        | rocksdb::ErrorKind::Busy
        | rocksdb::ErrorKind::Expired
        | rocksdb::ErrorKind::TryAgain
        | rocksdb::ErrorKind::CompactionTooLarge
        | rocksdb::ErrorKind::ColumnFamilyDropped
        | rocksdb::ErrorKind::Unknown => false,
    }
}

/// Rows in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryRows(BTreeMap<Vec<u8>, Vec<u8>>);

impl MemoryRows {
    pub fn new() -> Self {
        Self::default()
    }
}

impl Read for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let range = self.0.range::<[u8], _>((
            Bound::Included(start),
            end.map_or(Bound::Unbounded, Bound::Excluded),
        ));
        let mut visit_row = |(key, value): (&Vec<u8>, &Vec<u8>)| visit(key, value);
        if reverse {
            range.rev().all(&mut visit_row);
        } else {
            range.into_iter().all(&mut visit_row);
        }
        Ok(())
    }
}

impl Write for MemoryRows {
    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.0.insert(key, value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.0.remove(&key);
    }
}

#[cfg(test)]
mod tests;
