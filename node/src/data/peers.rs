//! Asks the other replicas of a group what the group says about this node, before its replica is
//! started: whether it is a member, and whether anybody knows of a later state than its disk holds.
//!
//! Nobody has to answer: a group that is being formed, or restarted as a whole, has nobody who
//! could. Then nothing is known, and a disk that went back is not noticed. A leader knows what
//! others acknowledged to it, and forgets it with its leadership; a vote is remembered by whom it
//! elected and by whom it followed, until their next one.

use std::time::Duration;

use futures::future::join_all;
use mesh::{Book, GroupId, MeshId, NodeId};
use proto::quorate::v1::{HostedGroup, HostedGroupsRequest, mesh_client::MeshClient};
use raft::StoredReplica;
use tokio::time::timeout;

use crate::{
    session,
    start::{Later, Membership},
};

/// How long the others may take. They are asked at the same time.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

/// What the members that answered say: none for one that does not host the group.
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<Option<HostedGroup>>);

/// Asks the group's other members, all at the same time.
pub(crate) async fn ask(
    book: &Book,
    mesh: Option<&MeshId>,
    group: GroupId,
    others: impl IntoIterator<Item = NodeId>,
) -> Answers {
    let asking =
        others.into_iter().map(|id| timeout(ANSWER_WITHIN, ask_one(book, mesh, group, id)));
    let answers = join_all(asking).await;
    Answers(answers.into_iter().filter_map(|answer| answer.ok().flatten()).collect())
}

/// A peer's view of the group: none if it did not answer, blank if it does not host the group.
async fn ask_one(
    book: &Book,
    mesh: Option<&MeshId>,
    group: GroupId,
    id: NodeId,
) -> Option<Option<HostedGroup>> {
    let channel = session::connect(book.address(id)?).await.ok()?;
    let reply =
        MeshClient::new(channel).hosted_groups(HostedGroupsRequest {}).await.ok()?.into_inner();
    if mesh.is_none_or(|mesh| reply.mesh_id != mesh.as_str()) {
        return None;
    }
    Some(reply.groups.into_iter().find(|it| it.group == group))
}

impl Answers {
    /// Whether the node is a member. The latest of the answers decides; of one term, the leader's.
    pub(crate) fn membership(&self, own_id: NodeId) -> Membership {
        let latest = self
            .hosting()
            .filter(|answer| !answer.members.is_empty())
            .max_by_key(|answer| (answer.term, answer.role == "leader", answer.applied_index));
        let Some(latest) = latest else {
            return if self.0.is_empty() { Membership::Unknown } else { Membership::Unformed };
        };
        let Some(own) = latest.members.iter().find(|it| it.node_id == own_id) else {
            return Membership::Outside;
        };
        let acknowledged = acknowledged(latest, own_id).is_some();
        if own.voter {
            Membership::Voter { acknowledged }
        } else {
            Membership::Learner { acknowledged }
        }
    }

    /// What somebody knows of the node's replica that its disk does not.
    pub(crate) fn later(&self, own_id: NodeId, stored: StoredReplica) -> Option<Later> {
        let entries = self.hosting().find_map(|answer| {
            let acknowledged = acknowledged(answer, own_id)?;
            // What a leader of an earlier term was given may have been replaced by a later one.
            (answer.term >= stored.term && acknowledged > stored.last_index)
                .then_some(Later::Entries { acknowledged, last_index: stored.last_index })
        });
        let term = || {
            let voted = self
                .hosting()
                .filter(|it| it.voted_for == own_id || acknowledged(it, own_id).is_some())
                .map(|it| it.term)
                .max()?;
            let remembered = stored.term;
            (voted > remembered).then_some(Later::Term { voted, remembered })
        };
        entries.or_else(term)
    }

    fn hosting(&self) -> impl Iterator<Item = &HostedGroup> {
        self.0.iter().flatten()
    }
}

/// The entry up to which a leader has a member's acknowledgment in its term; none if it has no
/// acknowledgment, or does not lead.
fn acknowledged(answer: &HostedGroup, member: NodeId) -> Option<u64> {
    let lag = answer.members.iter().find(|it| it.node_id == member)?.lag?;
    // One that was heard nothing from lags by every entry.
    answer.last_index.checked_sub(lag).filter(|index| *index > 0)
}

#[cfg(test)]
mod tests {
    use proto::quorate::v1::GroupMember;

    use super::*;

    const OWN: NodeId = 1;

    #[test]
    fn nobody_answers() {
        assert_eq!(Answers::default().membership(OWN), Membership::Unknown);
    }

    #[test]
    fn the_others_are_blank_too() {
        let blank = HostedGroup::default();
        assert_eq!(Answers(vec![None, Some(blank)]).membership(OWN), Membership::Unformed);
    }

    #[test]
    fn a_voter_that_never_answered_the_leader() {
        let leader = answer("leader", 3, [(OWN, true, Some(10)), (2, true, Some(0))]);
        let expected = Membership::Voter { acknowledged: false };
        assert_eq!(Answers(vec![Some(leader)]).membership(OWN), expected);
    }

    #[test]
    fn a_voter_whose_entries_the_leader_remembers() {
        let leader = answer("leader", 3, [(OWN, true, Some(4)), (2, true, Some(0))]);
        let expected = Membership::Voter { acknowledged: true };
        assert_eq!(Answers(vec![Some(leader)]).membership(OWN), expected);
    }

    #[test]
    fn the_later_term_is_believed() {
        let before = answer("leader", 3, [(OWN, true, None), (2, true, None)]);
        let after = answer("follower", 4, [(2, true, None)]);
        let answers = Answers(vec![Some(before), Some(after)]);
        assert_eq!(answers.membership(OWN), Membership::Outside);
    }

    #[test]
    fn in_one_term_the_leader_is_believed() {
        let leader = answer("leader", 3, [(OWN, false, Some(2))]);
        let follower = answer("follower", 3, [(2, true, None)]);
        let expected = Membership::Learner { acknowledged: true };
        let answers = Answers(vec![Some(leader), Some(follower)]);
        assert_eq!(answers.membership(OWN), expected);
    }

    #[test]
    fn a_leader_that_has_more_of_ours_than_we_do_knows_better() {
        let leader = || answer("leader", 3, [(OWN, true, Some(2)), (2, true, Some(0))]);
        assert_eq!(later(leader(), 3, 8), None);
        assert_eq!(later(leader(), 3, 9), None);
        let expected = Later::Entries { acknowledged: 8, last_index: 7 };
        assert_eq!(later(leader(), 3, 7), Some(expected));
        assert_eq!(later(leader(), 2, 7), Some(expected));
    }

    #[test]
    fn what_an_overtaken_leader_was_given_may_be_replaced() {
        let leader = answer("leader", 3, [(OWN, true, Some(2)), (2, true, Some(0))]);
        assert_eq!(later(leader, 4, 7), None);
    }

    #[test]
    fn who_acknowledged_in_a_term_remembers_the_term() {
        let leader = answer("leader", 3, [(OWN, true, Some(2)), (2, true, Some(0))]);
        let expected = Later::Term { voted: 3, remembered: 2 };
        assert_eq!(later(leader, 2, 9), Some(expected));
        let unheard = answer("leader", 3, [(OWN, true, Some(10)), (2, true, Some(0))]);
        assert_eq!(later(unheard, 2, 9), None);
    }

    #[test]
    fn whom_others_follow_remembers_the_term() {
        let follower = || HostedGroup {
            voted_for: OWN,
            ..answer("follower", 5, [(OWN, true, None), (2, true, None)])
        };
        assert_eq!(later(follower(), 5, 0), None);
        assert_eq!(later(follower(), 6, 0), None);
        let expected = Later::Term { voted: 5, remembered: 4 };
        assert_eq!(later(follower(), 4, 9), Some(expected));
        let of_another = HostedGroup { voted_for: 2, ..follower() };
        assert_eq!(later(of_another, 4, 9), None);
    }

    #[test]
    fn who_says_nothing_knows_nothing() {
        let stored = StoredReplica { term: 1, last_index: 1, is_blank: false };
        let blank = Some(HostedGroup::default());
        assert_eq!(Answers(vec![None, blank]).later(OWN, stored), None);
        assert_eq!(Answers::default().later(OWN, stored), None);
    }

    fn later(answer: HostedGroup, term: u64, last_index: u64) -> Option<Later> {
        let stored = StoredReplica { term, last_index, is_blank: false };
        Answers(vec![Some(answer)]).later(OWN, stored)
    }

    fn answer<const N: usize>(
        role: &str,
        term: u64,
        members: [(NodeId, bool, Option<u64>); N],
    ) -> HostedGroup {
        let members =
            members.map(|(node_id, voter, lag)| GroupMember { node_id, voter, lag, silent: false });
        HostedGroup {
            role: role.to_owned(),
            term,
            last_index: 10,
            members: members.into(),
            ..HostedGroup::default()
        }
    }
}
