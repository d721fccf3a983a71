use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh::{Member, NodeId};
use raft::{MemberStatus, Quorum, Role, Status};

use super::{Advice, AdvisedNode, Presence, Reason, Step, next_step};

const PATIENCE: Duration = Duration::from_secs(600);
const LONG: Presence = Presence::Down(PATIENCE);
const SHORT: Presence = Presence::Down(Duration::from_secs(599));

#[test]
fn nothing_to_do_for_a_full_group() {
    let status = leader([voter(1), voter(2), voter(3), learner(4, 0)]);
    assert_eq!(step(&status, &advice([1, 2, 3, 4])), None);
}

#[test]
fn only_the_leader_acts() {
    let mut status = leader([voter(1)]);
    let advice = advice([1, 2, 3]);
    assert!(step(&status, &advice).is_some());
    for role in [Role::Follower, Role::Learner, Role::Candidate, Role::Stopped] {
        status.role = role;
        assert_eq!(step(&status, &advice), None, "{role:?}");
    }
}

#[test]
fn without_advice_nothing_changes() {
    let status = leader([voter(1), voter(2), voter(3), learner(4, 0)]);
    assert_eq!(next_step(&status, None, PATIENCE), None);
}

#[test]
fn a_joint_membership_is_finished_first() {
    let mut status = leader([voter(1), voter(2), voter(3), voter(4)]);
    status.joint = true;
    let expected = Some(set([1, 2, 3, 4], Reason::FinishJoint));
    assert_eq!(next_step(&status, None, PATIENCE), expected);
    let advice = advice([1, 2, 3, 4, 5]).with(3, LONG);
    assert_eq!(step(&status, &advice), expected);
}

/// S6: DISCO and a node may be cut off from each other while the node still answers its group.
#[test]
fn a_voter_that_answers_its_leader_keeps_its_seat_whatever_disco_says() {
    let status = leader([voter(1), voter(2), voter(3), learner(4, 0)]);
    let down = || advice([1, 2, 3, 4]).with(3, LONG);
    let replaced = Some(set([1, 2, 4], Reason::Replace { dead: 3 }));
    let capped_by_silence = |heard: &[(NodeId, Duration)], leading_for| {
        step(&status, &down().capped_by_silence(&heard.iter().copied().collect(), leading_for))
    };
    let moment = Duration::from_millis(150);
    assert_eq!(capped_by_silence(&[(3, moment)], PATIENCE), None, "it answered a moment ago");
    assert_eq!(capped_by_silence(&[(3, PATIENCE)], PATIENCE), replaced);
    assert_eq!(capped_by_silence(&[], moment), None, "the leader has only begun to listen");
    assert_eq!(capped_by_silence(&[(2, moment)], PATIENCE), replaced);
}

#[test]
fn an_assigned_node_that_is_up_becomes_a_learner() {
    let status = leader([voter(1), voter(2), voter(3)]);
    let advice = advice([1, 2, 3, 4, 5]);
    assert_eq!(step(&status, &advice), Some(Step::AddLearner(member(4))));
}

#[test]
fn learners_are_added_one_at_a_time() {
    let status = leader([voter(1), voter(2), voter(3), learner(4, 9_000)]);
    let advice = advice([1, 2, 3, 4, 5]);
    assert_eq!(step(&status, &advice), Some(Step::AddLearner(member(5))));
}

#[test]
fn an_assigned_node_that_is_not_up_is_waited_for() {
    let status = leader([voter(1), voter(2), voter(3)]);
    for presence in [Presence::Away, SHORT, LONG] {
        let advice = advice([1, 2, 3, 4]).with(4, presence);
        assert_eq!(step(&status, &advice), None, "{presence:?}");
    }
    let mut unheard = advice([1, 2, 3, 4]);
    unheard.nodes.remove(&4);
    assert_eq!(step(&status, &unheard), None);
}

#[test]
fn a_single_voter_grows_to_three_in_one_change() {
    let status = leader([voter(1), learner(2, 0), learner(3, 0)]);
    let promoted = set([1, 2, 3], Reason::Promote);
    assert_eq!(step(&status, &advice([1, 2, 3])), Some(promoted));
}

#[test]
fn a_single_voter_does_not_grow_to_two_on_the_way_to_three() {
    let status = leader([voter(1), learner(2, 0), learner(3, 9_000)]);
    assert_eq!(step(&status, &advice([1, 2, 3])), None);
}

#[test]
fn two_voters_are_what_was_asked_for() {
    let status = leader([voter(1), learner(2, 0)]);
    let mut advice = advice([1, 2]);
    advice.voters_wanted = 2;
    assert_eq!(step(&status, &advice), Some(set([1, 2], Reason::Promote)));
}

#[test]
fn a_missing_third_voter_is_promoted() {
    let status = leader([voter(1), voter(2), learner(3, 9_000), learner(4, 12)]);
    let promoted = set([1, 2, 4], Reason::Promote);
    assert_eq!(step(&status, &advice([1, 2, 3, 4])), Some(promoted));
}

#[test]
fn a_learner_that_lags_or_is_away_is_not_promoted() {
    let status = leader([voter(1), voter(2), learner(3, 257)]);
    assert_eq!(step(&status, &advice([1, 2, 3])), None);

    let status = leader([voter(1), voter(2), learner(3, 0)]);
    assert_eq!(step(&status, &advice([1, 2, 3]).with(3, Presence::Away)), None);

    let mut status = leader([voter(1), voter(2), learner(3, 0)]);
    status.members[2].lag = None;
    assert_eq!(step(&status, &advice([1, 2, 3])), None);
}

#[test]
fn a_learner_with_another_store_is_not_promoted() {
    let mut status = leader([voter(1), voter(2), learner(3, 0)]);
    status.members[2].store_id = 999;
    assert_eq!(step(&status, &advice([1, 2, 3])), None);
}

#[test]
fn promotion_prefers_the_zone_with_the_fewest_voters() {
    let status = leader([voter(1), voter(2), learner(3, 0), learner(4, 0)]);
    let advice = advice([1, 2, 3, 4]).zone(1, "a").zone(2, "b").zone(3, "a").zone(4, "c");
    assert_eq!(step(&status, &advice), Some(set([1, 2, 4], Reason::Promote)));
}

#[test]
fn promoting_two_spreads_them_over_zones() {
    let status = leader([voter(1), learner(2, 0), learner(3, 0), learner(4, 0)]);
    let advice = advice([1, 2, 3, 4]).zone(1, "a").zone(2, "b").zone(3, "b").zone(4, "c");
    assert_eq!(step(&status, &advice), Some(set([1, 2, 4], Reason::Promote)));
}

#[test]
fn a_voter_that_is_down_for_long_is_swapped_for_a_learner() {
    let status = leader([voter(1), voter(2), voter(3), learner(4, 0)]);
    let advice = advice([1, 2, 3, 4]).with(3, LONG);
    let swapped = set([1, 2, 4], Reason::Replace { dead: 3 });
    assert_eq!(step(&status, &advice), Some(swapped));
}

#[test]
fn a_voter_is_not_swapped_before_its_time() {
    let status = leader([voter(1), voter(2), voter(3), learner(4, 0)]);
    for presence in [Presence::Up, Presence::Away, SHORT] {
        let advice = advice([1, 2, 3, 4]).with(3, presence);
        assert_eq!(step(&status, &advice), None, "{presence:?}");
    }
}

#[test]
fn a_voter_is_not_removed_without_a_replacement_that_has_the_data() {
    let alone = leader([voter(1), voter(2), voter(3)]);
    assert_eq!(step(&alone, &advice([1, 2, 3]).with(3, LONG)), None);

    let behind = leader([voter(1), voter(2), voter(3), learner(4, 9_000)]);
    assert_eq!(step(&behind, &advice([1, 2, 3, 4]).with(3, LONG)), None);

    let also_down = leader([voter(1), voter(2), voter(3), learner(4, 0)]);
    let advice = advice([1, 2, 3, 4]).with(3, LONG).with(4, SHORT);
    assert_eq!(step(&also_down, &advice), None);
}

#[test]
fn voters_are_replaced_one_at_a_time() {
    let members = [voter(1), voter(2), voter(3), voter(4), voter(5)];
    let status = leader(members.into_iter().chain([learner(6, 0), learner(7, 0)]));
    let mut advice = advice([1, 2, 3, 4, 5, 6, 7]).with(4, LONG).with(5, LONG);
    advice.voters_wanted = 5;
    let swapped = set([1, 2, 3, 5, 6], Reason::Replace { dead: 4 });
    assert_eq!(step(&status, &advice), Some(swapped));
}

#[test]
fn surplus_voters_keep_their_seats() {
    let status = leader([voter(1), voter(2), voter(3), voter(4)]);
    assert_eq!(step(&status, &advice([1, 2, 3, 4])), None);
    assert_eq!(step(&status, &advice([1, 2, 3])), None);
}

#[test]
fn a_surplus_voter_that_is_dead_loses_its_seat() {
    let status = leader([voter(1), voter(2), voter(3), voter(4)]);
    let advice = advice([1, 2, 3, 4]).with(3, LONG);
    let dropped = set([1, 2, 4], Reason::Replace { dead: 3 });
    assert_eq!(step(&status, &advice), Some(dropped));
}

#[test]
fn a_leader_does_not_remove_itself() {
    let status = leader([voter(1), voter(2), voter(3), learner(4, 0)]);
    assert_eq!(step(&status, &advice([1, 2, 3, 4]).with(1, LONG)), None);
}

#[test]
fn a_dead_learner_is_dropped_and_not_added_again() {
    let status = leader([voter(1), voter(2), voter(4), learner(3, 9_000)]);
    let advice = advice([1, 2, 3, 4]).with(3, LONG);
    assert_eq!(step(&status, &advice), Some(Step::Remove(3)));

    let status = leader([voter(1), voter(2), voter(4)]);
    assert_eq!(step(&status, &advice), None);
}

#[test]
fn a_learner_that_is_down_for_a_moment_stays() {
    let status = leader([voter(1), voter(2), voter(3), learner(4, 50)]);
    assert_eq!(step(&status, &advice([1, 2, 3, 4]).with(4, SHORT)), None);
}

#[test]
fn the_number_of_voters_never_falls() {
    for dead in 0_u32..16 {
        let mut advice = advice([1, 2, 3, 4]);
        for id in (1..=4).filter(|id| dead & (1 << (id - 1)) != 0) {
            advice = advice.with(id, LONG);
        }
        let status = leader([voter(1), voter(2), voter(3), learner(4, 0)]);
        if let Some(Step::SetVoters { voters, .. }) = step(&status, &advice) {
            assert_eq!(voters.len(), 3, "{dead:04b}");
        }
    }
}

#[test]
fn a_step_is_told_with_ids_as_people_read_them() {
    let voters = BTreeSet::from([1, 31]);
    let replace = Step::SetVoters { voters, reason: Reason::Replace { dead: 2 } };
    assert_eq!(
        replace.to_string(),
        "set voters 0000000000000001, 000000000000001f, since 0000000000000002 is dead"
    );
}

fn step(status: &Status, advice: &Advice) -> Option<Step> {
    next_step(status, Some(advice), PATIENCE)
}

fn set<const N: usize>(voters: [NodeId; N], reason: Reason) -> Step {
    Step::SetVoters { voters: voters.into(), reason }
}

fn leader(members: impl IntoIterator<Item = MemberStatus>) -> Status {
    Status {
        role: Role::Leader,
        term: 1,
        voted_for: 1,
        leader: Some(1),
        last_index: 10_000,
        committed: 10_000,
        applied: 10_000,
        members: members.into_iter().collect(),
        membership_log_id: Some((1, 1)),
        joint: false,
        quorum: Quorum::Held,
        quorum_age: Some(Duration::ZERO),
        without_quorum: Duration::ZERO,
        doubt: None,
        purged: 0,
    }
}

fn voter(node_id: NodeId) -> MemberStatus {
    MemberStatus { voter: true, ..learner(node_id, 0) }
}

fn learner(node_id: NodeId, lag: u64) -> MemberStatus {
    MemberStatus {
        node_id,
        store_id: member(node_id).store_id,
        voter: false,
        lag: Some(lag),
        heard: None,
        is_heard: true,
    }
}

fn member(node_id: NodeId) -> Member {
    Member { node_id, store_id: 100 + node_id }
}

/// Three voters wanted, everybody up, all in one zone.
fn advice<const N: usize>(replicas: [NodeId; N]) -> Advice {
    let up = AdvisedNode { presence: Presence::Up, zone: String::new() };
    Advice {
        replicas: replicas.into_iter().map(member).collect(),
        voters_wanted: 3,
        nodes: replicas.into_iter().map(|id| (id, up.clone())).collect::<BTreeMap<_, _>>(),
    }
}

impl Advice {
    fn with(mut self, id: NodeId, presence: Presence) -> Self {
        self.nodes.get_mut(&id).unwrap().presence = presence;
        self
    }

    fn zone(mut self, id: NodeId, zone: &str) -> Self {
        self.nodes.get_mut(&id).unwrap().zone = zone.to_owned();
        self
    }
}
