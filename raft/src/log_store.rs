//! The Raft logs and votes of every group, in the RocksDB instance `raft/`.
//!
//! One thread writes for all groups: it takes the waiting jobs from one bounded queue, puts them
//! into one write batch, syncs once, and completes them in order. An entry can be read as soon as
//! `append` returns, from a cache that holds every entry that is not yet on disk.
//!
//! Keys: an entry is at `group u32 BE, index u64 BE`; the other values of a group are at `0 u32,
//! group u32 BE, kind u8`; the store's id is at `0 u32, 0 u32`. There is no group 0.

mod cache;
mod group_log;
mod stored;
pub(crate) mod synced;
pub(crate) mod wal;
mod writer;

use std::{
    io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use mesh::{DirLock, GroupId};
use prost::Message;
use proto::quorate::v1 as pb;
use rocksdb::WriteOptions;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::{
    group_log::GroupLog,
    stored::{Stored, StoredLog},
};
use self::{
    synced::SyncedNote,
    writer::{Completion, Job, Writer},
};
use crate::{
    damage::DamageAlarm,
    db::{Db, Expect},
    rows::StorageError,
};

/// The store's place in the data directory.
pub(crate) const FOLDER: &str = "raft";
/// Jobs waiting for the log-writer thread, of all groups. Senders wait beyond this.
const QUEUE: usize = 4096;

/// The values that are kept of a group beside its log.
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

/// The queue of the log-writer thread. The thread ends with the last handle.
struct Queue {
    /// None only while the thread is being ended.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Queue {
    /// Waits for the thread, so that the database is closed when the last owner of the store is
    /// gone, and not later while the process exits.
    fn drop(&mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else { return };
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the log-writer thread panicked");
        }
    }
}

impl LogStore {
    /// Opens `raft/` in a data directory, or makes it and marks it with the store's id. Starts the
    /// log-writer thread, which ends once every handle is gone; the receiver resolves then.
    pub(crate) fn open(
        dir: &Path,
        store_id: u64,
        lock: Arc<DirLock>,
        expect: Expect,
        alarm: DamageAlarm,
    ) -> Result<(Self, oneshot::Receiver<()>), StorageError> {
        let db = Arc::new(Db::open_log(&dir.join(FOLDER), lock, expect, alarm)?);
        match Stored(&db).store_id()? {
            Some(found) if found != store_id => {
                return Err(StorageError::new(format!(
                    "the log store is {found:016x}, not {store_id:016x}"
                )));
            }
            Some(_) => {}
            None => mark(&db, store_id)?,
        }
        let note_error = |error: io::Error| {
            StorageError::with_source(format!("cannot write {}", synced::FILE), error)
        };
        let note =
            SyncedNote::open(dir, store_id, db.latest_sequence_number()).map_err(note_error)?;
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let (ended_tx, ended) = oneshot::channel();
        let writer = Writer::new(db.clone(), waiting, note);
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

    /// Every group that has a record here.
    pub(crate) fn records(&self) -> Result<Vec<(GroupId, pb::StoredGroup)>, StorageError> {
        self.read_stored(|stored| stored.records())
    }

    /// The log of a group that does not run.
    pub(crate) fn stored(&self, group: GroupId) -> Result<StoredLog, StorageError> {
        self.read_stored(|stored| stored.log(group))
    }

    pub(crate) fn record(&self, group: GroupId) -> Result<Option<pb::StoredGroup>, StorageError> {
        self.read_stored(|stored| stored.read(group, Kind::Record))
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
            Completion::Reply(done),
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

    /// Waits until everything submitted so far is written.
    async fn flush_queue(&self) -> Result<(), StorageError> {
        let (done, written) = oneshot::channel();
        self.submit(Job::barrier(Completion::Reply(done))).await?;
        written.await.map_err(|_| stopped())
    }

    fn read_stored<R>(
        &self,
        read: impl FnOnce(&Stored<'_>) -> Result<R, StorageError>,
    ) -> Result<R, StorageError> {
        read(&Stored(&self.db)).map_err(|error| self.db.note(error))
    }
}

/// Marks a fresh store with its id, durably.
fn mark(db: &Db, store_id: u64) -> Result<(), StorageError> {
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    db.put_opt(STORE_ID_KEY, store_id.to_be_bytes(), &synced)
        .map_err(|error| db.failed("cannot write the store id", error))
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

fn stopped() -> StorageError {
    StorageError::new("the log writer has stopped")
}

#[cfg(test)]
mod tests;
