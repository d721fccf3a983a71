//! Writes: propose here or at the leader. A command that may have been proposed is never proposed
//! again.

#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use mesh::{NodeId, surely_not_begun};
use openraft::errors::{ClientWriteError, ForwardReason, RaftError};
use proto::quorate::v1 as pb;
use tokio::time::{self, Instant};
use tonic::{Code, Request};

use super::{Group, LEADER_POLL, Role, admission::COMMANDS, remaining, with_metrics};
use crate::{
    quorum::NoQuorum,
    state::PendingReply,
    types::{Command, MachineCommand, ProposalId},
};

/// Largest command. Well below the message limit, so that several fit one append.
const COMMAND_BYTES: usize = 8 << 20;
/// How long an acknowledgment waits for this replica to apply the command too.
const OWN_WRITE: Duration = Duration::from_secs(1);
/// Pause before a refused proposal is tried again.
const RETRY: Duration = Duration::from_millis(10);
/// How long a command waits for the group's level: a group is formed at the first one, and is raised
/// once its leader has heard what its voters know.
const LEVEL_PATIENCE: Duration = Duration::from_secs(3);

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
    /// Nothing was proposed. Known before the deadline: see [`Quorum`](crate::Quorum).
    #[error("{0}")]
    NoQuorum(NoQuorum),
    /// The command was proposed before the quorum was lost, and may be applied later.
    #[error("{0}; the outcome is unknown")]
    Unconfirmed(NoQuorum),
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
    /// Nothing was proposed: the server has too many commands under way.
    #[error("too many commands are under way")]
    Busy,
    /// Nothing was proposed: some replica may not know the command. `needs` is none if the leader
    /// does not know it either.
    #[error("{}", too_new(*needs, *level))]
    TooNew { needs: Option<u32>, level: u32 },
    /// The group does not run on this server any more. The command may have been proposed.
    #[error("the group has stopped")]
    Stopped,
}

/// The outcome of one attempt.
pub(crate) enum Proposed {
    Applied {
        index: u64,
        /// None if the leader left it out of its answer: then this replica takes it from its own
        /// apply.
        reply: Option<Bytes>,
    },
    /// Surely not proposed.
    Busy,
    /// Surely not proposed.
    TooNew { needs: Option<u32>, level: u32 },
    /// Surely not proposed. `leader` is the leader, if it is known.
    NotLeader { leader: Option<NodeId>, quorum_lost: bool },
    /// It may have been proposed.
    Unknown(WriteError),
}

impl Group {
    /// Replicates a command and returns what the state machine answered. Waits for a leader,
    /// forwards to it, and tries again only if the command was surely not proposed.
    ///
    /// Fails early, before the deadline, if there is no quorum.
    ///
    /// After success the write can be read here, also by [`Group::view`] alone, unless this replica
    /// is far behind.
    ///
    /// # Errors
    ///
    /// After [`WriteError::DeadlineExceeded`], [`WriteError::OutcomeUnknown`] and
    /// [`WriteError::Unconfirmed`] the command may still be applied.
    pub async fn write(&self, command: Bytes, deadline: Duration) -> Result<Applied, WriteError> {
        let size = command.len();
        if size > COMMAND_BYTES {
            return Err(WriteError::TooLarge { size });
        }
        let Some(_admitted) = self.inner.admission.admit(size) else {
            return Err(WriteError::Busy);
        };
        let began = Instant::now();
        let deadline = began + deadline;
        // Whether a leader may be carrying out the command.
        let mut proposing = false;
        let lost = tokio::select! {
            biased;
            written = self.write_by(command, deadline, &mut proposing) => return written,
            lost = self.quorum_lost(began) => lost,
        };
        Err(if proposing { WriteError::Unconfirmed(lost) } else { WriteError::NoQuorum(lost) })
    }

    async fn write_by(
        &self,
        command: Bytes,
        deadline: Instant,
        proposing: &mut bool,
    ) -> Result<Applied, WriteError> {
        let mut refusal = WriteError::NoLeader;
        let raised_by = Instant::now() + LEVEL_PATIENCE;
        let mut answer = self.inner.published.pending_replies.register(self.inner.node_id);
        loop {
            let leadership = self.leadership();
            let Some(left) = remaining(deadline) else { return Err(refusal) };
            let attempt = match leadership {
                (Role::Stopped, _) => return Err(WriteError::Stopped),
                (Role::Leader, _) => {
                    *proposing = true;
                    self.propose_within(command.clone(), answer.id, left).await
                }
                (Role::Follower | Role::Learner | Role::Candidate, Some(leader))
                    if leader != self.inner.node_id =>
                {
                    *proposing = true;
                    let proposed = self.propose_at(leader, command.clone(), answer.id, left).await;
                    if let Proposed::Applied { index, reply } = &proposed {
                        let limit = if reply.is_some() { OWN_WRITE.min(left) } else { left };
                        self.await_applied(*index, limit).await;
                    }
                    proposed
                }
                (Role::Follower | Role::Learner | Role::Candidate, _) => {
                    self.await_leader(left).await;
                    continue;
                }
            };
            match attempt {
                Proposed::Applied { index, reply } => {
                    return own_reply(reply, &mut answer).map(|reply| Applied { index, reply });
                }
                Proposed::Unknown(error) => return Err(error),
                Proposed::Busy => return Err(WriteError::Busy),
                Proposed::TooNew { needs, level } => {
                    *proposing = false;
                    refusal = WriteError::TooNew { needs, level };
                    if needs.is_none() || Instant::now() >= raised_by {
                        return Err(refusal);
                    }
                    time::sleep(RETRY.min(left)).await;
                }
                Proposed::NotLeader { quorum_lost, .. } => {
                    *proposing = false;
                    refusal =
                        if quorum_lost { WriteError::QuorumLost } else { WriteError::NoLeader };
                    time::sleep(RETRY.min(left)).await;
                }
            }
        }
    }

    /// Proposes on this server, if it leads.
    pub(crate) async fn propose(&self, bytes: Bytes, proposal: ProposalId) -> Proposed {
        let needs = (self.inner.commands.level_of)(&bytes);
        let level = self.level();
        let Some(needed) = needs.filter(|needs| *needs <= level) else {
            return Proposed::TooNew { needs, level };
        };
        // [`Group::write`] has already counted the commands of this server's own clients.
        let forwarded = proposal.node_id != self.inner.node_id;
        let admitted = forwarded.then(|| self.inner.admission.admit(bytes.len()));
        if matches!(admitted, Some(None)) || self.unapplied() > COMMANDS {
            return Proposed::Busy;
        }
        let command = MachineCommand { bytes, level: needed, proposal };
        match self.inner.raft.client_write(Command::Machine(command)).await {
            Ok(response) => {
                Proposed::Applied { index: response.log_id.index, reply: Some(response.data.0) }
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

    /// Entries in the log that are not applied, also those whose callers no longer wait.
    fn unapplied(&self) -> usize {
        let unapplied = with_metrics(&self.inner.raft, |metrics| {
            let applied = metrics.last_applied.map_or(0, |applied| applied.index);
            metrics.last_log_index.unwrap_or(0).saturating_sub(applied)
        });
        usize::try_from(unapplied).unwrap_or(usize::MAX)
    }

    async fn propose_within(
        &self,
        command: Bytes,
        proposal: ProposalId,
        limit: Duration,
    ) -> Proposed {
        time::timeout(limit, self.propose(command, proposal))
            .await
            .unwrap_or(Proposed::Unknown(WriteError::DeadlineExceeded))
    }

    /// Proposes on another server.
    async fn propose_at(
        &self,
        leader: NodeId,
        command: Bytes,
        proposal: ProposalId,
        limit: Duration,
    ) -> Proposed {
        let link = self.link_to(leader);
        let envelope = Some(link.envelope());
        let message = pb::ProposeRequest { envelope, command, proposal: proposal.number };
        let mut request = Request::new(message);
        request.set_timeout(limit);
        let mut client = link.client();
        let reply = match time::timeout(limit, client.propose(request)).await {
            Ok(Ok(reply)) => {
                self.contacts().record_contact(leader);
                reply.into_inner()
            }
            // The server refuses such a message before it proposes anything.
            Ok(Err(status))
                if surely_not_begun(&status) || status.code() == Code::FailedPrecondition =>
            {
                link.refused(&status);
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
            Some(pb::propose_reply::Outcome::Applied(applied)) => Proposed::Applied {
                index: applied.index,
                reply: (!applied.reply_omitted).then_some(applied.reply),
            },
            Some(pb::propose_reply::Outcome::Busy(_)) => Proposed::Busy,
            Some(pb::propose_reply::Outcome::TooNew(it)) => Proposed::TooNew {
                needs: Some(it.needs).filter(|needs| *needs != 0),
                level: it.level,
            },
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

    /// Waits until there is a leader, or until the limit.
    pub(super) async fn await_leader(&self, limit: Duration) {
        let mut changes = self.watch_status();
        let led =
            changes.wait_for(|status| status.leader.is_some() || status.role == Role::Stopped);
        // The watched status may be newer than the one that the caller saw.
        let _ = time::timeout(limit, led).await;
        time::sleep(LEADER_POLL.min(limit)).await;
    }
}

/// The reply from the leader, or else from this replica's own apply.
fn own_reply(reply: Option<Bytes>, answer: &mut PendingReply) -> Result<Bytes, WriteError> {
    // None if this replica is far behind. Then the reply is lost, although the command is applied.
    reply.or_else(|| answer.take()).ok_or(WriteError::OutcomeUnknown)
}

fn too_new(needs: Option<u32>, level: u32) -> String {
    match needs {
        Some(needs) => format!(
            "the command needs level {needs} and the group is at level {level}, until all its \
             voters are upgraded"
        ),
        None => "the leader does not know the command: upgrade it".to_owned(),
    }
}
