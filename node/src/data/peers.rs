//! Asks the other replicas of a group what the group says about this node.
//!
//! Needed only for a blank replica, whose own log cannot say. Nobody has to answer: a group that is
//! being formed, or restarted as a whole, has nobody who could.

use std::time::Duration;

use futures::future::join_all;
use proto::quorate::v1::{HostedGroup, HostedGroupsRequest, mesh_client::MeshClient};
use raft::{Book, GroupId, MeshId, NodeId};
use tokio::time::timeout;

use crate::{session, start::Membership};

/// How long the others may take. They are asked at the same time.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

/// What the group's other members say about `own_id`.
pub(crate) async fn ask(
    book: &Book,
    mesh: Option<&MeshId>,
    group: GroupId,
    own_id: NodeId,
    others: impl IntoIterator<Item = NodeId>,
) -> Membership {
    let asking = others
        .into_iter()
        .filter(|id| *id != own_id)
        .map(|id| timeout(ANSWER_WITHIN, ask_one(book, mesh, group, id)));
    let answers: Vec<Option<HostedGroup>> =
        join_all(asking).await.into_iter().filter_map(|answer| answer.ok().flatten()).collect();
    membership(&answers, own_id)
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

/// The latest of the answers decides; of one term, the leader's.
fn membership(answers: &[Option<HostedGroup>], own_id: NodeId) -> Membership {
    let latest = answers
        .iter()
        .flatten()
        .filter(|answer| !answer.members.is_empty())
        .max_by_key(|answer| (answer.term, answer.role == "leader", answer.applied_index));
    let Some(latest) = latest else {
        return if answers.is_empty() { Membership::Unknown } else { Membership::Unformed };
    };
    let Some(own) = latest.members.iter().find(|it| it.node_id == own_id) else {
        return Membership::Outside;
    };
    // Only a leader knows lags, and one that has heard nothing from a member counts every entry.
    let acknowledged = own.lag.is_some_and(|lag| lag < latest.last_index);
    if own.voter {
        Membership::Voter { acknowledged }
    } else {
        Membership::Learner { acknowledged }
    }
}

#[cfg(test)]
mod tests {
    use proto::quorate::v1::GroupMember;

    use super::*;

    const OWN: NodeId = 1;

    #[test]
    fn nobody_answers() {
        assert_eq!(membership(&[], OWN), Membership::Unknown);
    }

    #[test]
    fn the_others_are_blank_too() {
        let blank = HostedGroup::default();
        assert_eq!(membership(&[None, Some(blank)], OWN), Membership::Unformed);
    }

    #[test]
    fn a_voter_that_never_answered_the_leader() {
        let leader = answer("leader", 3, [(OWN, true, Some(10)), (2, true, Some(0))]);
        let expected = Membership::Voter { acknowledged: false };
        assert_eq!(membership(&[Some(leader)], OWN), expected);
    }

    #[test]
    fn a_voter_whose_entries_the_leader_remembers() {
        let leader = answer("leader", 3, [(OWN, true, Some(4)), (2, true, Some(0))]);
        let expected = Membership::Voter { acknowledged: true };
        assert_eq!(membership(&[Some(leader)], OWN), expected);
    }

    #[test]
    fn the_later_term_is_believed() {
        let before = answer("leader", 3, [(OWN, true, None), (2, true, None)]);
        let after = answer("follower", 4, [(2, true, None)]);
        assert_eq!(membership(&[Some(before), Some(after)], OWN), Membership::Outside);
    }

    #[test]
    fn in_one_term_the_leader_is_believed() {
        let leader = answer("leader", 3, [(OWN, false, Some(2))]);
        let follower = answer("follower", 3, [(2, true, None)]);
        let expected = Membership::Learner { acknowledged: true };
        assert_eq!(membership(&[Some(leader), Some(follower)], OWN), expected);
    }

    fn answer<const N: usize>(
        role: &str,
        term: u64,
        members: [(NodeId, bool, Option<u64>); N],
    ) -> HostedGroup {
        let members = members.map(|(node_id, voter, lag)| GroupMember { node_id, voter, lag });
        HostedGroup {
            role: role.to_owned(),
            term,
            last_index: 10,
            members: members.into(),
            ..HostedGroup::default()
        }
    }
}
