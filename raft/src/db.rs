//! The two RocksDB instances of a data directory and how each is tuned.
//!
//! `raft/` holds the log of every group, votes and group records; its write-ahead log is on and
//! synced. `data/` holds the state of the groups, one column family per group and generation; its
//! write-ahead log is off, since the Raft log replays whatever a flush had not reached.

use std::{ops::Deref, path::Path, sync::Arc};

use mesh::DirLock;
use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Options,
    WriteOptions,
};

use crate::rows::StorageError;

/// Memory for recent log entries not yet in a table file.
const LOG_WRITE_BUFFER: usize = 64 << 20;
/// Write-ahead log kept before RocksDB flushes to be rid of it.
const LOG_WAL_MAX: u64 = 256 << 20;
/// Log files kept for reuse, which saves a metadata sync per growth.
const LOG_RECYCLED_FILES: usize = 4;
/// Unflushed rows of one group.
const STATE_WRITE_BUFFER: usize = 32 << 20;
/// Unflushed rows of all groups.
const STATE_WRITE_BUFFERS: usize = 256 << 20;
/// RocksDB's own text logs kept.
const INFO_LOGS: usize = 4;

/// The family that RocksDB insists on; `data/` keeps nothing in it.
pub(crate) const DEFAULT_FAMILY: &str = "default";

/// A database that holds its data directory locked until it is really closed.
pub(crate) struct Db {
    inner: DB,
    _lock: Arc<DirLock>,
}

impl Db {
    pub(crate) fn open_log(path: &Path, lock: Arc<DirLock>) -> Result<Self, StorageError> {
        let mut options = base_options();
        options.set_write_buffer_size(LOG_WRITE_BUFFER);
        options.set_max_total_wal_size(LOG_WAL_MAX);
        options.set_recycle_log_file_num(LOG_RECYCLED_FILES);
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_compression_type(DBCompressionType::None);
        let inner = DB::open(&options, path).map_err(|error| {
            StorageError::with_source(format!("cannot open {}", path.display()), error)
        })?;
        Ok(Self { inner, _lock: lock })
    }

    pub(crate) fn open_state(path: &Path, lock: Arc<DirLock>) -> Result<Self, StorageError> {
        let context =
            |error| StorageError::with_source(format!("cannot open {}", path.display()), error);
        let mut options = base_options();
        options.create_missing_column_families(true);
        options.set_db_write_buffer_size(STATE_WRITE_BUFFERS);
        let families = if path.join("CURRENT").exists() {
            DB::list_cf(&options, path).map_err(context)?
        } else {
            vec![DEFAULT_FAMILY.to_owned()]
        };
        let families =
            families.into_iter().map(|name| ColumnFamilyDescriptor::new(name, state_options()));
        let inner = DB::open_cf_descriptors(&options, path, families).map_err(context)?;
        Ok(Self { inner, _lock: lock })
    }
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

/// How rows are written: the Raft log already holds the commands that made them.
pub(crate) fn without_wal() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

fn base_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_keep_log_file_num(INFO_LOGS);
    options.set_max_background_jobs(2);
    options
}
