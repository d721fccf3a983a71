use super::*;

#[test]
fn a_change_has_reached_all_when_the_last_watcher_has_it() {
    let ledger = Ledger::new(2, 1, true);
    ledger.watch(&[0]);
    ledger.watch(&[0]);
    let (mut one, mut other) = (Seen::default(), Seen::default());
    let stamp = ledger.begin(0, 1_000);
    assert!(!ledger.arrive(0, stamp, &mut one, 1_500));
    assert!(!ledger.arrive(0, stamp, &mut one, 1_600), "the same again is no arrival");
    assert_eq!(ledger.open(), 1);
    assert!(ledger.arrive(0, stamp, &mut other, 3_000));
    assert_eq!(
        ledger.outcome(),
        Outcome {
            to_last: vec![micros(2_000)],
            arrivals: vec![micros(500), micros(2_000)],
            incomplete: 0
        }
    );
}

#[test]
fn an_arrival_counts_for_the_change_that_it_shows_and_for_those_that_it_overtook() {
    let ledger = Ledger::new(3, 1, true);
    ledger.watch(&[0]);
    let mut seen = Seen::default();
    let stamps: Vec<u32> =
        [100, 200, 300].into_iter().zip(0..).map(|(at, k)| ledger.begin(k, at)).collect();
    assert!(ledger.arrive(0, stamps[1], &mut seen, 1_000));
    assert_eq!(ledger.open(), 1);
    let outcome = ledger.outcome();
    assert_eq!(outcome.arrivals, [micros(900), micros(800)]);
    assert!(!ledger.arrive(0, stamps[0], &mut seen, 1_100), "an older one comes too late");
    assert!(ledger.arrive(0, stamps[2], &mut seen, 1_200));
}

#[test]
fn what_is_not_ours_is_not_counted() {
    let ledger = Ledger::new(4, 2, true);
    ledger.watch(&[0, 1]);
    let mut seen = Seen::default();
    assert!(!ledger.arrive(0, 0, &mut seen, 10), "an assignment without weights");
    assert!(!ledger.arrive(0, 1, &mut seen, 10), "before the first change");
    ledger.begin(0, 20);
    assert!(!ledger.arrive(0, 77, &mut seen, 30), "a stamp of no change so far");
    assert!(!ledger.arrive(9, 2, &mut seen, 30), "a name that does not change");
    assert_eq!(ledger.outcome().arrivals, []);
}

#[test]
fn stamps_go_round() {
    let ledger = Ledger::new(600, 2, true);
    ledger.watch(&[1]);
    let mut seen = Seen::default();
    for change in (1..600).step_by(2) {
        let stamp = ledger.begin(change, u64::from(change));
        assert!((2..=128).contains(&stamp));
        assert!(ledger.arrive(1, stamp, &mut seen, u64::from(change) + 5), "change {change}");
    }
    let outcome = ledger.outcome();
    assert_eq!((outcome.to_last.len(), outcome.incomplete), (300, 0));
    assert!(outcome.arrivals.iter().all(|it| *it == micros(5)));
}

#[test]
fn without_stamps_whatever_comes_counts_for_the_latest_change() {
    let ledger = Ledger::new(2, 1, false);
    ledger.watch(&[0]);
    let mut seen = Seen::default();
    assert!(!ledger.arrive(0, 0, &mut seen, 10));
    ledger.begin(0, 20);
    assert!(ledger.arrive(0, 0, &mut seen, 30));
    assert!(!ledger.arrive(0, 0, &mut seen, 40), "a second response is no second arrival");
}

#[test]
fn who_has_left_is_not_waited_for() {
    let ledger = Ledger::new(1, 1, true);
    ledger.watch(&[0]);
    ledger.watch(&[0]);
    let stamp = ledger.begin(0, 0);
    ledger.arrive(0, stamp, &mut Seen::default(), 7);
    assert!(!ledger.reached(0));
    ledger.leave(&[0]);
    assert!(ledger.reached(0));
}

fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}
