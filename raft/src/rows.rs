//! Ordered rows of a group's state, and the state machine that reads and writes them.
//!
//! A row is a key and a value, both bytes. A state machine sees its rows through [`Read`] and
//! [`Write`] and never a database, so its rules are tested on [`MemoryRows`].

use std::{collections::BTreeMap, error::Error, ops::Bound, sync::Arc};

use bytes::Bytes;

use crate::level::Commands;

/// The rows of one group at one point.
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

    /// Applies one committed command. What depends only on the command, a refusal for instance, is
    /// a reply; an error stops the node. So does a command that this version does not know:
    /// [`StorageError::outdated`].
    fn apply(
        &mut self,
        entry: EntryMeta,
        command: &[u8],
        rows: &mut dyn Write,
    ) -> Result<Bytes, StorageError>;

    /// Tells readers that everything up to the log index `applied` is in the rows. Called after
    /// the rows are written and before the writers are answered.
    fn publish(&mut self, applied: u64);
}

/// Where a command stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMeta {
    pub index: u64,
    pub term: u64,
}

/// The store failed, or holds what it must not hold. The node stops.
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

    /// There is nothing wrong with the store: this version is too old for what it holds.
    pub fn outdated(context: impl Into<String>) -> Self {
        Self { outdated: true, ..Self::new(context) }
    }

    /// Whether another version of this software could go on.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// What failed, without the causes.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// What is stored is not what was written.
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

    /// The same for what is stored and is not what was written.
    pub fn damaged_with_source(
        context: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self { damage: true, ..Self::with_source(context, source) }
    }

    /// A failed call of the database, which may tell of damage.
    pub(crate) fn of_database(context: impl Into<String>, source: rocksdb::Error) -> Self {
        let damage = is_damage(&source);
        Self { damage, ..Self::with_source(context, source) }
    }

    /// Whether what is stored is not what was written, so that nothing here can be relied on.
    pub const fn is_damage(&self) -> bool {
        self.damage
    }
}

impl From<StorageError> for std::io::Error {
    fn from(error: StorageError) -> Self {
        Self::other(error)
    }
}

/// Whether an error means that bytes which were written are not there any more, and not, say, that
/// the process has too many files open.
fn is_damage(error: &rocksdb::Error) -> bool {
    let text = error.as_ref();
    match error.kind() {
        rocksdb::ErrorKind::Corruption => true,
        rocksdb::ErrorKind::IOError => {
            text.contains("No such file or directory") || text.contains("Input/output error")
        }
        // What `CURRENT` names is not there.
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
