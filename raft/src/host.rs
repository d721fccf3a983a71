//! The host of all groups of a server: their stores, the running groups, and how they end.

mod comparing;
mod probing;
mod stored;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mesh::{GroupId, Identity, Mesh};
use openraft::{Config, errors::Fatal};
use proto::quorate::v1 as pb;
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    task,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::comparing::ProgressSource;
use crate::{
    check::{Checked, OpenError, check},
    completeness::Claim,
    damage::DamageAlarm,
    group::{Group, GroupFailure, Parts, Raft, Role},
    log_store::LogStore,
    network::NetworkFactory,
    quorum::Contacts,
    reach::{Complaints, FailedProbes},
    rows::{StateMachine, StorageError},
    state::{GroupState, StateStore},
    timing::Timing,
    types::TypeConfig,
};

/// Failures of groups that wait to be read. The first one ends the host.
const FAILURES: usize = 16;

/// The groups of a server and their stores. Clones are handles to the same ones.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    mesh: Mesh,
    timing: Timing,
    log: LogStore,
    state: StateStore,
    groups: Mutex<BTreeMap<GroupId, Group>>,
    /// Held while a group starts, so that none starts twice.
    starting: AsyncMutex<()>,
    /// Where this server finds what it remembers of groups, for servers that ask.
    progress_sources: Mutex<Vec<ProgressSource>>,
    /// Claims of other servers about groups that have not started yet.
    claims: Mutex<BTreeMap<GroupId, Vec<Claim>>>,
    /// By namespace: the entry after which an operator has accepted the loss.
    accepted_losses: Mutex<BTreeMap<String, u64>>,
    alarm: DamageAlarm,
    failures: mpsc::Sender<(GroupId, GroupFailure)>,
    supervised: Mutex<Option<Supervised>>,
    /// Leaders that this server cannot reach.
    failed_probes: FailedProbes,
    /// Cancelled at the stop: ends the streams that other servers have open here.
    stopping: CancellationToken,
}

/// What [`Host::run`] watches.
struct Supervised {
    failures: mpsc::Receiver<(GroupId, GroupFailure)>,
    writer: oneshot::Receiver<()>,
}

/// Why a group is not started.
#[derive(Debug, thiserror::Error)]
pub enum StartGroupError {
    #[error("this server belongs to no mesh")]
    NoMesh,
    #[error("the group is running")]
    Running,
    #[error("the group is {ours:?} in this data directory, not {wanted:?}")]
    OtherNamespace { ours: String, wanted: String },
    #[error("the stored state ends at {applied}, but the log before {purged} is gone")]
    StateBehind { applied: u64, purged: u64 },
    #[error("cannot read the group's state")]
    Storage(#[from] StorageError),
    #[error("openraft refused to start: {0}")]
    Refused(String),
    #[error("{0}")]
    Outdated(String),
}

/// Why a host ended before `shutdown`.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("group {group} failed: {reason}")]
    Group { group: GroupId, reason: String },
    #[error("group {group} has gone on to a later version: {reason}")]
    Outdated { group: GroupId, reason: String },
    #[error("the log-writer thread ended")]
    LogWriter,
    #[error("the disk of this server is damaged")]
    Damaged(#[source] StorageError),
    #[error("the host runs already")]
    Running,
}

impl HostError {
    /// Whether a safety rule refused this server, so that a person must look.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Outdated { .. } | Self::Damaged(_))
    }
}

impl Host {
    /// Looks at the stores in the server's data directory, opens them and starts the log-writer
    /// thread.
    pub fn open(mesh: Mesh, timing: Timing) -> Result<Self, OpenError> {
        let checked = check(&mesh.directory(), mesh.identity().store_id, mesh.store_made())?;
        Self::open_checked(mesh, timing, &checked)
    }

    /// Opens stores that [`check`] has accepted.
    pub fn open_checked(mesh: Mesh, timing: Timing, checked: &Checked) -> Result<Self, OpenError> {
        let store_id = mesh.identity().store_id;
        let dir = mesh.directory();
        checked.cut()?;
        let alarm = DamageAlarm::default();
        let (lock, expect) = (mesh.directory_lock(), checked.expect);
        let (log, writer) = LogStore::open(&dir, store_id, lock, expect, alarm.clone())?;
        let recorded: Vec<(GroupId, u64)> =
            log.records()?.into_iter().map(|(group, record)| (group, record.generation)).collect();
        let lock = mesh.directory_lock();
        let state = StateStore::open(&dir, store_id, lock, expect, &recorded, alarm.clone())?;
        // Last: from here on, a missing store is a lost store.
        mesh.set_store_made().map_err(OpenError::Identity)?;
        let (failures, failed) = mpsc::channel(FAILURES);
        let inner = Inner {
            mesh,
            timing,
            log,
            state,
            groups: Mutex::default(),
            starting: AsyncMutex::default(),
            progress_sources: Mutex::default(),
            claims: Mutex::default(),
            accepted_losses: Mutex::default(),
            alarm,
            failures,
            supervised: Mutex::new(Some(Supervised { failures: failed, writer })),
            failed_probes: FailedProbes::default(),
            stopping: CancellationToken::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The server's part in its mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.inner.mesh
    }

    /// Who this server is.
    pub fn identity(&self) -> Identity {
        self.inner.mesh.identity()
    }

    /// Starts a group on this server and returns once its rows are at the commit index that was
    /// known when it last stopped. A group without voters waits, until it is initialized or a
    /// leader adds this server.
    pub async fn start_group(
        &self,
        id: GroupId,
        namespace: &str,
        machine: impl StateMachine,
    ) -> Result<Group, StartGroupError> {
        let _starting = self.inner.starting.lock().await;
        let mesh_id = self.mesh().id().ok_or(StartGroupError::NoMesh)?;
        if self.group(id).is_some() {
            return Err(StartGroupError::Running);
        }
        self.raise_terms().await?;
        let record = self.record_of(id, namespace).await?;
        let last_index = self.stored_replica(id)?.unwrap_or_default().last_index;
        let log = self.inner.log.group(id).await?;
        let (store, log_store) = (self.inner.state.clone(), self.inner.log.clone());
        let commands = machine.commands();
        let machine: Box<dyn StateMachine> = Box::new(machine);
        let opening =
            task::spawn_blocking(move || GroupState::open(store, log_store, id, &record, machine));
        let (state, published) = opening
            .await
            .map_err(|error| StorageError::with_source("loading the state panicked", error))?
            .map_err(|error| match error.is_outdated() {
                true => StartGroupError::Outdated(error.context().to_owned()),
                false => StartGroupError::Storage(error),
            })?;
        let applied = state.applied().map_or(0, |applied| applied.index);
        if let Some(purged) = log.purged()
            && purged.index > applied
        {
            return Err(StartGroupError::StateBehind { applied, purged: purged.index });
        }
        let completeness = self.completeness_guard(id, namespace, log.clone(), last_index);
        let node_id = self.identity().node_id;
        let contacts = Contacts::new(&self.inner.timing);
        let complaints = Arc::new(Complaints::default());
        let network = NetworkFactory {
            complaints: complaints.clone(),
            mesh: self.mesh().clone(),
            mesh_id: mesh_id.clone(),
            group: id,
            contacts: contacts.clone(),
            store: self.inner.state.clone(),
            completeness: completeness.clone(),
        };
        let config = self.raft_config(id)?;
        let raft = Raft::new(node_id, config, network, log.clone(), state).await.map_err(
            |fatal: Fatal<TypeConfig>| match published.outdated.get() {
                Some(outdated) => StartGroupError::Outdated(outdated.clone()),
                None => StartGroupError::Refused(fatal.to_string()),
            },
        )?;
        let group = Group::start(Parts {
            id,
            namespace: namespace.to_owned(),
            node_id,
            mesh: self.mesh().clone(),
            mesh_id,
            complaints,
            raft,
            log,
            completeness,
            published,
            db: self.inner.state.db.clone(),
            contacts,
            commands,
            timing: self.inner.timing.clone(),
            failures: self.inner.failures.clone(),
        });
        self.lock_groups().insert(id, group.clone());
        Ok(group)
    }

    /// Every group that this data directory holds something of.
    pub fn groups_on_disk(&self) -> Result<Vec<GroupId>, StorageError> {
        Ok(self.inner.log.records()?.into_iter().map(|(group, _)| group).collect())
    }

    /// A group that runs on this server.
    pub fn group(&self, id: GroupId) -> Option<Group> {
        self.started_group(id).filter(|group| group.status().role != Role::Stopped)
    }

    /// Every group that was started on this server.
    pub fn groups(&self) -> Vec<Group> {
        self.lock_groups().values().cloned().collect()
    }

    /// Supervises the groups and the stores until `shutdown`; then stops every group and flushes
    /// its state.
    ///
    /// # Errors
    ///
    /// Returns at once if a group, the log-writer thread or the disk fails: the process must end
    /// too. The groups are not stopped then, so that nothing that depends on them ends first and
    /// hides the reason.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), HostError> {
        let supervised = lock(&self.inner.supervised).take();
        let Some(Supervised { mut failures, writer }) = supervised else {
            return Err(HostError::Running);
        };
        let failed = tokio::select! {
            () = shutdown.cancelled() => None,
            never = self.probe_leaders() => match never {},
            failure = failures.recv() => Some(match failure {
                Some((group, GroupFailure::Broken(reason))) => HostError::Group { group, reason },
                Some((group, GroupFailure::Outdated(reason))) => HostError::Outdated { group, reason },
                None => HostError::LogWriter,
            }),
            _ = writer => Some(HostError::LogWriter),
            found = self.inner.alarm.raised() => Some(HostError::Damaged(found)),
        };
        if let Some(failed) = failed {
            // Damage is the reason, even if another failure was noticed first.
            return Err(self.damage().map_or(failed, HostError::Damaged));
        }
        self.inner.stopping.cancel();
        for group in self.groups() {
            group.stop().await;
        }
        Ok(())
    }

    /// What was found to be wrong with the disk. The process must end.
    pub fn damage(&self) -> Option<StorageError> {
        self.inner.alarm.found()
    }

    /// Resolves when this host is being stopped.
    pub(crate) fn stopping(&self) -> WaitForCancellationFutureOwned {
        self.inner.stopping.clone().cancelled_owned()
    }

    pub(crate) fn failed_probes(&self) -> &FailedProbes {
        &self.inner.failed_probes
    }

    pub(crate) fn state_store(&self) -> StateStore {
        self.inner.state.clone()
    }

    /// A group that was started here, stopped or not.
    pub(crate) fn started_group(&self, id: GroupId) -> Option<Group> {
        self.lock_groups().get(&id).cloned()
    }

    /// The record of a group, made if this server holds nothing of it.
    async fn record_of(
        &self,
        id: GroupId,
        namespace: &str,
    ) -> Result<pb::StoredGroup, StartGroupError> {
        if let Some(record) = self.inner.log.record(id)? {
            if record.namespace != namespace {
                return Err(StartGroupError::OtherNamespace {
                    ours: record.namespace,
                    wanted: namespace.to_owned(),
                });
            }
            return Ok(record);
        }
        let store = self.inner.state.clone();
        // The column family first: a record that names a missing family would look like lost state.
        let generation =
            task::spawn_blocking(move || store.create_family(id)).await.map_err(|error| {
                StorageError::with_source("making a column family panicked", error)
            })??;
        let record = pb::StoredGroup { namespace: namespace.to_owned(), generation };
        self.inner.log.put_record(id, &record).await?;
        Ok(record)
    }

    fn raft_config(&self, id: GroupId) -> Result<Arc<Config>, StartGroupError> {
        let config = self.inner.timing.raft_config(id);
        let config = config.validate();
        config.map(Arc::new).map_err(|error| StartGroupError::Refused(error.to_string()))
    }

    fn lock_groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Group>> {
        lock(&self.inner.groups)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("mesh", &self.inner.mesh).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
