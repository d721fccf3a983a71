use proto::quorate::v1::{Health, SetInstanceHealth, registry_command::Command};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::registry::tests::TERM;

#[test]
fn the_last_of_a_service_is_kept_as_silent_for_an_hour() {
    let mut it = Leases::with(2);
    it.register_in("carts", 3);
    it.keep(&[3], secs(30));
    assert_eq!((&it.ended[..], &it.silent()[..]), (&[1][..], &[2][..]));
    it.keep(&[3], HOLD);
    assert_eq!(it.ended, [1]);
    it.keep(&[3], HOLD + secs(20));
    assert_eq!(it.ended, [1, 2]);
}

#[test]
fn silence_takes_half_of_a_service_and_the_rest_slowly() {
    let mut it = Leases::default();
    for lease_id in 1..=8 {
        it.register_in("orders", lease_id);
    }
    let others: Vec<u64> = (101..=200).collect();
    for lease_id in &others {
        it.register_in("carts", *lease_id);
    }
    it.keep(&others, secs(100));
    assert_eq!((it.ended.len(), it.silent().len()), (4, 4));
    it.keep(&others, PATIENCE + secs(30));
    assert_eq!((it.ended.len(), it.silent().len()), (6, 2));
    it.keep(&others, 3 * PATIENCE);
    assert_eq!((it.ended.len(), it.silent().len()), (7, 1));
}

#[test]
fn who_is_not_routed_to_anyway_needs_no_floor() {
    let mut it = Leases::with(1);
    it.run(Command::SetInstanceHealth(SetInstanceHealth {
        service: "orders".to_owned(),
        id: "i1".to_owned(),
        lease_id: 1,
        health: Health::Unhealthy.into(),
        ..SetInstanceHealth::default()
    }));
    assert_eq!(it.run_to(secs(10)), [1]);
}

/// A host with 40 of 200 dies for good, and 40 new ones come.
#[test]
fn what_died_for_good_ends_at_a_bounded_rate_oldest_first() {
    let mut it = Leases::with(200);
    let all: Vec<u64> = (1..=200).collect();
    it.keep(&all, secs(20));
    let died = it.now;
    // Five of them fall silent a little later than the others.
    let heard: Vec<u64> = (1..=165).collect();
    it.keep(&heard, died + secs(4));
    let heard: Vec<u64> = (1..=160).chain(201..=240).collect();
    for lease_id in 201..=240 {
        it.register(lease_id, "a");
    }
    it.keep(&heard, died + secs(60));
    assert_eq!(it.ended, Vec::<u64>::new());
    assert_eq!(it.silent(), (161..=200).collect::<Vec<_>>());
    let mut before = 0;
    while it.ended.len() < 40 {
        let until = it.now + secs(1);
        it.keep(&heard, until);
        assert!(it.ended.len() <= before + 2, "{} at once", it.ended.len() - before);
        before = it.ended.len();
        assert!(it.now < died + PATIENCE + secs(90), "{} ended", it.ended.len());
    }
    let last: BTreeSet<u64> = it.ended[35..].iter().copied().collect();
    assert_eq!(last, (161..=165).collect(), "the newest failures come last");
    it.keep(&heard, died + 2 * PATIENCE);
    assert_eq!(it.ended.len(), 40);
}

#[test]
fn nothing_ends_while_nobody_at_all_is_heard() {
    let mut it = Leases::with(10);
    it.run_to(2 * HOLD);
    assert_eq!((it.ended.len(), it.silent().len()), (0, 10));
}

#[test]
fn nothing_ends_while_more_and_more_fall_silent() {
    let mut it = Leases::with(100);
    for silent in 1..=4 {
        let heard: Vec<u64> = (20 * silent + 1..=100).collect();
        let until = it.now + secs(60);
        it.keep(&heard, until);
    }
    assert!(it.ended.is_empty(), "{:?}", it.ended);
}

#[test]
fn next_leader_knows_who_is_silent_and_hears_who_comes_back() {
    let mut it = Leases::with(10);
    it.keep(&[1, 2, 3, 4, 5], secs(30));
    assert_eq!(it.silent(), [6, 7, 8, 9, 10]);
    it.elect();
    assert_eq!(it.table.silent(), 5);
    it.keep(&[1, 2, 3, 4, 5, 6, 7], secs(31));
    assert_eq!(it.silent(), [8, 9, 10]);
    it.keep(&[1, 2, 3, 4, 5, 6, 7], secs(31) + PATIENCE + secs(10));
    assert_eq!(it.ended, [8, 9, 10]);
}

#[test]
fn a_mark_that_comes_too_late_is_taken_back() {
    let mut it = Leases::with(3);
    it.drop_proposals = true;
    it.run_to(secs(10));
    it.drop_proposals = false;
    // The mark was proposed but not applied when the owner renewed.
    it.table.renew(1, it.now);
    let granted_index = it.mesh.registry.grant(1).unwrap().granted_index;
    let mark = LeaseMark { lease_id: 1, granted_index, silent: true };
    it.run(Proposal::Mark(vec![mark]).into_command(TERM).command.unwrap());
    assert_eq!(it.silent(), [1]);
    it.keep(&[1], secs(12));
    assert!(!it.silent().contains(&1), "{:?}", it.silent());
}

/// Whichever owners die, and whenever: of the instances that a service had one patience ago at
/// least half stay, and at least one within the hold time.
#[test]
fn silence_never_takes_too_much_at_once() {
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut it = Leases::default();
        let count = random.random_range(6..40);
        let service = |lease_id: u64| format!("s{}", lease_id % 4);
        for lease_id in 1..=count {
            it.register_in(&service(lease_id), lease_id);
        }
        let mut heard: BTreeSet<u64> = (1..=count).collect();
        let mut living: Vec<BTreeMap<String, usize>> = Vec::new();
        while it.now < secs(600) {
            if random.random_bool(0.1) {
                let dying = random.random_range(1..=count);
                heard.retain(|id| *id == 1 || id % dying != 0 || random.random_bool(0.5));
            }
            let until = it.now + secs(1);
            it.keep(&heard.iter().copied().collect::<Vec<_>>(), until);
            let mut now: BTreeMap<String, usize> = BTreeMap::new();
            for instance in it.mesh.registry.instances().filter(|it| it.is_live()) {
                *now.entry(instance.service.clone()).or_default() += 1;
            }
            let window = usize::try_from(PATIENCE.as_secs()).unwrap() - 10;
            let earlier = &living[living.len().saturating_sub(window)..];
            for before in earlier {
                for (service, had) in before {
                    let has = now.get(service).copied().unwrap_or(0);
                    assert!(has * 2 >= *had && has > 0, "seed {seed}: {service}: {had} to {has}");
                }
            }
            living.push(now);
            assert!(it.ended.iter().all(|id| !heard.contains(id)), "seed {seed}");
        }
    }
}
