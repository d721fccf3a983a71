//! What the parts of the service share.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use discovery::lease::Time;
use mesh::GroupId;
use proto::{
    millis,
    quorate::v1::{AnswerMeta, GroupProgress},
};
use raft::{Group, Host, Quorum, Role, Status as GroupStatus};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use crate::{
    clients::{Clients, Redirected, StreamPolicy},
    config::DiscoConfig,
    leader::{Proposals, Renewals, Reports, Servers},
    publish::{Board, Leases},
    ready::Gate,
};

/// A server whose quorum was confirmed within this time counts as having one: it asks twice a
/// second, and an election takes a second or two. It is less than a third of the usual lease, so
/// that an owner that renews here in vain has time to renew at another server.
const QUORUM_FRESH: Duration = Duration::from_secs(3);

/// What the parts share from the start of the process.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) host: Host,
    pub(crate) config: DiscoConfig,
    pub(crate) board: Board,
    pub(crate) leases: Leases,
    pub(crate) reports: Reports,
    pub(crate) gate: Gate,
    /// The tasks of streams and sessions.
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    pub(crate) formed: OnceLock<Formed>,
    started: Instant,
    /// When a quorum was asked that last confirmed that this server has everything.
    quorum_at: watch::Sender<Option<Instant>>,
    /// Notified when a quorum is to be asked at once.
    quorum_request: Notify,
    pub(crate) clients: Arc<Clients>,
    redirected: Mutex<Redirected>,
    pub(crate) policy: watch::Sender<StreamPolicy>,
    sessions: AtomicU64,
}

/// What the parts share once the server belongs to a mesh.
#[derive(Clone, Debug)]
pub(crate) struct Formed {
    pub(crate) group: Group,
    pub(crate) proposals: Proposals,
    pub(crate) renewals: Renewals,
    pub(crate) servers: Servers,
}

impl Shared {
    pub(crate) fn new(
        host: Host,
        config: DiscoConfig,
        board: Board,
        leases: Leases,
        gate: Gate,
    ) -> Arc<Self> {
        Arc::new(Self {
            host,
            config,
            board,
            leases,
            reports: Reports::default(),
            gate,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            formed: OnceLock::new(),
            started: Instant::now(),
            quorum_at: watch::Sender::new(None),
            quorum_request: Notify::new(),
            clients: Arc::default(),
            redirected: Mutex::default(),
            policy: watch::Sender::default(),
            sessions: AtomicU64::new(0),
        })
    }

    /// Admits a caller of the registry, or says why not.
    pub(crate) fn admit(&self) -> Result<&Formed, Status> {
        self.gate.check()?;
        self.check_stopping()?;
        self.formed.get().ok_or_else(|| Status::unavailable("this server belongs to no mesh yet"))
    }

    /// Admits a stream of discovery, or says why not.
    pub(crate) fn admit_stream(&self) -> Result<(), Status> {
        self.gate.check_streams()?;
        self.check_stopping()
    }

    /// Waits until a quorum that was asked at `moment` or later has confirmed that this server has
    /// everything. False if that does not happen within `patience`.
    pub(crate) async fn wait_for_quorum_after(&self, moment: Instant, patience: Duration) -> bool {
        let mut quorum_at = self.quorum_at.subscribe();
        self.quorum_request.notify_one();
        let confirmed = quorum_at.wait_for(|asked| asked.is_some_and(|it| it >= moment));
        matches!(timeout(patience, confirmed).await, Ok(Ok(_)))
    }

    /// Waits until a quorum is to be asked at once.
    pub(crate) async fn quorum_wanted(&self) {
        self.quorum_request.notified().await;
    }

    /// Whether a client is served without a quorum, given that it would lose nothing that it holds:
    /// only if it has found no quorum at other servers. Otherwise the client is noted as
    /// redirected.
    pub(crate) fn may_serve_stale(&self, client: &str) -> bool {
        *self.policy.borrow() == StreamPolicy::ServeStale
            || self.redirected().has_tried_others(client, self.now())
    }

    fn redirected(&self) -> MutexGuard<'_, Redirected> {
        self.redirected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Time {
        self.started.elapsed()
    }

    /// The moment of a time since the start.
    pub(crate) fn moment(&self, time: Time) -> Instant {
        self.started + time
    }

    fn check_stopping(&self) -> Result<(), Status> {
        if self.stopping.is_cancelled() {
            return Err(Status::unavailable("this server is stopping"));
        }
        Ok(())
    }

    /// How far a data group had come by its leaders' reports: by what is recorded, and by what they
    /// have reported here since.
    pub(crate) fn progress(&self, group: GroupId) -> Option<GroupProgress> {
        let recorded = self.board.read(|registry| Some(registry.group(group)?.progress.clone()))?;
        let told = self.reports.progress(group).unwrap_or_default();
        Some(recorded.after(told).to_proto())
    }

    pub(crate) fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that a quorum, asked at that time, has confirmed that this server has everything.
    pub(crate) fn note_quorum(&self, asked: Instant) {
        self.quorum_at.send_replace(Some(asked));
    }

    /// The mesh of this server; empty while it belongs to none.
    pub(crate) fn mesh_id(&self) -> String {
        self.host.mesh().id().map(|mesh| mesh.to_string()).unwrap_or_default()
    }

    /// Which mesh answers, and how fresh the answer is.
    pub(crate) fn meta(&self) -> AnswerMeta {
        let status = self.formed.get().map(|formed| formed.group.status());
        AnswerMeta {
            mesh_id: self.mesh_id(),
            revision: self.board.revision(),
            leader_id: status.as_ref().and_then(|it| it.leader).unwrap_or(0),
            stale_for_ms: millis(self.stale_for()),
        }
    }

    /// The same for an answer that was made without the leader, although it needs one: this server
    /// has no quorum, even if it had one a moment ago.
    pub(crate) fn meta_without_leader(&self) -> AnswerMeta {
        let stale_for_ms = millis(self.since_quorum()).max(1);
        AnswerMeta { stale_for_ms, ..self.meta() }
    }

    /// What the group lacks, as far as this server knows: a quorum, or a leader.
    pub(crate) fn lacks(&self, status: &GroupStatus) -> Option<&'static str> {
        // The answer leaves out for how long, since it would otherwise change every second.
        if status.quorum != Quorum::Held || !self.stale_for().is_zero() {
            Some("quorum")
        } else if status.leader.is_none() {
            Some("leader")
        } else {
            None
        }
    }

    /// For how long this server has had no quorum; zero while it has one.
    pub(crate) fn stale_for(&self) -> Duration {
        let since_quorum = self.since_quorum();
        if since_quorum > QUORUM_FRESH || !self.has_caught_up() {
            since_quorum
        } else {
            Duration::ZERO
        }
    }

    /// How long ago the quorum was asked that last confirmed that this server has everything; the
    /// time since the start, if there was none.
    ///
    /// The quorum must be asked: a follower that has lost its leader goes on naming it until
    /// another one is elected. A leader that is the only voter is its own quorum.
    fn since_quorum(&self) -> Duration {
        match self.quorum_confirmed_at() {
            None => self.started.elapsed(),
            Some(_) if self.leads_alone() => Duration::ZERO,
            Some(asked) => asked.elapsed(),
        }
    }

    fn has_caught_up(&self) -> bool {
        self.quorum_confirmed_at().is_some()
    }

    fn quorum_confirmed_at(&self) -> Option<Instant> {
        *self.quorum_at.borrow()
    }

    fn leads_alone(&self) -> bool {
        self.formed.get().is_some_and(|formed| {
            let status = formed.group.status();
            status.role == Role::Leader && status.members.iter().filter(|it| it.voter).count() == 1
        })
    }
}
