//! The status of a group as one server knows it.

use std::time::Duration;

use mesh::NodeId;
use openraft::{Instant as _, ServerState, vote::RaftLeaderId as _};
use tokio::time::Instant;

use crate::{
    completeness::Doubt,
    quorum::{Contacts, NoQuorum, Quorum, VoterContact, VoterHeard},
    types::{LogId, Metrics},
};

/// The role of this server in a group.
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
    /// The candidate or leader that this server voted for or followed in that term. Meaningless
    /// while the term is 0.
    pub voted_for: NodeId,
    pub leader: Option<NodeId>,
    /// The last entry stored here; zero if there is none.
    pub last_index: u64,
    pub committed: u64,
    pub applied: u64,
    /// The last entry that was purged from the log here, because the state includes it.
    pub purged: u64,
    pub members: Vec<MemberStatus>,
    /// Term and index of the entry that set the members.
    pub membership_log_id: Option<(u64, u64)>,
    /// Whether a change of voters is under way.
    pub joint: bool,
    /// Whether there is a quorum. A known leader does not imply one: see [`Quorum`].
    pub quorum: Quorum,
    /// Time since a quorum was last known; none if there was none since the start.
    pub quorum_age: Option<Duration>,
    /// Time since a quorum was last known, or else since the start.
    pub without_quorum: Duration,
    /// Why the running replica does not lead or does not follow, if it does not.
    pub doubt: Option<Doubt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberStatus {
    pub node_id: NodeId,
    pub store_id: u64,
    pub voter: bool,
    /// Entries that the member has not acknowledged; known to the leader only.
    pub lag: Option<u64>,
    /// Time since this server last heard the member; none if never, or if it is this server.
    pub heard: Option<Duration>,
    /// Whether the member is this server or was heard by it lately. A follower hears little but its
    /// leader.
    pub is_heard: bool,
}

impl Status {
    /// Whether a leader is known and a quorum is held.
    pub fn is_led(&self) -> bool {
        self.leader.is_some() && self.quorum == Quorum::Held
    }

    /// The reason that a request is told when it needs a quorum and there is none.
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

    /// The status without the times, which change although nothing happens.
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

/// Makes the status from openraft's metrics and the contacts.
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

/// Records the quorum that this leader has. A single voter is its own quorum.
fn note_quorum(metrics: &Metrics, contacts: &Contacts) {
    let mut voters = metrics.membership_config.membership().voter_ids();
    let alone = voters.next() == Some(metrics.id) && voters.next().is_none();
    if metrics.state == ServerState::Leader && alone {
        contacts.record_quorum(Instant::now());
    } else if let Some(acked) = metrics.last_quorum_acked {
        // The clock is read first, so that a pause between the two calls can only make the quorum
        // look older.
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
