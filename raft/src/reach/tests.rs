use super::*;

#[test]
fn most_of_the_other_voters_must_complain() {
    let lags = |lags: &[(NodeId, u64)]| lags.iter().copied().collect::<BTreeMap<_, _>>();
    let three = lags(&[(2, 9), (3, 4)]);
    let five = lags(&[(2, 9), (3, 4), (4, 0), (5, 7)]);
    type Case<'a> = (&'a BTreeMap<NodeId, u64>, &'a [NodeId], Option<NodeId>);
    let alone = BTreeMap::new();
    let cases: [Case<'_>; 9] = [
        (&three, &[], None),
        (&three, &[2], None),
        (&three, &[2, 3], Some(3)),
        (&three, &[2, 7], None),
        (&five, &[2, 3], None),
        (&five, &[2, 3, 5], Some(3)),
        (&five, &[2, 3, 4, 5], Some(4)),
        (&alone, &[], None),
        (&alone, &[7], None),
    ];
    for (others, complaining, expected) in cases {
        let complaining = complaining.iter().copied().collect();
        assert_eq!(successor(others, &complaining), expected, "{others:?} {complaining:?}");
    }
}

#[test]
fn a_complaint_counts_while_it_is_repeated() {
    let complaints = Complaints::default();
    let start = Instant::now();
    complaints.note(2, true, start);
    complaints.note(3, true, start + FRESH);
    assert_eq!(complaints.current(start + FRESH), BTreeSet::from([2, 3]));
    let late = start + FRESH + Duration::from_millis(1);
    assert_eq!(complaints.current(late), BTreeSet::from([3]));
    complaints.note(3, false, late);
    assert_eq!(complaints.current(late), BTreeSet::new());
}

#[test]
fn a_leader_is_told_after_misses_in_a_row() {
    let failed_probes = FailedProbes::default();
    let (missed, reached) = (BTreeMap::from([(2, false)]), BTreeMap::from([(2, true)]));
    for _ in 1..PROBES_BEFORE_COMPLAINT {
        failed_probes.note(&missed);
    }
    assert!(!failed_probes.is_unreachable(2));
    failed_probes.note(&reached);
    for _ in 0..PROBES_BEFORE_COMPLAINT {
        assert!(!failed_probes.is_unreachable(2));
        failed_probes.note(&missed);
    }
    assert!(failed_probes.is_unreachable(2) && !failed_probes.is_unreachable(3));
    failed_probes.note(&BTreeMap::new());
    assert!(!failed_probes.is_unreachable(2), "it is not followed any more");
}
