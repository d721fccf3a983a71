//! Writing: propose here or at the leader, and never propose twice what may have been proposed.

use std::time::Duration;

use bytes::Bytes;
use mesh::{NodeId, surely_not_sent};
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use proto::quorate::v1 as pb;
use tokio::time::{self, Instant};
use tonic::{Code, Request};

use super::{Group, LEADER_POLL, Role, remaining};
use crate::types::Command;

/// Largest command. Well below the message limit, so that several fit one append.
const COMMAND_BYTES: usize = 8 << 20;
/// How long an acknowledgement waits for this replica to apply the command too.
const OWN_WRITE: Duration = Duration::from_secs(1);
/// Pause before a refused proposal is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// A command that a quorum stored and that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its index in the group's log.
    pub index: u64,
    pub reply: Bytes,
}

/// Why a write was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing was proposed.
    #[error("the group has no leader")]
    NoLeader,
    /// Nothing was proposed.
    #[error("the leader has lost its quorum")]
    QuorumLost,
    /// The command may or may not be applied, now or later.
    #[error("no answer within the deadline; the outcome is unknown")]
    DeadlineExceeded,
    /// The command may or may not be applied, now or later.
    #[error(
        "the leader changed or broke off while the command was under way; the outcome is unknown"
    )]
    OutcomeUnknown,
    /// Nothing was proposed.
    #[error("a command of {size} bytes is larger than the limit of {COMMAND_BYTES}")]
    TooLarge { size: usize },
    /// The group does not run on this server any more. The command may have been proposed.
    #[error("the group has stopped")]
    Stopped,
}

/// What became of one attempt.
pub(crate) enum Proposed {
    Applied(Applied),
    /// Surely not proposed; the leader is there, if anybody knows.
    NotLeader {
        leader: Option<NodeId>,
        quorum_lost: bool,
    },
    /// It may have been proposed.
    Unknown(WriteError),
}

impl Group {
    /// Replicates a command and returns what the state machine answered. Waits for a leader,
    /// forwards to it, and tries again only if the command was surely not proposed.
    ///
    /// What was written can then be read here, also by [`Group::view`] alone, unless this replica
    /// is far behind.
    ///
    /// # Errors
    ///
    /// After [`WriteError::DeadlineExceeded`] and [`WriteError::OutcomeUnknown`] the command may
    /// still be applied.
    pub async fn write(&self, command: Bytes, deadline: Duration) -> Result<Applied, WriteError> {
        let size = command.len();
        if size > COMMAND_BYTES {
            return Err(WriteError::TooLarge { size });
        }
        let deadline = Instant::now() + deadline;
        let mut refusal = WriteError::NoLeader;
        loop {
            let leadership = self.leadership();
            let Some(left) = remaining(deadline) else { return Err(refusal) };
            let attempt = match leadership {
                (Role::Stopped, _) => return Err(WriteError::Stopped),
                (Role::Leader, _) => self.propose_within(command.clone(), left).await,
                (Role::Follower | Role::Learner | Role::Candidate, Some(leader))
                    if leader != self.inner.node_id =>
                {
                    let proposed = self.propose_at(leader, command.clone(), left).await;
                    if let Proposed::Applied(applied) = &proposed {
                        self.await_applied(applied.index, OWN_WRITE.min(left)).await;
                    }
                    proposed
                }
                (Role::Follower | Role::Learner | Role::Candidate, _) => {
                    self.await_leader(left).await;
                    continue;
                }
            };
            match attempt {
                Proposed::Applied(applied) => return Ok(applied),
                Proposed::Unknown(error) => return Err(error),
                Proposed::NotLeader { quorum_lost, .. } => {
                    refusal =
                        if quorum_lost { WriteError::QuorumLost } else { WriteError::NoLeader };
                    time::sleep(RETRY.min(left)).await;
                }
            }
        }
    }

    /// Proposes on this server, if it leads.
    pub(crate) async fn propose(&self, command: Bytes) -> Proposed {
        match self.inner.raft.client_write(Command(command)).await {
            Ok(response) => {
                Proposed::Applied(Applied { index: response.log_id.index, reply: response.data.0 })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Proposed::NotLeader {
                    leader: forward.leader_id,
                    quorum_lost: forward.reason == ForwardReason::LeaseExpired,
                }
            }
            Err(RaftError::APIError(
                ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            )) => Proposed::Unknown(WriteError::OutcomeUnknown),
            Err(RaftError::Fatal(_)) => Proposed::Unknown(WriteError::Stopped),
        }
    }

    async fn propose_within(&self, command: Bytes, limit: Duration) -> Proposed {
        time::timeout(limit, self.propose(command))
            .await
            .unwrap_or(Proposed::Unknown(WriteError::DeadlineExceeded))
    }

    /// Proposes on another server.
    async fn propose_at(&self, leader: NodeId, command: Bytes, limit: Duration) -> Proposed {
        let line = self.line_to(leader);
        let message = pb::ProposeRequest { envelope: Some(line.envelope()), command };
        let mut request = Request::new(message);
        request.set_timeout(limit);
        let mut client = line.client();
        let reply = match time::timeout(limit, client.propose(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            // The server refuses before it proposes.
            Ok(Err(status))
                if surely_not_sent(&status) || status.code() == Code::FailedPrecondition =>
            {
                line.refused(&status);
                tracing::debug!(group = self.id(), %status, "could not forward a command");
                return Proposed::NotLeader { leader: None, quorum_lost: false };
            }
            Ok(Err(status)) if status.code() == Code::DeadlineExceeded => {
                return Proposed::Unknown(WriteError::DeadlineExceeded);
            }
            Ok(Err(status)) => {
                tracing::debug!(group = self.id(), %status, "a forwarded command broke off");
                return Proposed::Unknown(WriteError::OutcomeUnknown);
            }
            Err(_) => return Proposed::Unknown(WriteError::DeadlineExceeded),
        };
        match reply.outcome {
            Some(pb::propose_reply::Outcome::Applied(applied)) => {
                Proposed::Applied(Applied { index: applied.index, reply: applied.reply })
            }
            Some(pb::propose_reply::Outcome::NotLeader(not_leader)) => Proposed::NotLeader {
                leader: Some(not_leader.leader_id).filter(|id| *id != 0),
                quorum_lost: not_leader.quorum_lost,
            },
            None => Proposed::Unknown(WriteError::OutcomeUnknown),
        }
    }

    /// Waits until the entry at `index` is applied here, or until the limit.
    async fn await_applied(&self, index: u64, limit: Duration) {
        let mut applied = self.watch_applied();
        let reached = applied.wait_for(|applied| *applied >= index);
        if time::timeout(limit, reached).await.is_err() {
            tracing::debug!(group = self.id(), index, "acknowledged before it is applied here");
        }
    }

    /// Waits until somebody leads, or until the limit.
    pub(super) async fn await_leader(&self, limit: Duration) {
        let mut changes = self.watch_status();
        let led =
            changes.wait_for(|status| status.leader.is_some() || status.role == Role::Stopped);
        // The watched status may be a step ahead of the one that sent us here.
        let _ = time::timeout(limit, led).await;
        time::sleep(LEADER_POLL.min(limit)).await;
    }
}
