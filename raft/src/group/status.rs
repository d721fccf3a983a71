//! What a server knows of a group.

use std::time::Duration;

use mesh::NodeId;
use openraft::{Instant as _, ServerState, vote::RaftLeaderId as _};

use crate::types::{LogId, Metrics};

/// The part that this server has in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Learner,
    Candidate,
    Stopped,
}

/// A group as this server sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub role: Role,
    pub term: u64,
    /// Whom this server's vote of that term is for, granted or followed. A server without a vote
    /// has term 0, and this is meaningless then.
    pub voted_for: NodeId,
    pub leader: Option<NodeId>,
    /// The last entry stored here; zero if there is none.
    pub last_index: u64,
    pub committed: u64,
    pub applied: u64,
    /// The last entry that is gone from the log here, because the state holds it.
    pub purged: u64,
    pub members: Vec<MemberStatus>,
    /// Term and index of the entry that brought the members.
    pub membership_log_id: Option<(u64, u64)>,
    /// Whether a change of voters is under way.
    pub joint: bool,
    /// On a leader, how long ago a quorum was last heard.
    pub quorum_age: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberStatus {
    pub node_id: NodeId,
    pub store_id: u64,
    pub voter: bool,
    /// Entries that the member has not acknowledged; known to the leader only.
    pub lag: Option<u64>,
}

impl Role {
    /// The name that operators read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
            Self::Candidate => "candidate",
            Self::Stopped => "stopped",
        }
    }
}

pub(super) fn from_metrics(metrics: &Metrics) -> Status {
    let stored = &metrics.membership_config;
    let membership = stored.membership();
    let last_index = metrics.last_log_index.unwrap_or(0);
    let members = membership
        .nodes()
        .map(|(id, node)| {
            let matched = if *id == metrics.id {
                Some(last_index)
            } else {
                let replication = metrics.replication.as_ref();
                replication.map(|of| of.get(id).and_then(Option::as_ref).map_or(0, index))
            };
            MemberStatus {
                node_id: *id,
                store_id: node.store_id,
                voter: membership.voter_ids().any(|voter| voter == *id),
                lag: metrics
                    .replication
                    .as_ref()
                    .and(matched)
                    .map(|matched| last_index.saturating_sub(matched)),
            }
        })
        .collect();
    Status {
        role: role(metrics),
        term: metrics.current_term,
        voted_for: *metrics.vote.leader_id.node_id(),
        leader: metrics.current_leader,
        last_index,
        committed: metrics.cluster_committed.max(metrics.local_committed).as_ref().map_or(0, index),
        applied: metrics.last_applied.as_ref().map_or(0, index),
        purged: metrics.purged.as_ref().map_or(0, index),
        members,
        membership_log_id: stored.log_id().as_ref().map(|id| (id.leader_id.term, id.index)),
        joint: membership.get_joint_config().len() > 1,
        quorum_age: metrics.last_quorum_acked.map(|acked| acked.elapsed()),
    }
}

pub(super) fn role(metrics: &Metrics) -> Role {
    if metrics.running_state.is_err() {
        return Role::Stopped;
    }
    match metrics.state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Learner => Role::Learner,
        ServerState::Candidate => Role::Candidate,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn index(id: &LogId) -> u64 {
    id.index
}
