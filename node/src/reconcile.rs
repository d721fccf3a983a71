//! Who should be a member of a group, decided by the group's leader, one step at a time.
//!
//! DISCO advises: which nodes should hold a replica, how many voters there should be, and which
//! nodes are up. The group's own log decides. [`next_step`] compares the two and names at most one
//! change of the membership; the reconciler on the leader proposes it under the condition that
//! the membership is still the one that was looked at, and then looks again. So the work can be
//! interrupted anywhere and taken up by another leader.
//!
//! The order of precedence:
//!
//! 1. finish a joint membership;
//! 2. reach the wanted number of voters with learners that have caught up;
//! 3. replace a dead voter, in one joint change, by a learner that has caught up. A voter is dead
//!    once DISCO has listed it as down, and it has answered the leader nothing, for
//!    `replace_after`. If there are more voters than wanted, the dead one is removed without a
//!    replacement;
//! 4. let assigned nodes that are up copy the group as learners;
//! 5. remove learners that are dead by the same measure.
//!
//! A voter is never removed for any other reason, and the number of voters never falls below what
//! is wanted.

mod shell;
#[cfg(test)]
mod tests;
mod topology;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use mesh::{Member, NodeId, node_hex};
use raft::{CAUGHT_UP_LAG, MemberStatus, Role, Status};

pub(crate) use self::{shell::Reconciler, topology::Topology};

/// What DISCO advises about one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    /// Nodes that should hold a replica, as voters or learners.
    pub(crate) replicas: Vec<Member>,
    pub(crate) voters_wanted: usize,
    /// How the nodes are. One that is missing counts as neither up nor down.
    pub(crate) nodes: BTreeMap<NodeId, AdvisedNode>,
}

impl Advice {
    /// Lets no node be down for longer than it has been silent towards the leader. `heard` is how
    /// long ago each member last answered; a member that has not answered yet is silent for
    /// `leading_for`, since the leader began to listen.
    ///
    /// DISCO reaches a node on another path than the group does, and either may fail alone. A node
    /// that answers its leader is alive, whatever DISCO says.
    #[must_use]
    pub(crate) fn capped_by_silence(
        mut self,
        heard: &BTreeMap<NodeId, Duration>,
        leading_for: Duration,
    ) -> Self {
        for (id, node) in &mut self.nodes {
            if let Presence::Down(told) = node.presence {
                let silent = heard.get(id).copied().unwrap_or(leading_for);
                node.presence = Presence::Down(told.min(silent));
            }
        }
        self
    }
}

/// How DISCO sees one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdvisedNode {
    pub(crate) presence: Presence,
    pub(crate) zone: String,
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Up,
    /// It stops, or its state is not known; it is expected back.
    Away,
    /// DISCO has listed it as down, and the leader has not heard it, for this long without a break.
    Down(Duration),
}

/// One change of a group's membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Let a node copy the group.
    AddLearner(Member),
    /// Make exactly these the voters.
    SetVoters { voters: BTreeSet<NodeId>, reason: Reason },
    /// Remove a learner.
    Remove(NodeId),
}

/// Why the voters change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    FinishJoint,
    Promote,
    Replace { dead: NodeId },
}

/// As the log has it, with ids as people read them.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddLearner(member) => write!(f, "add learner {}", node_hex(member.node_id)),
            Self::SetVoters { voters, reason } => {
                let voters: Vec<_> = voters.iter().map(|id| node_hex(*id)).collect();
                write!(f, "set voters {}", voters.join(", "))?;
                match reason {
                    Reason::FinishJoint => write!(f, ", to end a change that was begun"),
                    Reason::Promote => write!(f, ", since learners have caught up"),
                    Reason::Replace { dead } => write!(f, ", since {} is dead", node_hex(*dead)),
                }
            }
            Self::Remove(node_id) => write!(f, "remove learner {}", node_hex(*node_id)),
        }
    }
}

/// The next change that a leader should make, if any.
///
/// Without advice (no DISCO, or DISCO without a quorum) only a joint membership is finished.
pub(crate) fn next_step(
    status: &Status,
    advice: Option<&Advice>,
    replace_after: Duration,
) -> Option<Step> {
    if status.role != Role::Leader {
        return None;
    }
    if status.joint {
        // The voters of both sets together contain every voter that was wanted, whichever set is
        // the later one. Surplus voters keep their seats.
        return Some(Step::SetVoters {
            voters: voters(status).map(|it| it.node_id).collect(),
            reason: Reason::FinishJoint,
        });
    }
    let planner = StepPlanner { status, advice: advice?, replace_after };
    planner
        .promote()
        .or_else(|| planner.replace())
        .or_else(|| planner.add())
        .or_else(|| planner.remove())
}

fn voters(status: &Status) -> impl Iterator<Item = &MemberStatus> {
    status.members.iter().filter(|it| it.voter)
}

/// Compares the status of a group with DISCO's advice, on the group's leader.
struct StepPlanner<'a> {
    status: &'a Status,
    advice: &'a Advice,
    replace_after: Duration,
}

impl StepPlanner<'_> {
    /// Promotes as many learners as lead to an odd number of voters or to the wanted one. An even
    /// number tolerates no more failures than the odd one below it, and needs one more vote.
    fn promote(&self) -> Option<Step> {
        let mut voters = self.voter_ids();
        let missing = self.advice.voters_wanted.checked_sub(voters.len())?;
        let mut candidates = self.candidates();
        candidates.truncate(missing);
        let reached = voters.len() + candidates.len();
        if reached != self.advice.voters_wanted && reached.is_multiple_of(2) {
            candidates.pop();
        }
        if candidates.is_empty() {
            return None;
        }
        voters.extend(candidates);
        Some(Step::SetVoters { voters, reason: Reason::Promote })
    }

    fn replace(&self) -> Option<Step> {
        let mut voters = self.voter_ids();
        let dead = *voters.iter().find(|id| self.is_dead(**id))?;
        if voters.len() <= self.advice.voters_wanted {
            voters.insert(*self.candidates().first()?);
        }
        voters.remove(&dead);
        Some(Step::SetVoters { voters, reason: Reason::Replace { dead } })
    }

    fn add(&self) -> Option<Step> {
        self.advice
            .replicas
            .iter()
            .find(|it| self.member(it.node_id).is_none() && self.is_up(it.node_id))
            .map(|it| Step::AddLearner(*it))
    }

    fn remove(&self) -> Option<Step> {
        self.learners().find(|it| self.is_dead(it.node_id)).map(|it| Step::Remove(it.node_id))
    }

    /// Learners that may become voters, best first: from the zone with the fewest voters, then by
    /// id, so that every leader chooses alike.
    fn candidates(&self) -> Vec<NodeId> {
        let mut voters_in: BTreeMap<&str, usize> = BTreeMap::new();
        for voter in voters(self.status).filter(|it| !self.is_dead(it.node_id)) {
            *voters_in.entry(self.zone(voter.node_id)).or_default() += 1;
        }
        let mut left: Vec<NodeId> = self
            .learners()
            .filter(|it| it.lag.is_some_and(|lag| lag <= CAUGHT_UP_LAG))
            .filter(|it| self.is_up(it.node_id) && self.is_assigned(it))
            .map(|it| it.node_id)
            .collect();
        let mut candidates = Vec::with_capacity(left.len());
        while let Some(position) = (0..left.len())
            .min_by_key(|at| (voters_in.get(self.zone(left[*at])).copied(), left[*at]))
        {
            let id = left.swap_remove(position);
            *voters_in.entry(self.zone(id)).or_default() += 1;
            candidates.push(id);
        }
        candidates
    }

    fn voter_ids(&self) -> BTreeSet<NodeId> {
        voters(self.status).map(|it| it.node_id).collect()
    }

    fn learners(&self) -> impl Iterator<Item = &MemberStatus> {
        self.status.members.iter().filter(|it| !it.voter)
    }

    fn member(&self, id: NodeId) -> Option<&MemberStatus> {
        self.status.members.iter().find(|it| it.node_id == id)
    }

    /// Whether DISCO wants a replica on this node, with the store that the group knows.
    fn is_assigned(&self, member: &MemberStatus) -> bool {
        self.advice
            .replicas
            .iter()
            .any(|it| it.node_id == member.node_id && it.store_id == member.store_id)
    }

    fn is_up(&self, id: NodeId) -> bool {
        self.presence(id) == Some(Presence::Up)
    }

    fn is_dead(&self, id: NodeId) -> bool {
        // The leader runs this code, so its node is alive, whatever DISCO says.
        self.status.leader != Some(id)
            && matches!(self.presence(id), Some(Presence::Down(since)) if since >= self.replace_after)
    }

    fn presence(&self, id: NodeId) -> Option<Presence> {
        self.advice.nodes.get(&id).map(|it| it.presence)
    }

    fn zone(&self, id: NodeId) -> &str {
        self.advice.nodes.get(&id).map_or("", |it| &it.zone)
    }
}
