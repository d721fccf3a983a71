//! What a server knows of a group.

use std::time::Duration;

use mesh::NodeId;
use openraft::{Instant as _, ServerState, vote::RaftLeaderId as _};
use tokio::time::Instant;

use crate::{
    completeness::Doubt,
    quorum::{Contacts, NoQuorum, Quorum, VoterContact, VoterHeard},
    types::{LogId, Metrics},
};

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
    /// Whether there is a quorum. A leader that is known says nothing of that: see [`Quorum`].
    pub quorum: Quorum,
    /// How long ago a quorum was last known to stand; none if none was since the start.
    pub quorum_age: Option<Duration>,
    /// The same, or else the time since the start.
    pub without_quorum: Duration,
    /// What keeps the replica from its part although it runs.
    pub doubt: Option<Doubt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberStatus {
    pub node_id: NodeId,
    pub store_id: u64,
    pub voter: bool,
    /// Entries that the member has not acknowledged; known to the leader only.
    pub lag: Option<u64>,
    /// How long ago this server last heard the member; none if never, or if it is this server.
    pub heard: Option<Duration>,
    /// Whether this server has heard the member lately, or is it. A follower hears little but its
    /// leader.
    pub is_heard: bool,
}

impl Status {
    /// Whether a quorum stands behind a leader that is known.
    pub fn is_led(&self) -> bool {
        self.leader.is_some() && self.quorum == Quorum::Held
    }

    /// Why there is no quorum, for those who asked for something that needs one.
    pub fn no_quorum(&self, own_id: NodeId) -> NoQuorum {
        let contact = |member: &MemberStatus| match member.heard {
            _ if member.node_id == own_id => VoterContact::Own,
            Some(ago) => VoterContact::Ago(ago),
            None => VoterContact::Never,
        };
        let voters = self.members.iter().filter(|member| member.voter);
        NoQuorum {
            age: self.quorum_age,
            without: self.without_quorum,
            voters: voters
                .map(|it| VoterHeard { node_id: it.node_id, heard: contact(it) })
                .collect(),
        }
    }

    /// The status without what changes by the mere passing of time.
    pub(super) fn without_ages(&self) -> Self {
        let mut status = self.clone();
        status.quorum_age = None;
        status.without_quorum = Duration::ZERO;
        for member in &mut status.members {
            member.heard = None;
        }
        status
    }
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

/// The status as openraft's figures and what was heard have it.
pub(super) fn of(metrics: &Metrics, contacts: &Contacts) -> Status {
    note_quorum(metrics, contacts);
    let heard = contacts.ages();
    let stored = &metrics.membership_config;
    let membership = stored.membership();
    let last_index = metrics.last_log_index.unwrap_or(0);
    let members: Vec<MemberStatus> = membership
        .nodes()
        .map(|(id, node)| {
            let matched = if *id == metrics.id {
                Some(last_index)
            } else {
                let replication = metrics.replication.as_ref();
                replication.map(|of| of.get(id).and_then(Option::as_ref).map_or(0, index))
            };
            let silent_for = heard.members.get(id).copied();
            MemberStatus {
                heard: silent_for.filter(|_| *id != metrics.id),
                is_heard: *id == metrics.id
                    || silent_for.is_some_and(|it| contacts.bounds.is_there(it)),
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
    let voters = members.iter().filter(|member| member.voter);
    let there = voters.clone().filter(|member| member.is_heard).count();
    Status {
        role: role(metrics),
        term: metrics.current_term,
        voted_for: *metrics.vote.leader_id.node_id(),
        leader: metrics.current_leader,
        last_index,
        committed: metrics.cluster_committed.max(metrics.local_committed).as_ref().map_or(0, index),
        applied: metrics.last_applied.as_ref().map_or(0, index),
        purged: metrics.purged.as_ref().map_or(0, index),
        quorum: contacts.bounds.judge(heard.without, voters.count(), there),
        members,
        membership_log_id: stored.log_id().as_ref().map(|id| (id.leader_id.term, id.index)),
        joint: membership.get_joint_config().len() > 1,
        quorum_age: heard.age,
        without_quorum: heard.without,
        doubt: None,
    }
}

/// Takes note of the quorum that a leader has; who leads alone is its own.
fn note_quorum(metrics: &Metrics, contacts: &Contacts) {
    let mut voters = metrics.membership_config.membership().voter_ids();
    let alone = voters.next() == Some(metrics.id) && voters.next().is_none();
    if metrics.state == ServerState::Leader && alone {
        contacts.record_quorum(Instant::now());
    } else if let Some(acked) = metrics.last_quorum_acked {
        // The present is looked at first, so that a pause in between makes the quorum older only.
        let now = Instant::now();
        if let Some(at) = now.checked_sub(acked.elapsed()) {
            contacts.record_quorum(at);
        }
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
