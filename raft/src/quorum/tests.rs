use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_quorum_is_judged_by_its_age_and_by_who_is_there() {
    let bounds = Bounds::of(&Timing::production());
    let table = [
        // Age in tenths of a second, voters, and how many of them were heard.
        ((0, 3, 3), Quorum::Held),
        ((0, 3, 1), Quorum::Held),
        ((24, 3, 1), Quorum::Held),
        ((30, 3, 1), Quorum::Held),
        ((31, 3, 1), Quorum::Lost),
        ((31, 3, 2), Quorum::Electing),
        ((96, 3, 3), Quorum::Electing),
        ((97, 3, 3), Quorum::Lost),
        ((900, 3, 3), Quorum::Lost),
        // An even number needs one more than half.
        ((31, 2, 1), Quorum::Lost),
        ((31, 2, 2), Quorum::Electing),
        ((31, 4, 2), Quorum::Lost),
        ((31, 5, 3), Quorum::Electing),
        ((31, 1, 1), Quorum::Electing),
        // Without a membership there are no voters to count.
        ((31, 0, 0), Quorum::Lost),
    ];
    for ((tenths, voters, heard), expected) in table {
        let age = Duration::from_millis(100) * tenths;
        assert_eq!(bounds.judge(age, voters, heard), expected, "{tenths} {voters} {heard}");
    }
}

#[test]
fn of_two_quorums_the_later_counts() {
    let start = Instant::now();
    let mut heard = ContactTimes::new(start);
    heard.note_quorum(start + 5 * SECOND);
    heard.note_quorum(start + 2 * SECOND);
    assert_eq!(heard.quorum, Some(start + 5 * SECOND));
}

#[test]
fn the_age_of_a_quorum_goes_on_from_what_was_said_of_it() {
    let start = Instant::now();
    let mut heard = ContactTimes::new(start);
    let ages = heard.ages(start + 10 * SECOND);
    assert_eq!((ages.age, ages.without), (None, 10 * SECOND));
    // Told at 10 s by a leader whose last quorum was 4 s old.
    heard.note_quorum(start + 6 * SECOND);
    heard.note_member(7, start + 10 * SECOND);
    let ages = heard.ages(start + 12 * SECOND);
    assert_eq!((ages.age, ages.without), (Some(6 * SECOND), 6 * SECOND));
    assert_eq!(ages.members, BTreeMap::from([(7, 2 * SECOND)]));
}

#[test]
fn the_reason_says_since_when_and_who_is_silent() {
    let mut reason = NoQuorum {
        age: Some(12 * SECOND),
        without: 12 * SECOND,
        voters: vec![
            VoterHeard { node_id: 1, heard: VoterContact::Own },
            VoterHeard { node_id: 2, heard: VoterContact::Ago(13 * SECOND) },
            VoterHeard { node_id: 3, heard: VoterContact::Never },
        ],
    };
    assert_eq!(
        reason.to_string(),
        "no quorum: last heard from a majority 12 s ago; voters: 0000000000000001 (this server), \
         0000000000000002 (heard 13 s ago), 0000000000000003 (not heard)"
    );
    reason.age = None;
    reason.voters.clear();
    let expected = "no quorum: heard from no majority since the start 12 s ago";
    assert_eq!(reason.to_string(), expected);
}
