use proto::quorate::v1::{GroupMember, ReplicaProgress};

use super::*;

const OWN: NodeId = 1;

#[test]
fn nobody_answers() {
    assert_eq!(RecallAnswers::default().membership(OWN), Membership::Unknown);
}

#[test]
fn the_others_are_blank_too() {
    let blank = HostedGroup::default();
    assert_eq!(answers([None, Some(blank)]).membership(OWN), Membership::Unformed);
}

#[test]
fn a_voter_that_never_answered_the_leader() {
    let leader = answer("leader", 3, [(OWN, true, Some(10)), (2, true, Some(0))]);
    let expected = Membership::Voter { acknowledged: false };
    assert_eq!(answers([Some(leader)]).membership(OWN), expected);
}

#[test]
fn a_voter_whose_entries_the_leader_remembers() {
    let leader = answer("leader", 3, [(OWN, true, Some(4)), (2, true, Some(0))]);
    let expected = Membership::Voter { acknowledged: true };
    assert_eq!(answers([Some(leader)]).membership(OWN), expected);
}

#[test]
fn the_later_term_is_believed() {
    let before = answer("leader", 3, [(OWN, true, None), (2, true, None)]);
    let after = answer("follower", 4, [(2, true, None)]);
    let answers = answers([Some(before), Some(after)]);
    assert_eq!(answers.membership(OWN), Membership::Outside);
}

#[test]
fn in_one_term_the_leader_is_believed() {
    let leader = answer("leader", 3, [(OWN, false, Some(2))]);
    let follower = answer("follower", 3, [(2, true, None)]);
    let expected = Membership::Learner { acknowledged: true };
    let answers = answers([Some(leader), Some(follower)]);
    assert_eq!(answers.membership(OWN), expected);
}

#[test]
fn a_leader_that_has_more_of_ours_than_we_do_knows_better() {
    let leader = || answer("leader", 3, [(OWN, true, Some(2)), (2, true, Some(0))]);
    assert_eq!(later(leader(), 3, 8), None);
    assert_eq!(later(leader(), 3, 9), None);
    let expected = LostProgress::Entries { acknowledged: 8, last_index: 7 };
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
    let expected = LostProgress::Term { voted: 3, remembered: 2, last_index: 9 };
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
    let expected = LostProgress::Term { voted: 5, remembered: 4, last_index: 9 };
    assert_eq!(later(follower(), 4, 9), Some(expected));
    let of_another = HostedGroup { voted_for: 2, ..follower() };
    assert_eq!(later(of_another, 4, 9), None);
}

#[test]
fn who_says_nothing_knows_nothing() {
    let stored = StoredReplica { term: 1, last_index: 1, is_blank: false };
    let blank = Some(HostedGroup::default());
    assert_eq!(answers([None, blank]).later(OWN, stored), None);
    assert_eq!(RecallAnswers::default().later(OWN, stored), None);
}

/// D2: two of three disks were restored while the third server is down; only DISCO remembers.
#[test]
fn what_disco_remembers_of_the_replica_is_believed() {
    let progress = || GroupProgress {
        replicas: vec![ReplicaProgress { node_id: OWN, term: 3, index: 8 }],
        ..GroupProgress::default()
    };
    let answers = RecallAnswers { remembered: vec![progress()], ..RecallAnswers::default() };
    let later = |term, last_index| answers.later(OWN, stored(term, last_index));
    assert_eq!(later(3, 8), None);
    assert_eq!(later(9, 80), None);
    let committed = LostProgress::Committed { acknowledged: 8, last_index: 7 };
    assert_eq!(later(9, 7), Some(committed), "what is committed is not replaced by later terms");
    let term = LostProgress::Term { voted: 3, remembered: 2, last_index: 8 };
    assert_eq!(later(2, 8), Some(term));
    assert_eq!(answers.later(OWN + 1, stored(1, 1)), None);
}

#[test]
fn every_answer_claims_what_it_knows_to_be_committed() {
    let member = HostedGroup { committed_index: 7, ..HostedGroup::default() };
    let progress = GroupProgress { committed_index: 9, ..GroupProgress::default() };
    let answers =
        RecallAnswers { members: vec![(2, Some(member)), (3, None)], remembered: vec![progress] };
    let expected = [
        Claim { source: Source::Member(2), committed: 7 },
        Claim { source: Source::Memory, committed: 9 },
    ];
    assert_eq!(answers.claims(), expected);
}

fn later(answer: HostedGroup, term: u64, last_index: u64) -> Option<LostProgress> {
    answers([Some(answer)]).later(OWN, stored(term, last_index))
}

fn stored(term: u64, last_index: u64) -> StoredReplica {
    StoredReplica { term, last_index, is_blank: false }
}

fn answers<const N: usize>(hosted: [Option<HostedGroup>; N]) -> RecallAnswers {
    let members = (2..).zip(hosted).collect();
    RecallAnswers { members, remembered: Vec::new() }
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
