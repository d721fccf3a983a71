//! The log and vote of one group: openraft's `RaftLogStorage`.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{Stream, stream};
use mesh::GroupId;
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use prost::Message;
use rocksdb::{Direction, IteratorMode, ReadOptions};
use tokio::{sync::oneshot, task};

use super::{
    Kind, LogStore,
    cache::{EntryCache, weight},
    entry_key, index_of, stopped,
    stored::{StoredLog, decode_entry},
    writer::{Completion, Job},
};
use crate::{
    codec,
    rows::StorageError,
    types::{Entry, LogId, TypeConfig, Vote},
};

/// Bytes of entries read at once for a peer or for the state machine. Below the message limit,
/// with room for one entry of the largest size.
const READ_BYTES: usize = 4 << 20;
/// Attempts of a read that races with truncations or purges, before it fails.
const READ_ATTEMPTS: usize = 16;

#[derive(Clone)]
pub(crate) struct GroupLog {
    shared: Arc<Shared>,
}

struct Shared {
    group: GroupId,
    store: LogStore,
    state: Mutex<InMemoryLog>,
    /// The number of the last append that is on disk.
    written: Arc<AtomicU64>,
}

/// The log as it will be on disk once the queue is empty. Readers must see this state at once.
struct InMemoryLog {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// The index of the first entry stored, if there is one.
    first: Option<u64>,
    cache: EntryCache,
    /// The number of the last append submitted.
    write: u64,
}

/// Which part of a read comes from disk and which from the cache.
struct ReadPlan {
    /// Indexes to read from disk, `from..to`.
    from: u64,
    to: u64,
    /// The entries that follow, from the cache.
    cached: Vec<Entry>,
}

impl GroupLog {
    /// Loads the log from disk. Jobs of an earlier instance that still wait in the queue are
    /// written first.
    pub(super) async fn open(store: LogStore, group: GroupId) -> Result<Self, StorageError> {
        store.flush_queue().await?;
        let (log, committed) = store.read_stored(|stored| {
            Ok((stored.log(group)?, stored.log_id(group, Kind::Committed)?))
        })?;
        let StoredLog { vote, purged, first, first_kept, last_stored } = log;
        if let (Some(first), Some(purged)) = (first, purged)
            && first <= purged.index
        {
            store.submit(Job::sweep(group, first, purged.index)).await?;
        }
        let state = InMemoryLog {
            vote,
            committed,
            purged,
            last: log.last(),
            first: last_stored.filter(|last| Some(*last) > purged).and(first_kept),
            cache: EntryCache::default(),
            write: 0,
        };
        let written = Arc::new(AtomicU64::new(0));
        Ok(Self { shared: Arc::new(Shared { group, store, state: Mutex::new(state), written }) })
    }

    /// Whether this group has never voted nor stored anything here.
    pub(crate) fn is_blank(&self) -> bool {
        let state = self.state();
        state.vote.is_none() && state.last.is_none()
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.state().purged
    }

    /// The id of the entry at an index; none if it was purged or cannot be read. A read error is
    /// reported by the next read.
    pub(crate) async fn log_id_at(&self, index: u64) -> Option<LogId> {
        let entries = self.read(index, index.saturating_add(1), READ_BYTES).await.ok()?;
        entries.first().map(|entry| entry.log_id).filter(|id| id.index == index)
    }

    fn state(&self) -> MutexGuard<'_, InMemoryLog> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn submit(&self, job: Job) -> io::Result<()> {
        self.shared.store.submit(job).await.map_err(io::Error::from)
    }

    /// Existing entries in `start..end`, up to `limit` bytes but at least one.
    async fn read(&self, start: u64, end: u64, limit: usize) -> io::Result<Vec<Entry>> {
        for _ in 0..READ_ATTEMPTS {
            let ReadPlan { from, to, cached } = self.plan_read(start, end, limit);
            if from == to {
                return Ok(cached);
            }
            let log = self.clone();
            let mut entries = task::spawn_blocking(move || log.read_disk(from, to, limit))
                .await
                .map_err(io::Error::other)??;
            let complete = entries.len() as u64 == to - from;
            let limited = entries.iter().map(weight).sum::<usize>() >= limit;
            if complete {
                entries.extend(cached);
                return Ok(entries);
            }
            if limited && !entries.is_empty() {
                return Ok(entries);
            }
            // The log was truncated or purged meanwhile: plan the read again.
            task::yield_now().await;
        }
        let Shared { group, store, .. } = &*self.shared;
        let hole = format!("the log of group {group} has a hole in {start}..{end}");
        Err(store.db.note(StorageError::damaged(hole)).into())
    }

    fn plan_read(&self, start: u64, end: u64, limit: usize) -> ReadPlan {
        let state = self.state();
        let end = end.min(state.last.map_or(0, |last| last.index + 1));
        let from = start.max(state.first.unwrap_or(end));
        if from >= end {
            return ReadPlan { from, to: from, cached: Vec::new() };
        }
        let cached_from = state.cache.first_index().map_or(end, |first| first.clamp(from, end));
        let mut cached = Vec::new();
        let mut bytes = 0;
        for index in cached_from..end {
            let Some(entry) = state.cache.get(index) else { break };
            if bytes >= limit {
                break;
            }
            bytes += weight(entry);
            cached.push(entry.clone());
        }
        ReadPlan { from, to: cached_from, cached }
    }

    /// Consecutive entries from `from` on, up to `to` exclusive or `limit` bytes.
    fn read_disk(&self, from: u64, to: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let Shared { group, store, .. } = &*self.shared;
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(entry_key(*group, to).to_vec());
        let start = entry_key(*group, from);
        let mode = IteratorMode::From(&start, Direction::Forward);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (expected, item) in (from..to).zip(store.db.iterator_opt(mode, options)) {
            let (key, value) =
                item.map_err(|error| store.db.failed("cannot read the log", error))?;
            if index_of(*group, &key) != Some(expected) {
                break;
            }
            let entry = decode_entry(value).map_err(|error| store.db.note(error))?;
            bytes += weight(&entry);
            entries.push(entry);
            if bytes >= limit {
                break;
            }
        }
        Ok(entries)
    }
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = half_open(&range);
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = half_open(&range);
        let log = self.clone();
        let chunks = stream::unfold(Some(start), move |next| {
            let log = log.clone();
            async move {
                let start = next?;
                let read = log.read(start, end, READ_BYTES).await;
                let next = match &read {
                    Ok(entries) => entries.last().map(|entry| entry.log_id.index + 1),
                    Err(_) => None,
                };
                let items = match read {
                    Ok(entries) if entries.is_empty() => return None,
                    Ok(entries) => entries.into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                };
                Some((stream::iter(items), next.filter(|next| *next < end)))
            }
        });
        futures::StreamExt::flatten(chunks)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.state().vote)
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.state();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        let bytes = codec::vote_to_proto(vote).encode_to_vec();
        let group = self.shared.group;
        self.submit(Job::meta(group, Kind::Vote, bytes, true, Completion::Reply(done))).await?;
        written.await.map_err(|_| stopped())?;
        self.state().vote = Some(*vote);
        Ok(())
    }

    /// Neither synced nor waited for: if the value is lost, the next start only knows of fewer
    /// committed entries.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        self.state().committed = Some(committed);
        let bytes = codec::log_id_to_proto(&committed).encode_to_vec();
        let group = self.shared.group;
        self.submit(Job::meta(group, Kind::Committed, bytes, false, Completion::Nobody)).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.state().committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut encoded = Vec::new();
        let write = {
            let mut state = self.state();
            state.write += 1;
            let write = state.write;
            for entry in entries {
                encoded.push((entry.log_id.index, codec::entry_to_proto(&entry).encode_to_vec()));
                state.last = Some(entry.log_id);
                state.first.get_or_insert(entry.log_id.index);
                state.cache.push(write, entry);
            }
            state.cache.evict(self.shared.written.load(Ordering::Acquire));
            write
        };
        let written = self.shared.written.clone();
        let done = Completion::Flushed { written, write, flushed };
        self.submit(Job::append(self.shared.group, encoded, done)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        let to = {
            let mut state = self.state();
            let Some(old) = state.last.filter(|old| old.index >= from) else { return Ok(()) };
            state.last = last.max(state.purged);
            state.first = state.first.filter(|first| *first < from);
            state.cache.truncate_from(from);
            old.index
        };
        self.submit(Job::truncate(self.shared.group, from, to)).await
    }

    async fn purge(&mut self, purged: LogId) -> io::Result<()> {
        let swept = {
            let mut state = self.state();
            if state.purged >= Some(purged) {
                return Ok(());
            }
            let first = state.first.filter(|first| *first <= purged.index);
            let last = state.last.map_or(0, |last| last.index);
            if first.is_some() {
                state.first = (last > purged.index).then_some(purged.index + 1);
            }
            state.purged = Some(purged);
            state.last = state.last.max(Some(purged));
            state.cache.purge(purged.index);
            first.map(|first| (first, last.min(purged.index)))
        };
        let bytes = codec::log_id_to_proto(&purged).encode_to_vec();
        self.submit(Job::purge(self.shared.group, bytes, swept)).await
    }
}

/// A range of indexes as `start..end`.
fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}
