//! openraft's state machine: applies committed entries, makes and installs Raft snapshots.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use futures::{Stream, StreamExt};
use mesh::GroupId;
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    alias::SnapshotOf,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use prost::Message;
use proto::quorate::v1 as pb;
use tokio::task;

use super::{
    Published, SnapshotData, SnapshotFile, Staged, StateStore,
    batch::BatchRows,
    family_name,
    system_rows::{APPLIED, LEVEL, MEMBERSHIP, read_applied, read_level, read_membership},
};
use crate::{
    codec,
    db::without_wal,
    level::{self, Commands, FIRST},
    log_store::LogStore,
    read_view::{ReadView, system_key},
    rows::{EntryMeta, StateMachine, StorageError},
    types::{Command, Entry, LogId, Reply, SnapshotMeta, StoredMembership, TypeConfig},
};

/// Entries applied in one batch at most.
const BATCH_ENTRIES: usize = 1024;

/// The state of one group as openraft drives it.
pub(crate) struct GroupState {
    /// None only while a blocking call uses it, or after such a call panicked.
    core: Option<Box<Core>>,
    log: LogStore,
    namespace: String,
}

/// The part that blocking calls work on.
struct Core {
    store: StateStore,
    group: GroupId,
    generation: u64,
    machine: Exclusive,
    commands: Commands,
    /// The group's level.
    level: u32,
    published: Arc<Published>,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Whether a Raft snapshot was ever reported to openraft.
    reported: bool,
    /// Set by tests that apply entries with gaps between their indexes.
    #[cfg(test)]
    gaps_allowed: bool,
}

/// A machine that is used by one call at a time. openraft requires the state to be `Sync`, which a
/// machine need not be.
struct Exclusive(Mutex<Box<dyn StateMachine>>);

/// Flushes and reports a Raft snapshot while the state machine continues.
pub(crate) struct SnapshotBuilder {
    /// None once the snapshot was built.
    pending: Option<Result<PendingSnapshot, StorageError>>,
}

struct PendingSnapshot {
    store: StateStore,
    group: GroupId,
    generation: u64,
    view: ReadView,
    meta: SnapshotMeta,
}

impl GroupState {
    /// Loads the state of a group's generation. Blocks.
    pub(crate) fn open(
        store: StateStore,
        log: LogStore,
        group: GroupId,
        record: &pb::StoredGroup,
        machine: Box<dyn StateMachine>,
    ) -> Result<(Self, Arc<Published>), StorageError> {
        let generation = record.generation;
        let published = Arc::new(Published::new(family_name(group, generation)));
        let mut core = Core {
            store,
            group,
            generation,
            commands: machine.commands(),
            machine: Exclusive(Mutex::new(machine)),
            level: FIRST,
            published: published.clone(),
            applied: None,
            membership: StoredMembership::default(),
            reported: false,
            #[cfg(test)]
            gaps_allowed: false,
        };
        core.load()?;
        // What is found at the start was flushed before.
        core.reported = core.applied.is_some();
        let state = Self { core: Some(Box::new(core)), log, namespace: record.namespace.clone() };
        Ok((state, published))
    }

    #[cfg(test)]
    pub(crate) fn allow_gaps(&mut self) {
        self.core.as_mut().expect("idle").gaps_allowed = true;
    }

    #[cfg(test)]
    pub(crate) fn forbid_gaps(&mut self) {
        self.core.as_mut().expect("idle").gaps_allowed = false;
    }

    pub(crate) fn applied(&self) -> Option<LogId> {
        self.core.as_ref().and_then(|core| core.applied)
    }

    /// Runs a blocking call on a thread for blocking work.
    async fn block<R: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut Core) -> Result<R, StorageError> + Send + 'static,
    ) -> io::Result<R> {
        let mut core =
            self.core.take().ok_or_else(|| StorageError::new("the state machine panicked"))?;
        let (core, result) = task::spawn_blocking(move || {
            let result = call(&mut core);
            (core, result)
        })
        .await
        .map_err(|error| StorageError::with_source("the state machine panicked", error))?;
        let result = result.map_err(|error| core.store.db.note(error));
        self.core = Some(core);
        Ok(result?)
    }

    fn core(&self) -> io::Result<&Core> {
        let panicked = || io::Error::from(StorageError::new("the state machine panicked"));
        self.core.as_deref().ok_or_else(panicked)
    }
}

impl Exclusive {
    fn get(&mut self) -> &mut dyn StateMachine {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut()
    }
}

impl RaftStateMachine<TypeConfig> for GroupState {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let core = self.core()?;
        Ok((core.applied, core.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(BATCH_ENTRIES);
        while let Some(batch) = batches.next().await {
            let batch = batch.into_iter().collect::<io::Result<Vec<_>>>()?;
            let (entries, responders): (Vec<Entry>, Vec<Option<ApplyResponder<TypeConfig>>>) =
                batch.into_iter().unzip();
            let replies = self.block(move |core| core.apply(&entries)).await?;
            for (responder, reply) in responders.into_iter().zip(replies) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let panicked = || StorageError::new("the state machine panicked");
        SnapshotBuilder {
            pending: Some(
                self.core.as_deref_mut().ok_or_else(panicked).and_then(Core::begin_snapshot),
            ),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<()> {
        let core = self.core()?;
        let (store, group) = (core.store.clone(), core.group);
        let wanted = meta.clone();
        let staged: Staged = match data {
            SnapshotData::Staged(staged) => staged,
            SnapshotData::View(view) => task::spawn_blocking(move || {
                let file = SnapshotFile::export(&store, &view)?;
                Staged::ingest(&store, group, &file, &wanted)
            })
            .await
            .map_err(io::Error::other)??,
        };
        // The generation is kept from here on: this future may be dropped after the record names
        // it.
        let generation = staged.keep();
        let record = pb::StoredGroup { namespace: self.namespace.clone(), generation };
        self.log.put_record(group, &record).await?;
        let meta = meta.clone();
        self.block(move |core| core.switch(generation, meta)).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
        if !self.core()?.reported {
            return Ok(None);
        }
        self.block(Core::current_snapshot).await.map(Some)
    }
}

impl Core {
    /// Reads the rows of this crate, then lets the machine load its own.
    fn load(&mut self) -> Result<(), StorageError> {
        let view = self.published.view(&self.store.db)?;
        self.applied = read_applied(&view)?;
        self.membership = read_membership(&view)?;
        self.level = read_level(&view)?;
        self.check_level("the group's state", self.level)?;
        self.machine.get().load(&view)?;
        self.publish(&[], &[]);
        Ok(())
    }

    fn apply(&mut self, entries: &[Entry]) -> Result<Vec<Reply>, StorageError> {
        self.check_order(entries)?;
        let store = self.store.clone();
        let family = family_name(self.group, self.generation);
        let family = store
            .db
            .cf_handle(&family)
            .ok_or_else(|| StorageError::new(format!("column family {family} is gone")))?;
        let mut rows = BatchRows::new(&store.db, family.clone());
        let mut replies = Vec::with_capacity(entries.len());
        let mut bytes = 0;
        for entry in entries {
            let meta = EntryMeta { index: entry.log_id.index, term: entry.log_id.leader_id.term };
            replies.push(match &entry.payload {
                EntryPayload::Blank => Reply::default(),
                EntryPayload::Normal(Command::Machine(command)) => {
                    bytes += command.bytes.len() as u64;
                    self.check_level("a command of the group", command.level)?;
                    let applied = self.machine.get().apply(meta, &command.bytes, &mut rows);
                    Reply(applied.map_err(|error| self.note_outdated(error))?)
                }
                EntryPayload::Normal(Command::RaiseLevel(level)) => {
                    self.check_level("the group", *level)?;
                    self.level = self.level.max(*level);
                    Reply::default()
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Reply::default()
                }
            });
        }
        let Some(last) = entries.last() else { return Ok(replies) };
        let mut batch = rows.into_batch();
        let applied = codec::log_id_to_proto(&last.log_id).encode_to_vec();
        batch.put_cf(&family, system_key(APPLIED), applied);
        let membership = codec::stored_membership_to_proto(&self.membership).encode_to_vec();
        batch.put_cf(&family, system_key(MEMBERSHIP), membership);
        if self.level > FIRST {
            batch.put_cf(&family, system_key(LEVEL), self.level.to_be_bytes());
        }
        store
            .db
            .write_opt(batch, &without_wal())
            .map_err(|error| store.db.failed("cannot write applied rows", error))?;
        self.applied = Some(last.log_id);
        self.published.applied_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.publish(entries, &replies);
        Ok(replies)
    }

    /// Checks that no entry is skipped or repeated. Otherwise this replica would silently differ
    /// from the others.
    fn check_order(&self, entries: &[Entry]) -> Result<(), StorageError> {
        #[cfg(test)]
        if self.gaps_allowed {
            return Ok(());
        }
        let mut applied = self.applied;
        for entry in entries {
            let expected = applied.map_or(0, |applied| applied.index + 1);
            if entry.log_id.index != expected || Some(entry.log_id) <= applied {
                let (group, found) = (self.group, entry.log_id);
                let applied = applied.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
                return Err(StorageError::damaged(format!(
                    "entry {found} of group {group} was to be applied after {applied}"
                )));
            }
            applied = Some(entry.log_id);
        }
        Ok(())
    }

    /// Fails if this version does not know the level. A replica that skipped a command would differ
    /// from the others.
    fn check_level(&self, what: &str, needs: u32) -> Result<(), StorageError> {
        let knows = self.commands.level;
        if needs <= knows {
            return Ok(());
        }
        Err(self.note_outdated(StorageError::outdated(level::outdated(what, needs, knows))))
    }

    fn note_outdated(&self, error: StorageError) -> StorageError {
        if error.is_outdated() {
            // Only the first error is kept: it ends the group.
            let _ = self.published.outdated.set(error.context().to_owned());
        }
        error
    }

    /// Publishes the applied index. Called after the rows are written; the replies are delivered
    /// before the index, so a caller that sees its index finds its reply.
    fn publish(&mut self, entries: &[Entry], replies: &[Reply]) {
        self.published.level.store(self.level, Ordering::Relaxed);
        if let Some(applied) = self.applied {
            self.machine.get().publish(applied.index);
            self.published.pending_replies.deliver(entries, replies);
            self.published.applied.send_replace(applied.index);
        }
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }

    fn begin_snapshot(&mut self) -> Result<PendingSnapshot, StorageError> {
        self.reported = true;
        Ok(PendingSnapshot {
            store: self.store.clone(),
            group: self.group,
            generation: self.generation,
            view: self.published.view(&self.store.db)?,
            meta: self.meta(),
        })
    }

    /// A view of the current state, flushed so that its log id may be reported.
    fn current_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, StorageError> {
        let view = self.published.view(&self.store.db)?;
        let meta = self.meta();
        flush(&self.store, self.group, self.generation)?;
        self.reported = true;
        Ok(SnapshotOf::<TypeConfig, _> { meta, snapshot: SnapshotData::View(view) })
    }

    /// Makes an ingested generation the state. The group's record already names it.
    fn switch(&mut self, generation: u64, meta: SnapshotMeta) -> Result<(), StorageError> {
        let old = std::mem::replace(&mut self.generation, generation);
        self.published.switch(family_name(self.group, self.generation));
        self.store.drop_family(self.group, old);
        self.load()?;
        if self.meta() != meta {
            return Err(StorageError::new("an installed Raft snapshot differs from its header"));
        }
        self.reported = true;
        Ok(())
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<TypeConfig, SnapshotData>> {
        let pending =
            self.pending.take().unwrap_or_else(|| Err(StorageError::new("built twice")))?;
        let PendingSnapshot { store, group, generation, view, meta } = pending;
        task::spawn_blocking(move || flush(&store, group, generation))
            .await
            .map_err(io::Error::other)??;
        Ok(SnapshotOf::<TypeConfig, _> { meta, snapshot: SnapshotData::View(view) })
    }
}

/// Flushes a generation to disk. One that is gone was replaced by a newer one that is on disk.
pub(super) fn flush(
    store: &StateStore,
    group: GroupId,
    generation: u64,
) -> Result<(), StorageError> {
    let Some(family) = store.db.cf_handle(&family_name(group, generation)) else { return Ok(()) };
    store.db.flush_cf(&family).map_err(|error| store.db.failed("cannot flush", error))
}
