//! What the parts of the service share.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::quorate::v1::AnswerMeta;
use raft::{Group, Host, Role, Status as GroupStatus};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use crate::{
    board::Board, disco::DiscoConfig, leases::Leases, proposals::Proposals, ready::Gate,
    renewals::Renewals, reports::Reports,
};

/// A server that heard of a quorum within this time has one: a leader hears it with each
/// heartbeat, another server asks once a second, and an election takes a second or two.
const QUORUM_FRESH: Duration = Duration::from_secs(3);

/// What there is from the start.
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
    /// When a leader last told, quorum behind it, that it leads.
    heard: Mutex<Option<Instant>>,
    sessions: AtomicU64,
}

/// What there is once the server belongs to a mesh.
#[derive(Clone, Debug)]
pub(crate) struct Formed {
    pub(crate) group: Group,
    pub(crate) proposals: Proposals,
    pub(crate) renewals: Renewals,
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
            heard: Mutex::default(),
            sessions: AtomicU64::new(0),
        })
    }

    /// Lets a caller in, or tells it why not.
    pub(crate) fn admit(&self) -> Result<&Formed, Status> {
        self.gate.check()?;
        if self.stopping.is_cancelled() {
            return Err(Status::unavailable("this server is stopping"));
        }
        self.formed.get().ok_or_else(|| Status::unavailable("this server belongs to no mesh yet"))
    }

    pub(crate) fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes note that a leader answered for its quorum.
    pub(crate) fn note_quorum(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Which mesh answers, and how fresh what it says is.
    pub(crate) fn meta(&self) -> AnswerMeta {
        let mesh_id = self.host.mesh().borrow().as_ref().map(ToString::to_string);
        let status = self.formed.get().map(|formed| formed.group.status());
        AnswerMeta {
            mesh_id: mesh_id.unwrap_or_default(),
            revision: self.board.revision(),
            leader_id: status.as_ref().and_then(|it| it.leader).unwrap_or(0),
            stale_for_ms: status.map_or(0, |it| millis(self.stale_for(&it))),
        }
    }

    /// Whether this server leads a quorum or follows somebody who does, as far as it knows.
    pub(crate) fn hears_quorum(&self, status: &GroupStatus) -> bool {
        status.leader.is_some() && self.stale_for(status).is_zero()
    }

    /// A follower that lost its leader cannot tell from its own state, since nobody is elected
    /// who would replace the one it knows.
    fn stale_for(&self, status: &GroupStatus) -> Duration {
        let voters = status.members.iter().filter(|it| it.voter).count();
        let age = match status.role {
            Role::Leader if voters == 1 => Duration::ZERO,
            Role::Leader => status.quorum_age.unwrap_or_default(),
            Role::Follower | Role::Learner | Role::Candidate | Role::Stopped => {
                let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                match heard {
                    Some(heard) => heard.elapsed(),
                    None => return self.started.elapsed(),
                }
            }
        };
        if age > QUORUM_FRESH { age } else { Duration::ZERO }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
