use super::*;
use crate::types::log_id;

const MEMBER: Source = Source::Member(3);

/// The last index of the candidate's log, whether an operator accepted the loss, the claims of
/// others, and the claim that keeps the candidate from standing.
type Case = (&'static str, u64, bool, &'static [(Source, u64)], Option<(Source, u64)>);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("nobody answers", 10, false, &[], None),
    ("everybody knows as much", 10, false, &[(MEMBER, 10), (Source::Memory, 10)], None),
    ("the others are behind", 10, false, &[(MEMBER, 3), (Source::Memory, 9)], None),
    ("a blank group", 0, false, &[(MEMBER, 0)], None),
    ("a member knows more", 10, false, &[(MEMBER, 11)], Some((MEMBER, 11))),
    ("only memory knows more", 10, false, &[(MEMBER, 10), (Source::Memory, 12)], Some((Source::Memory, 12))),
    ("the furthest claim is named", 10, false, &[(MEMBER, 11), (Source::Memory, 12)], Some((Source::Memory, 12))),
    ("a lost entry that memory knows of is accepted", 10, true, &[(Source::Memory, 12)], None),
    ("a member that has the entries is not overruled", 10, true, &[(MEMBER, 11), (Source::Memory, 12)], Some((MEMBER, 11))),
];

#[test]
fn a_log_that_ends_before_a_committed_entry_does_not_lead() {
    for (name, last_index, accepted, claims, expected) in CASES {
        let claims: Vec<_> = claims.iter().map(|it| claim(*it)).collect();
        let expected = expected.map(|it| Shortfall { last_index: *last_index, claim: claim(it) });
        assert_eq!(shortfall(*last_index, *accepted, &claims), expected, "{name}");
    }
}

#[test]
fn the_last_entry_at_or_below_the_committed_one_is_compared() {
    let prev = log_id(1, 4);
    let entries = [log_id(1, 5), log_id(2, 6), log_id(2, 7)];
    let at = |committed| compared(Some(&prev), entries.iter(), log_id(2, committed));
    assert_eq!(at(3), None);
    assert_eq!(at(4), Some(prev));
    assert_eq!(at(6), Some(entries[1]));
    assert_eq!(at(9), Some(entries[2]));
    assert_eq!(compared(None, [].iter(), log_id(2, 9)), None);
}

#[test]
fn a_leader_may_not_replace_a_committed_entry() {
    let committed = log_id(3, 10);
    let found = |theirs, ours| contradiction(theirs, ours, committed).is_some();
    assert!(!found(committed, Some(committed)));
    assert!(found(log_id(4, 10), Some(committed)));
    assert!(!found(log_id(2, 8), Some(log_id(2, 8))));
    assert!(found(log_id(1, 8), Some(log_id(2, 8))));
    assert!(!found(log_id(3, 2), None), "gone from the log here, and possible");
    assert!(found(log_id(4, 2), None), "gone from the log here, and impossible");
}

#[test]
fn a_doubt_says_what_is_missing_and_what_to_do() {
    let text = shortfall(10, false, &[claim((Source::Memory, 12))]).unwrap().to_string();
    assert!(text.contains("up to 12") && text.contains("--accept-loss NAMESPACE@10"), "{text}");
    let text = shortfall(10, false, &[claim((MEMBER, 11))]).unwrap().to_string();
    assert!(text.contains("0000000000000003") && text.contains("nothing is lost"), "{text}");
    let found = contradiction(log_id(4, 9), Some(log_id(3, 9)), log_id(3, 10)).unwrap();
    assert!(found.to_string().contains("up to entry 10"), "{found}");
}

fn claim((source, committed): (Source, u64)) -> Claim {
    Claim { source, committed }
}
