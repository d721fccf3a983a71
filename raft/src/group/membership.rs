//! Membership changes: one at a time, made by the group's leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    time::Duration,
};

use mesh::{Member, NodeId};
use openraft::{
    ChangeMembers, Precondition,
    errors::{ClientWriteError, RaftError},
    raft::ClientWriteResponse,
};
use tokio::time;

use super::{Group, Role};
use crate::types::{Node, TypeConfig, log_id};

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

/// A change may name the membership that it was decided on, by the term and index of its entry
/// ([`Status::membership_log_id`](super::Status)). Then it is made only if that membership is still
/// the current one.
impl Group {
    /// Adds a member that receives the log and does not vote. An existing member stays as it is.
    pub async fn add_learner(
        &self,
        member: Member,
        expected: Option<(u64, u64)>,
    ) -> Result<(), ChangeError> {
        let node = Node { store_id: member.store_id };
        let change = ChangeMembers::AddNodes(BTreeMap::from([(member.node_id, node)]));
        self.change(change, expected).await
    }

    /// Makes exactly `voters` the voters. All of them must be members; other voters become
    /// learners.
    pub async fn change_voters(
        &self,
        voters: BTreeSet<NodeId>,
        expected: Option<(u64, u64)>,
    ) -> Result<(), ChangeError> {
        self.change(ChangeMembers::ReplaceAllVoters(voters), expected).await
    }

    /// Removes a learner. A voter must be made a learner first.
    pub async fn remove_member(
        &self,
        node_id: NodeId,
        expected: Option<(u64, u64)>,
    ) -> Result<(), ChangeError> {
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([node_id])), expected).await
    }

    /// Transfers the leadership to a voter. Returns once this server no longer leads.
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

    async fn change(
        &self,
        change: ChangeMembers<NodeId, Node>,
        expected: Option<(u64, u64)>,
    ) -> Result<(), ChangeError> {
        let expected = expected.map(|(term, index)| Precondition::LastMembershipLogId {
            last_membership_log_id: Some(log_id(term, index)),
        });
        committed(self.inner.raft.change_membership_if(change, true, expected)).await
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
