//! The two RocksDB instances of a data directory and how each is tuned.
//!
//! `raft/` holds the log of every group, votes and group records; its write-ahead log is on and
//! synced. `data/` holds the state of the groups, one column family per group and generation; its
//! write-ahead log is off, since the Raft log replays what was not flushed.

use std::{ops::Deref, path::Path, sync::Arc};

use mesh::DirLock;
use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Options,
    WriteOptions,
};

use crate::{damage::DamageAlarm, rows::StorageError};

/// Memory for recent log entries not yet in a table file.
const LOG_WRITE_BUFFER: usize = 64 << 20;
/// Size of the write-ahead log at which RocksDB flushes, so that it can delete the log.
const LOG_WAL_MAX: u64 = 256 << 20;
/// Unflushed rows of one group.
const STATE_WRITE_BUFFER: usize = 32 << 20;
/// Unflushed rows of all groups.
const STATE_WRITE_BUFFERS: usize = 256 << 20;
/// RocksDB's own text logs kept.
const INFO_LOGS: usize = 4;

/// The column family that every RocksDB database has. In `data/` it holds only the id of the store.
pub(crate) const DEFAULT_FAMILY: &str = "default";
/// The file without which a directory holds no database.
pub(crate) const CURRENT: &str = "CURRENT";

/// A database that keeps its data directory locked until the database is closed.
pub(crate) struct Db {
    inner: DB,
    alarm: DamageAlarm,
    _lock: Arc<DirLock>,
}

/// Whether a database must exist on disk, or may be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Made,
    MadeOrNot,
}

impl Db {
    pub(crate) fn open_log(
        path: &Path,
        lock: Arc<DirLock>,
        expect: Expect,
        alarm: DamageAlarm,
    ) -> Result<Self, StorageError> {
        let mut options = log_options();
        options.create_if_missing(expect == Expect::MadeOrNot);
        let inner = DB::open(&options, path).map_err(|error| cannot_open(path, error))?;
        Ok(Self { inner, alarm, _lock: lock })
    }

    pub(crate) fn open_state(
        path: &Path,
        lock: Arc<DirLock>,
        expect: Expect,
        alarm: DamageAlarm,
    ) -> Result<Self, StorageError> {
        let context = |error| cannot_open(path, error);
        let mut options = base_options();
        options.create_if_missing(expect == Expect::MadeOrNot);
        options.set_db_write_buffer_size(STATE_WRITE_BUFFERS);
        let families = if path.join(CURRENT).exists() {
            DB::list_cf(&options, path).map_err(context)?
        } else {
            vec![DEFAULT_FAMILY.to_owned()]
        };
        let inner =
            DB::open_cf_descriptors(&options, path, described(families)).map_err(context)?;
        Ok(Self { inner, alarm, _lock: lock })
    }

    #[cfg(test)]
    pub(crate) fn alarm(&self) -> &DamageAlarm {
        &self.alarm
    }

    /// Converts an error of RocksDB. Raises the alarm if it means damage.
    pub(crate) fn failed(&self, context: impl Into<String>, error: rocksdb::Error) -> StorageError {
        self.note(StorageError::of_database(context, error))
    }

    /// Returns the error. Raises the alarm if it means damage.
    pub(crate) fn note(&self, error: StorageError) -> StorageError {
        self.alarm.note(error)
    }
}

/// Opens a log store without changing anything on disk. Its write-ahead log is read from `wal`.
pub(crate) fn read_log(path: &Path, wal: &Path) -> Result<DB, StorageError> {
    let mut options = log_options();
    options.set_wal_dir(wal);
    let families = [ColumnFamilyDescriptor::new(DEFAULT_FAMILY, log_options())];
    DB::open_cf_descriptors_read_only(&options, path, families, false)
        .map_err(|error| cannot_open(path, error))
}

/// Opens a state store without changing anything on disk.
pub(crate) fn read_state(path: &Path) -> Result<DB, StorageError> {
    let options = base_options();
    let families = DB::list_cf(&options, path).map_err(|error| cannot_open(path, error))?;
    DB::open_cf_descriptors_read_only(&options, path, described(families), false)
        .map_err(|error| cannot_open(path, error))
}

impl Deref for Db {
    type Target = DB;

    fn deref(&self) -> &DB {
        &self.inner
    }
}

/// Options of a group's column family, and of the table files that a Raft snapshot is made of.
pub(crate) fn state_options() -> Options {
    let mut options = base_options();
    options.set_write_buffer_size(STATE_WRITE_BUFFER);
    options.set_compression_type(DBCompressionType::Lz4);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_bloom_filter(10.0, false);
    options.set_block_based_table_factory(&blocks);
    options
}

/// Options for writing rows: no write-ahead log, because the Raft log holds the commands.
pub(crate) fn without_wal() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

fn cannot_open(path: &Path, error: rocksdb::Error) -> StorageError {
    StorageError::of_database(format!("cannot open {}", path.display()), error)
}

fn described(families: Vec<String>) -> impl Iterator<Item = ColumnFamilyDescriptor> {
    families.into_iter().map(|name| ColumnFamilyDescriptor::new(name, state_options()))
}

fn log_options() -> Options {
    let mut options = base_options();
    options.set_write_buffer_size(LOG_WRITE_BUFFER);
    options.set_max_total_wal_size(LOG_WAL_MAX);
    // `log_store::wal` has already checked what RocksDB drops in this mode.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_compression_type(DBCompressionType::None);
    options
}

fn base_options() -> Options {
    let mut options = Options::default();
    options.set_keep_log_file_num(INFO_LOGS);
    options.set_max_background_jobs(2);
    options
}
