use proto::quorate::v1::{NodeState, SetNodeState, registry_command::Command};

use super::*;

#[test]
fn mass_silence_freezes_expiry_before_the_first_is_lost() {
    let mut it = Leases::with(40);
    let heard: Vec<u64> = (1..=30).collect();
    it.keep(&(1..=40).collect::<Vec<_>>(), secs(30));
    it.keep(&heard, secs(120));
    assert_eq!(it.ended, Vec::<u64>::new());
    assert_eq!(it.table.frozen(), Some(&Frozen { missing: 10, total: 40, zone: None }));
    assert_eq!(it.silent(), (31..=40).collect::<Vec<_>>());

    // Half of them are back, so too few are missing for the latch. The missing ones end one by one.
    let heard: Vec<u64> = (1..=36).collect();
    it.keep(&heard, secs(140));
    assert_eq!(it.table.frozen(), None);
    assert_eq!(it.silent(), [37, 38, 39, 40]);
    it.keep(&heard, secs(200));
    assert_eq!(it.ended, [37, 38, 39, 40]);
}

#[test]
fn deaths_one_after_the_other_within_a_lease_time_are_a_mass() {
    let mut it = Leases::with(20);
    let mut heard: Vec<u64> = (1..=20).collect();
    for _ in 0..6 {
        heard.pop();
        let until = it.now + secs(2);
        it.keep(&heard, until);
    }
    let until = it.now + secs(60);
    it.keep(&heard, until);
    assert!(it.ended.len() <= 3, "{:?}", it.ended);
    assert!(it.table.frozen().is_some());
}

#[test]
fn zone_that_falls_silent_freezes_expiry() {
    let mut it = Leases::default();
    for lease_id in 1..=40 {
        it.register(lease_id, if lease_id <= 5 { "b" } else { "a" });
    }
    it.keep(&(4..=40).collect::<Vec<_>>(), secs(60));
    let zone = Some(Locality { region: String::new(), zone: "b".into() });
    assert_eq!(it.table.frozen(), Some(&Frozen { missing: 3, total: 5, zone }));
    assert_eq!(it.ended, Vec::<u64>::new());
}

#[test]
fn deregistering_the_missing_lifts_the_latch() {
    let mut it = Leases::with(10);
    it.keep(&[1, 2, 3, 4, 5, 6, 7], secs(30));
    assert!(it.table.frozen().is_some());
    for id in ["i8", "i9", "i10"] {
        it.mesh.deregister("orders", id).unwrap();
        it.table.follow(&it.mesh.registry, &it.mesh.outcome, it.now);
    }
    it.keep(&[1, 2, 3, 4, 5, 6, 7], secs(60));
    assert_eq!(it.table.frozen(), None);
    assert_eq!(it.ended, Vec::<u64>::new());
}

#[test]
fn owners_who_said_that_they_stop_are_no_mass() {
    let mut it = Leases::with(7);
    for lease_id in 1..=3 {
        it.drain(lease_id);
    }
    it.keep(&[4, 5, 6, 7], secs(20));
    assert_eq!((&it.ended[..], it.table.frozen()), (&[1, 2, 3][..], None));
    it.keep(&[5, 6, 7], secs(40));
    assert_eq!(it.ended, [1, 2, 3, 4], "one that dies later ends in its time");
}

#[test]
fn what_was_announced_ends_also_while_the_latch_holds() {
    let mut it = Leases::default();
    for node_id in 1..=7 {
        it.node(node_id);
    }
    let state = NodeState::Stopping.into();
    it.run(Command::SetNodeState(SetNodeState { node_id: 1, lease_id: 1, state }));
    it.keep(&[5, 6, 7], secs(30));
    assert!(it.table.frozen().is_some());
    assert_eq!(it.ended, [1]);
    it.elect();
    assert_eq!(it.table.len(), 6, "the next leader counts the others");
}

#[test]
fn zone_that_comes_back_within_the_patience_loses_nobody() {
    let mut it = Leases::default();
    for lease_id in 1..=100 {
        it.register(lease_id, if lease_id <= 30 { "b" } else { "a" });
    }
    let all: Vec<u64> = (1..=100).collect();
    it.keep(&all, secs(10));
    it.keep(&all[30..], secs(100));
    assert_eq!(it.silent(), &all[..30]);
    it.keep(&all, secs(300));
    assert_eq!((&it.ended[..], &it.silent()[..]), (&[][..], &[][..]));
    assert_eq!(it.table.frozen(), None);
}
