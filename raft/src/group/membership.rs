//! Changing who takes part. One change at a time, by the group's leader.

use std::{collections::BTreeSet, future::Future, time::Duration};

use openraft::{
    ChangeMembers, Precondition,
    errors::{ClientWriteError, RaftError},
    raft::ClientWriteResponse,
};
use tokio::time;

use super::{Group, Role};
use crate::{
    ids::{Member, NodeId},
    types::{Node, TypeConfig, log_id},
};

/// How long a change may take to be committed.
const LIMIT: Duration = Duration::from_secs(10);

/// Why the membership was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("this server does not lead the group")]
    NotLeader { leader: Option<NodeId> },
    #[error("the membership is not the expected one any more")]
    MembershipChanged,
    #[error("refused: {0}")]
    Refused(String),
    #[error("not committed in time; the outcome is unknown")]
    OutcomeUnknown,
    #[error("the group has stopped")]
    Stopped,
}

impl Group {
    /// Adds a member that receives the log and does not vote. A member that is there stays.
    pub async fn add_learner(&self, member: Member) -> Result<(), ChangeError> {
        let node = Node { store_id: member.store_id };
        committed(self.inner.raft.add_learner(member.node_id, node, false)).await
    }

    /// Makes exactly `voters`, all members already, the voters; others become learners. With
    /// `expected` (term and index of the membership), only if nobody changed it since.
    pub async fn change_voters(
        &self,
        voters: BTreeSet<NodeId>,
        expected: Option<(u64, u64)>,
    ) -> Result<(), ChangeError> {
        let change = ChangeMembers::ReplaceAllVoters(voters);
        let expected = expected.map(|(term, index)| Precondition::LastMembershipLogId {
            last_membership_log_id: Some(log_id(term, index)),
        });
        committed(self.inner.raft.change_membership_if(change, true, expected)).await
    }

    /// Removes a learner. A voter must be made a learner first.
    pub async fn remove_member(&self, node_id: NodeId) -> Result<(), ChangeError> {
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([node_id]));
        committed(self.inner.raft.change_membership(change, true)).await
    }

    /// Hands the leadership to a voter and returns once this server does not lead any more.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ChangeError> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(ChangeError::NotLeader { leader: status.leader });
        }
        if to == self.inner.node_id {
            return Ok(());
        }
        if !status.members.iter().any(|member| member.node_id == to && member.voter) {
            return Err(ChangeError::Refused("the target is not a voter".to_owned()));
        }
        let mut changes = self.watch_status();
        self.inner.raft.trigger().transfer_leader(to).await.map_err(|_| ChangeError::Stopped)?;
        let moved = changes.wait_for(|status| status.role != Role::Leader);
        match time::timeout(LIMIT, moved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ChangeError::Stopped),
            Err(_) => Err(ChangeError::OutcomeUnknown),
        }
    }
}

type ChangeResult =
    Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

async fn committed(change: impl Future<Output = ChangeResult>) -> Result<(), ChangeError> {
    let Ok(result) = time::timeout(LIMIT, change).await else {
        return Err(ChangeError::OutcomeUnknown);
    };
    match result {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            Err(ChangeError::NotLeader { leader: forward.leader_id })
        }
        Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
            Err(ChangeError::OutcomeUnknown)
        }
        Err(RaftError::APIError(ClientWriteError::PreconditionFailed(_))) => {
            Err(ChangeError::MembershipChanged)
        }
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(refused))) => {
            Err(ChangeError::Refused(refused.to_string()))
        }
        Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
    }
}
