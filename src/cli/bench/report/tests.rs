use super::*;

#[test]
fn percentiles_are_durations_that_occurred() {
    let of =
        |millis: &[u64]| Spread::of(millis.iter().map(|it| Duration::from_millis(*it)).collect());
    assert_eq!(of(&[]), Spread::default());
    assert_eq!(of(&[7]), Spread { p50: 7.0, p99: 7.0, max: 7.0 });
    assert_eq!(of(&[4, 1, 3, 2]), Spread { p50: 2.0, p99: 4.0, max: 4.0 });
    let hundred: Vec<u64> = (1..=200).collect();
    assert_eq!(of(&hundred), Spread { p50: 100.0, p99: 198.0, max: 200.0 });
}

#[test]
fn costs_are_told_by_client_and_by_change() {
    let usage = |millis, resident_kib| Usage { cpu: Duration::from_millis(millis), resident_kib };
    let phase = Phase {
        took: Duration::from_secs(2),
        traffic: Traffic { responses: 40, bytes: 4_000 },
        server: Some((usage(100, 1_000), usage(300, 1_500))),
        bench_cpu: Duration::from_millis(50),
    };
    let sync = FirstSync::of(&phase, vec![Duration::from_millis(9)], 10);
    assert_eq!((sync.synced, sync.took_ms, sync.bytes_a_client), (1, 9.0, 400));
    assert_eq!((sync.server_cpu_ms, sync.server_kib_a_client), (Some(200.0), Some(50.0)));
    assert_eq!(Watch::of(&phase).server_cpu_percent, Some(10.0));
    let made = Made { made: 4, took: Duration::from_secs(1), ..Made::default() };
    let outcome = Outcome { arrivals: vec![Duration::ZERO; 40], ..Outcome::default() };
    let changes = Changes::of(&phase, made, outcome);
    assert_eq!((changes.made_a_second, changes.server_cpu_ms_a_change), (4.0, Some(50.0)));
    assert_eq!(changes.bytes_a_client_and_change, 100.0);
    let unknown = Phase { server: None, ..phase };
    assert_eq!(FirstSync::of(&unknown, Vec::new(), 10).server_cpu_ms, None);
}

#[test]
fn whoever_is_lost_or_late_shows() {
    let mut report = report();
    assert!(report.is_whole());
    report.lost.late = 1;
    report.lost.reasons = [("too busy".to_owned(), 2), ("refused".to_owned(), 5)].into();
    assert!(!report.is_whole());
    let shown = table(&report);
    let (refused, busy) = (shown.find("5 × refused").unwrap(), shown.find("2 × too busy").unwrap());
    assert!(refused < busy, "the most frequent first: {shown}");
}

fn report() -> Report {
    let phase = Phase {
        took: Duration::from_secs(1),
        traffic: Traffic::default(),
        server: None,
        bench_cpu: Duration::ZERO,
    };
    Report {
        variant: "delta",
        servers: vec!["127.0.0.1:7400".to_owned()],
        clients: 1,
        connections: 1,
        clusters: 1,
        registration: None,
        first_sync: FirstSync::of(&phase, Vec::new(), 1),
        watch: None,
        changes: None,
        lost: Lost::default(),
        bare_writes: None,
    }
}
