//! The log-writer thread: one queue, one batch, one synced write, then the completions in order.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh::GroupId;
use openraft::storage::IOFlushed;
use rocksdb::{ErrorKind, WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot};

use super::{Kind, entry_key, meta_key, synced::SyncedNote};
use crate::{db::Db, types::TypeConfig};

/// Bytes after which a batch is written even if more waits.
const BATCH_BYTES: usize = 8 << 20;
/// Purged entries deleted between two batches, so that a purge never holds up an append for long.
const SWEEP_STEP: u64 = 1024;

/// One write of one group. Jobs take effect in the order of the queue.
pub(super) struct Job {
    writes: Vec<Write>,
    synced: bool,
    done: Completion,
}

enum Write {
    Put(Vec<u8>, Vec<u8>),
    /// Entries that a conflict removed, `from..=to`.
    Truncate(GroupId, u64, u64),
    /// Purged entries, `from..=to`. Readers no longer see them; they are deleted when there is
    /// time.
    Sweep(GroupId, u64, u64),
}

/// What to do once a job is on disk.
pub(super) enum Completion {
    Nobody,
    /// Stores the number of the write, then tells openraft.
    Flushed {
        written: Arc<AtomicU64>,
        write: u64,
        flushed: IOFlushed<TypeConfig>,
    },
    Reply(oneshot::Sender<()>),
}

impl Job {
    pub(super) fn append(group: GroupId, entries: Vec<(u64, Vec<u8>)>, done: Completion) -> Self {
        let writes = entries
            .into_iter()
            .map(|(index, bytes)| Write::Put(entry_key(group, index).to_vec(), bytes))
            .collect();
        Self { writes, synced: true, done }
    }

    pub(super) fn meta(
        group: GroupId,
        kind: Kind,
        value: Vec<u8>,
        synced: bool,
        done: Completion,
    ) -> Self {
        let writes = vec![Write::Put(meta_key(group, kind).to_vec(), value)];
        Self { writes, synced, done }
    }

    /// Writes nothing. Completes once every job before it is written.
    pub(super) fn barrier(done: Completion) -> Self {
        Self { writes: Vec::new(), synced: false, done }
    }

    pub(super) fn truncate(group: GroupId, from: u64, to: u64) -> Self {
        // Needs no sync of its own: every write that depends on it comes later in the same
        // write-ahead log.
        let writes = vec![Write::Truncate(group, from, to)];
        Self { writes, synced: false, done: Completion::Nobody }
    }

    pub(super) fn purge(group: GroupId, purged: Vec<u8>, swept: Option<(u64, u64)>) -> Self {
        let mut writes = vec![Write::Put(meta_key(group, Kind::Purged).to_vec(), purged)];
        writes.extend(swept.map(|(from, to)| Write::Sweep(group, from, to)));
        // Sweeping deletes whole files at once. The purge mark must be on disk before that, or a
        // power cut leaves a log whose first entries are missing.
        Self { writes, synced: swept.is_some(), done: Completion::Nobody }
    }

    pub(super) fn sweep(group: GroupId, from: u64, to: u64) -> Self {
        Self {
            writes: vec![Write::Sweep(group, from, to)],
            synced: false,
            done: Completion::Nobody,
        }
    }
}

pub(super) struct Writer {
    db: Arc<Db>,
    queue: mpsc::Receiver<Job>,
    note: SyncedNote,
    sweeps: VecDeque<Sweep>,
}

/// The log cannot be written any more. The reason was reported.
struct Stopped;

/// Purged entries of a group still to be deleted, `next..=to`.
struct Sweep {
    group: GroupId,
    next: u64,
    to: u64,
    files_dropped: bool,
}

impl Writer {
    pub(super) fn new(db: Arc<Db>, queue: mpsc::Receiver<Job>, note: SyncedNote) -> Self {
        Self { db, queue, note, sweeps: VecDeque::new() }
    }

    /// Writes until every handle is gone. If writing fails, the jobs that wait are never completed,
    /// and the host ends.
    pub(super) fn run(mut self) {
        // The damage alarm has reported the reason.
        let _ = self.write_all();
    }

    fn write_all(&mut self) -> Result<(), Stopped> {
        loop {
            let first = if self.sweeps.is_empty() {
                match self.queue.blocking_recv() {
                    Some(job) => Some(job),
                    None => return Ok(()),
                }
            } else {
                match self.queue.try_recv() {
                    Ok(job) => Some(job),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    // The next start finds what is left to sweep.
                    Err(mpsc::error::TryRecvError::Disconnected) => return Ok(()),
                }
            };
            if let Some(first) = first {
                self.write(first)?;
            }
            self.sweep()?;
        }
    }

    fn write(&mut self, first: Job) -> Result<(), Stopped> {
        let mut batch = WriteBatch::default();
        let mut synced = false;
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            synced |= job.synced;
            answers.push(job.done);
            for write in job.writes {
                self.stage(write, &mut batch);
            }
            next =
                if batch.size_in_bytes() < BATCH_BYTES { self.queue.try_recv().ok() } else { None };
        }
        self.commit(batch, synced)?;
        for done in answers {
            match done {
                Completion::Nobody => {}
                Completion::Flushed { written, write, flushed } => {
                    written.store(write, Ordering::Release);
                    flushed.io_completed(Ok(()));
                }
                Completion::Reply(reply) => {
                    let _ = reply.send(());
                }
            }
        }
        Ok(())
    }

    fn stage(&mut self, write: Write, batch: &mut WriteBatch) {
        match write {
            Write::Put(key, value) => batch.put(key, value),
            Write::Truncate(group, from, to) => {
                for index in from..=to {
                    batch.delete(entry_key(group, index));
                }
            }
            Write::Sweep(group, from, to) => {
                if from <= to {
                    self.sweeps.push_back(Sweep { group, next: from, to, files_dropped: false });
                }
            }
        }
    }

    /// Deletes a few purged entries. Whole table files are deleted first. No range tombstone is
    /// used, since it would slow every later read of the log.
    fn sweep(&mut self) -> Result<(), Stopped> {
        let Some(mut sweep) = self.sweeps.pop_front() else { return Ok(()) };
        let Sweep { group, next, to, files_dropped } = sweep;
        if !files_dropped
            && let Err(error) =
                self.db.delete_file_in_range(entry_key(group, next), entry_key(group, to))
        {
            tracing::warn!(%error, group, "cannot drop log files, entries are deleted one by one");
        }
        let end = to.min(next.saturating_add(SWEEP_STEP - 1));
        let mut batch = WriteBatch::default();
        for index in next..=end {
            batch.delete(entry_key(group, index));
        }
        self.commit(batch, false)?;
        if end < to {
            sweep.next = end + 1;
            sweep.files_dropped = true;
            self.sweeps.push_back(sweep);
        }
        Ok(())
    }

    fn commit(&mut self, batch: WriteBatch, synced: bool) -> Result<(), Stopped> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        if let Err(error) = self.db.write_opt(batch, &options) {
            // RocksDB has found damage, for instance in a table file, and accepts no more writes.
            if error.kind() == ErrorKind::Corruption {
                self.db.failed("cannot write the log", error);
                return Err(Stopped);
            }
            abort(&error);
        }
        if synced {
            self.note_synced();
        }
        Ok(())
    }

    /// Only this thread writes, so the latest write is its own.
    fn note_synced(&mut self) {
        if let Err(error) = self.note.write(self.db.latest_sequence_number()) {
            // An old note names an earlier write than it could. That is safe.
            tracing::warn!(%error, "cannot note how far the log is synced");
        }
    }
}

/// Ends the process. After a failed sync it is unknown what is on disk, and a second sync may
/// wrongly succeed. Only a restart reads what is really there.
fn abort(error: &rocksdb::Error) -> ! {
    tracing::error!(%error, "writing the raft log failed; aborting so that nothing unwritten is acknowledged");
    std::process::abort()
}
