//! One replicated group on this server: writing, reading, membership and status.

mod admission;
mod describe;
mod hand_over;
mod membership;
mod read;
mod status;
mod tasks;
mod write;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use mesh::{GroupId, Member, Mesh, MeshId, NodeId};
use openraft::{
    async_runtime::watch::WatchReceiver as _,
    errors::{InitializeError as Refused, RaftError},
};
use tokio::{
    sync::{mpsc, watch},
    task::{self, JoinSet},
    time::{self, Instant},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub(crate) use self::write::Proposed;
use self::{
    admission::Admission,
    read::ReadRequest,
    tasks::{MetricsWatch, TaskGuard},
};
pub use self::{
    hand_over::CAUGHT_UP_LAG,
    membership::ChangeError,
    read::ReadError,
    status::{MemberStatus, Role, Status},
    write::{Applied, WriteError},
};
use crate::{
    completeness_guard::CompletenessGuard,
    db::Db,
    level::Commands,
    log_store::GroupLog,
    network::MemberLink,
    quorum::{Contacts, GRACE, NoQuorum, Quorum},
    reach::Complaints,
    read_view::ReadView,
    rows::StorageError,
    state::{GroupState, Published},
    timing::Timing,
    types::{LogId, Metrics, Node, TypeConfig},
};

/// openraft's handle of a group.
pub(crate) type Raft = openraft::Raft<TypeConfig, GroupState>;

/// Pause before the leader is looked up again when there was none.
const LEADER_POLL: Duration = Duration::from_millis(20);

/// A group that this server hosts. Clones are handles to the same one.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    id: GroupId,
    namespace: String,
    node_id: NodeId,
    mesh: Mesh,
    mesh_id: MeshId,
    raft: Raft,
    log: GroupLog,
    completeness: CompletenessGuard,
    published: Arc<Published>,
    db: Arc<Db>,
    contacts: Contacts,
    commands: Commands,
    admission: Admission,
    reads: mpsc::Sender<ReadRequest>,
    status: watch::Receiver<Status>,
    tasks: Mutex<JoinSet<()>>,
    /// Cancelled at the stop: ends the streams that other servers have open here.
    stopping: CancellationToken,
}

/// The arguments of [`Group::start`].
pub(crate) struct Parts {
    pub(crate) id: GroupId,
    pub(crate) namespace: String,
    pub(crate) node_id: NodeId,
    pub(crate) mesh: Mesh,
    pub(crate) mesh_id: MeshId,
    /// Members that cannot reach this server.
    pub(crate) complaints: Arc<Complaints>,
    pub(crate) raft: Raft,
    pub(crate) log: GroupLog,
    pub(crate) completeness: CompletenessGuard,
    pub(crate) published: Arc<Published>,
    pub(crate) db: Arc<Db>,
    pub(crate) contacts: Contacts,
    pub(crate) commands: Commands,
    pub(crate) timing: Timing,
    /// Where a group that failed is reported.
    pub(crate) failures: mpsc::Sender<(GroupId, GroupFailure)>,
}

/// Why a group failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupFailure {
    Broken(String),
    /// This version is too old for the level of the group.
    Outdated(String),
}

/// A group could not be given its first voters.
#[derive(Debug, thiserror::Error)]
pub enum InitializeError {
    #[error("this server is not among the first voters")]
    NotAVoter,
    #[error("the group has stopped")]
    Stopped,
}

impl Group {
    pub(crate) fn start(parts: Parts) -> Self {
        let Parts { id, namespace, node_id, mesh, mesh_id, raft, log, published, db, .. } = parts;
        let Parts { completeness, contacts, commands, .. } = parts;
        completeness.begin(raft.metrics());
        let (reads, read_queue) = mpsc::channel(read::QUEUE);
        let (status_tx, status) =
            watch::channel(with_metrics(&raft, |it| status::of(it, &contacts)));
        let stopping = CancellationToken::new();
        let alarm = |task| TaskGuard {
            group: id,
            task,
            stopping: stopping.clone(),
            failures: parts.failures.clone(),
        };
        let mut tasks = JoinSet::new();
        let telling = tasks::watch_metrics(MetricsWatch {
            id,
            raft: raft.clone(),
            contacts: contacts.clone(),
            published: published.clone(),
            status: status_tx,
            failures: parts.failures.clone(),
        });
        tasks.spawn(alarm("tells the status").guard(telling));
        let bounding =
            tasks::report_snapshots(id, raft.clone(), published.clone(), parts.timing.clone());
        tasks.spawn(alarm("bounds the log").guard(bounding));
        let raising = tasks::LevelRaiser {
            id,
            node_id,
            raft: raft.clone(),
            contacts: contacts.clone(),
            published: published.clone(),
            known: commands.level,
        };
        tasks.spawn(alarm("raises the level").guard(raising.run()));
        let complaints = parts.complaints.clone();
        let handing = tasks::hand_over_when_unreachable(
            id,
            node_id,
            raft.clone(),
            contacts.clone(),
            complaints,
        );
        tasks.spawn(alarm("hands over when nobody reaches this server").guard(handing));
        let asking = alarm("asks the leader for reads");
        let inner = Inner {
            id,
            namespace,
            node_id,
            mesh,
            mesh_id,
            raft,
            log,
            completeness,
            published,
            db,
            contacts,
            commands,
            admission: Admission::default(),
            reads,
            status,
            tasks: Mutex::new(tasks),
            stopping,
        };
        let group = Self { inner: Arc::new(inner) };
        // The task holds only a weak handle, so that it ends with the last handle to the group.
        let reads = read::ReadIndexTask::of(&group).run(read_queue);
        group.lock_tasks().spawn(asking.guard(reads));
        group
    }

    pub fn id(&self) -> GroupId {
        self.inner.id
    }

    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// Whether this server has never voted in the group and holds nothing of it: it may become a
    /// first voter.
    pub fn is_blank(&self) -> bool {
        self.inner.log.is_blank() && *self.inner.published.applied.borrow() == 0
    }

    /// Gives the group its first voters. Every first voter must be given the same set. If the group
    /// already has voters, nothing changes.
    pub async fn initialize(&self, first_voters: &[Member]) -> Result<(), InitializeError> {
        if !first_voters.iter().any(|member| member.node_id == self.inner.node_id) {
            return Err(InitializeError::NotAVoter);
        }
        let voters: BTreeMap<NodeId, Node> = first_voters
            .iter()
            .map(|member| (member.node_id, Node { store_id: member.store_id }))
            .collect();
        match self.inner.raft.initialize(voters).await {
            Ok(()) | Err(RaftError::APIError(Refused::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(Refused::NotInMembers(_))) => Err(InitializeError::NotAVoter),
            Err(RaftError::Fatal(_)) => Err(InitializeError::Stopped),
        }
    }

    /// The rows as applied here. Linearizable only after [`Group::read_barrier`].
    pub fn view(&self) -> Result<ReadView, StorageError> {
        self.inner.published.view(&self.inner.db)
    }

    pub fn status(&self) -> Status {
        let status = with_metrics(&self.inner.raft, |it| status::of(it, &self.inner.contacts));
        let doubt = self.inner.completeness.doubt(status.term, status.leader.is_some());
        Status { doubt, ..status }
    }

    /// The status as it changes. The receiver is not woken if only the times since members were
    /// heard changed, nor for a doubt; call [`Group::status`] for those.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// The index up to which the state machine has published.
    pub fn watch_applied(&self) -> watch::Receiver<u64> {
        self.inner.published.applied.subscribe()
    }

    /// Stops the replica and flushes the state.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        if self.inner.raft.shutdown().await.is_err() {
            tracing::warn!(group = self.id(), "the group's task had ended by itself");
        }
        let mut tasks = std::mem::take(&mut *self.lock_tasks());
        tasks.shutdown().await;
        let (published, db) = (self.inner.published.clone(), self.inner.db.clone());
        match task::spawn_blocking(move || published.flush(&db)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, group = self.id(), "not flushed at stop"),
            Err(error) => tracing::warn!(%error, group = self.id(), "not flushed at stop"),
        }
    }

    /// Resolves when the group is being stopped.
    pub(crate) fn stopping(&self) -> WaitForCancellationFutureOwned {
        self.inner.stopping.clone().cancelled_owned()
    }

    /// The level of commands that every replica of the group knows, as far as applied here.
    pub fn level(&self) -> u32 {
        self.inner.published.level.load(Ordering::Relaxed)
    }

    /// The commands that this server's version knows.
    pub(crate) fn commands(&self) -> Commands {
        self.inner.commands
    }

    /// What this server has heard of the group.
    pub(crate) fn contacts(&self) -> &Contacts {
        &self.inner.contacts
    }

    /// Completes, with the reason, when a request that began at `began` should stop waiting because
    /// the quorum is lost.
    async fn quorum_lost(&self, began: Instant) -> NoQuorum {
        let mut changes = self.watch_status();
        loop {
            if changes.wait_for(|status| status.quorum == Quorum::Lost).await.is_err() {
                // The group has stopped. The caller notices that by itself.
                return std::future::pending().await;
            }
            time::sleep_until(began + GRACE).await;
            if changes.borrow().quorum == Quorum::Lost {
                return self.status().no_quorum(self.inner.node_id);
            }
        }
    }

    pub(crate) fn completeness(&self) -> &CompletenessGuard {
        &self.inner.completeness
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    /// This server's role and the leader. Every read and write looks them up here.
    pub(crate) fn leadership(&self) -> (Role, Option<NodeId>) {
        with_metrics(&self.inner.raft, |metrics| (status::role(metrics), metrics.current_leader))
    }

    /// The last entry that this server knows to be committed.
    pub(crate) fn committed(&self) -> Option<LogId> {
        with_metrics(&self.inner.raft, |metrics| metrics.local_committed.max(metrics.last_applied))
    }

    /// Whether a server is a member, as far as this server knows. True while it knows no membership
    /// at all.
    pub(crate) fn may_be_member(&self, node_id: NodeId) -> bool {
        with_metrics(&self.inner.raft, |metrics| {
            let membership = metrics.membership_config.membership();
            membership.nodes().next().is_none() || membership.get_node(&node_id).is_some()
        })
    }

    /// The link to a member.
    fn link_to(&self, target: NodeId) -> MemberLink {
        let target_store_id = with_metrics(&self.inner.raft, |metrics| {
            let node = metrics.membership_config.membership().get_node(&target);
            node.map_or(0, |node| node.store_id)
        });
        MemberLink {
            mesh: self.inner.mesh.clone(),
            mesh_id: self.inner.mesh_id.clone(),
            group: self.inner.id,
            target,
            target_store_id,
        }
    }

    fn lock_tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} {:?})", self.inner.id, self.inner.namespace)
    }
}

/// Reads the metrics in a closure, because a borrow held across an await can block openraft's core.
fn with_metrics<R>(raft: &Raft, look: impl FnOnce(&Metrics) -> R) -> R {
    look(&raft.metrics().borrow_watched())
}

fn remaining(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}
