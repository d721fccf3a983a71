//! The Raft logs and votes of every group, in the RocksDB instance `raft/`.
//!
//! One thread writes for all groups: it takes what waits in one bounded queue, puts it into one
//! write batch, syncs once, and reports in order. An entry can be read as soon as `append` returns,
//! from a cache that holds everything not yet on disk.
//!
//! Keys: an entry is at `group u32 BE, index u64 BE`; what belongs to a group beside its log is at
//! `0 u32, group u32 BE, kind u8`; the store's id is at `0 u32, 0 u32`. There is no group 0.

mod cache;
mod group_log;
mod writer;

use std::{
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use mesh::{DirLock, GroupId};
use prost::Message;
use proto::quorate::v1 as pb;
use rocksdb::{Direction, IteratorMode, WriteOptions};
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::group_log::{GroupLog, StoredLog};
use self::writer::{Done, Job, Writer};
use crate::{db::Db, rows::StorageError};

/// Jobs waiting for the log-writer thread, of all groups. Senders wait beyond this.
const QUEUE: usize = 4096;

/// What is kept of a group beside its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Vote = 1,
    Committed = 2,
    Purged = 3,
    Record = 4,
}

/// The log store of a server.
#[derive(Clone)]
pub(crate) struct LogStore {
    pub(crate) db: Arc<Db>,
    queue: Arc<Queue>,
}

/// The way to the log-writer thread, which ends with the last handle.
struct Queue {
    /// Absent only while the thread is ended.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Queue {
    /// Waits for the thread, so that the database is closed by the last owner of the store and not
    /// behind the back of a process that exits.
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the log-writer thread panicked");
        }
    }
}

impl LogStore {
    /// Opens the store and starts its thread, which ends once every handle is gone; the receiver
    /// is told.
    pub(crate) fn open(
        path: &Path,
        lock: Arc<DirLock>,
    ) -> Result<(Self, oneshot::Receiver<()>), StorageError> {
        let db = Arc::new(Db::open_log(path, lock)?);
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let (ended_tx, ended) = oneshot::channel();
        let writer = Writer::new(db.clone(), waiting);
        let thread = thread::Builder::new()
            .name("raft-log".to_owned())
            .spawn(move || {
                let _ended = ended_tx;
                writer.run();
            })
            .map_err(|error| StorageError::with_source("cannot start a thread", error))?;
        let queue = Queue { jobs: Some(jobs), thread: Some(thread) };
        Ok((Self { db, queue: Arc::new(queue) }, ended))
    }

    /// The id that the store was made with, if it has one.
    pub(crate) fn store_id(&self) -> Result<Option<u64>, StorageError> {
        let stored = self.db.get(STORE_ID_KEY).map_err(read_error)?;
        stored
            .map(|bytes| {
                let bytes = <[u8; 8]>::try_from(bytes.as_slice())
                    .map_err(|_| StorageError::new("malformed store id"))?;
                Ok(u64::from_be_bytes(bytes))
            })
            .transpose()
    }

    /// Marks a fresh store with its id, durably. Only for a store without groups.
    pub(crate) fn set_store_id(&self, store_id: u64) -> Result<(), StorageError> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        self.db
            .put_opt(STORE_ID_KEY, store_id.to_be_bytes(), &synced)
            .map_err(|error| StorageError::with_source("write store id", error))
    }

    /// Every group that has a record here.
    pub(crate) fn records(&self) -> Result<Vec<(GroupId, pb::StoredGroup)>, StorageError> {
        let mut records = Vec::new();
        let start = 0u32.to_be_bytes();
        for item in self.db.iterator(IteratorMode::From(&start, Direction::Forward)) {
            let (key, value) = item.map_err(read_error)?;
            if key[..4] != start {
                break;
            }
            if let [_, _, _, _, a, b, c, d, kind] = *key
                && kind == Kind::Record as u8
            {
                let record = pb::StoredGroup::decode(value.as_ref())
                    .map_err(|error| StorageError::with_source("malformed group record", error))?;
                records.push((GroupId::from_be_bytes([a, b, c, d]), record));
            }
        }
        Ok(records)
    }

    pub(crate) fn record(&self, group: GroupId) -> Result<Option<pb::StoredGroup>, StorageError> {
        self.read(group, Kind::Record)
    }

    /// Writes a group's record through the queue; returns once it is on disk.
    pub(crate) async fn put_record(
        &self,
        group: GroupId,
        record: &pb::StoredGroup,
    ) -> Result<(), StorageError> {
        let (done, written) = oneshot::channel();
        self.submit(Job::meta(
            group,
            Kind::Record,
            record.encode_to_vec(),
            true,
            Done::Reply(done),
        ))
        .await?;
        written.await.map_err(|_| stopped())
    }

    /// Opens the log of one group.
    pub(crate) async fn group(&self, group: GroupId) -> Result<GroupLog, StorageError> {
        GroupLog::open(self.clone(), group).await
    }

    async fn submit(&self, job: Job) -> Result<(), StorageError> {
        let Some(jobs) = &self.queue.jobs else { return Err(stopped()) };
        jobs.send(job).await.map_err(|_| stopped())
    }

    fn read<M: Message + Default>(
        &self,
        group: GroupId,
        kind: Kind,
    ) -> Result<Option<M>, StorageError> {
        let stored = self.db.get(meta_key(group, kind)).map_err(read_error)?;
        stored
            .map(|bytes| {
                M::decode(bytes.as_slice()).map_err(|error| {
                    StorageError::with_source(format!("malformed {kind:?} of group {group}"), error)
                })
            })
            .transpose()
    }
}

const STORE_ID_KEY: [u8; 8] = [0; 8];

fn meta_key(group: GroupId, kind: Kind) -> [u8; 9] {
    let mut key = [0; 9];
    key[4..8].copy_from_slice(&group.to_be_bytes());
    key[8] = kind as u8;
    key
}

fn entry_key(group: GroupId, index: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&group.to_be_bytes());
    key[4..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The index in an entry's key, if the key is one of `group`.
fn index_of(group: GroupId, key: &[u8]) -> Option<u64> {
    let (prefix, index) = key.split_first_chunk::<4>()?;
    let index = <[u8; 8]>::try_from(index).ok()?;
    (*prefix == group.to_be_bytes()).then(|| u64::from_be_bytes(index))
}

fn read_error(error: rocksdb::Error) -> StorageError {
    StorageError::with_source("read the log", error)
}

fn stopped() -> StorageError {
    StorageError::new("the log writer has stopped")
}

#[cfg(test)]
mod tests;
