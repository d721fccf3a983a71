use proto::quorate::v1::{
    Health, Locality as WireLocality, NodeState, SetInstanceHealth, SetNodeState,
    registry_command::Command,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::registry::DEFAULT_TTL;
use crate::registry::tests::{Mesh, TERM, instance, node};

#[test]
fn renewal_moves_the_deadline() {
    let mut it = Leases::with(1);
    assert_eq!(it.table.next_deadline(), Some(TICK));
    it.run_to(secs(9));
    assert_eq!(it.table.renew(1, it.now), Some(DEFAULT_TTL));
    assert_eq!(it.run_to(millis(18_900)), Vec::<u64>::new());
    assert_eq!(it.run_to(secs(19)), [1]);
    assert_eq!(it.table.renew(2, it.now), None);
}

#[test]
fn proposal_is_made_again_if_it_has_no_effect() {
    let mut it = Leases::with(1);
    it.drop_proposals = true;
    assert_eq!(it.run_to(secs(10)), [1]);
    assert_eq!(it.run_to(millis(14_500)), Vec::<u64>::new());
    assert_eq!(it.run_to(secs(15)), [1]);
    // Its owner was only slow, and the expiry was never committed.
    assert_eq!(it.table.renew(1, it.now), Some(DEFAULT_TTL));
    assert_eq!(it.run_to(millis(24_500)), Vec::<u64>::new());
}

#[test]
fn proposal_names_the_grant_it_is_about() {
    let mut it = Leases::with(1);
    let [proposal] = it.tick(secs(0), secs(10)).try_into().unwrap();
    let granted_index = it.mesh.registry.grant(1).unwrap().granted_index;
    assert_eq!(proposal, Proposal::Expire { lease_id: 1, granted_index });
    let expiry = ExpireLease { lease_id: 1, granted_index, term: TERM };
    assert_eq!(proposal.into_command(TERM).command, Some(Command::ExpireLease(expiry)));
}

#[test]
fn registering_again_gives_the_full_time() {
    let mut it = Leases::with(1);
    it.run_to(secs(6));
    it.register(1, "a");
    assert_eq!(it.run_to(millis(15_500)), Vec::<u64>::new());
    assert_eq!(it.run_to(secs(16)), [1]);
}

#[test]
fn change_of_health_is_no_renewal() {
    let mut it = Leases::with(1);
    it.run_to(secs(6));
    let command =
        SetInstanceHealth { service: "orders".into(), id: "i1".into(), lease_id: 1, health: 3 };
    it.mesh.run(Command::SetInstanceHealth(command)).unwrap();
    it.table.follow(&it.mesh.registry, &it.mesh.outcome, it.now);
    assert_eq!(it.run_to(secs(10)), [1]);
}

#[test]
fn new_leader_gives_everybody_time_and_spreads_the_ends() {
    let mut it = Leases::with(100);
    it.table = LeaseTable::new(&it.mesh.registry, secs(1_000));
    it.now = secs(1_000);
    let ends: BTreeSet<Time> = it.table.deadlines.iter().map(|(end, _)| *end).collect();
    assert!(*ends.first().unwrap() >= secs(1_010));
    assert!(*ends.last().unwrap() <= secs(1_020));
    assert!(ends.len() > 90, "only {} moments", ends.len());
}

#[test]
fn pause_of_the_process_ends_no_lease() {
    let mut it = Leases::with(1);
    it.run_to(secs(9));
    it.now += secs(60);
    // Woken up, the server hears of its owner only after it has looked at its deadlines.
    assert_eq!(it.table.due(it.now), []);
    assert_eq!(it.table.renew(1, it.now), Some(DEFAULT_TTL));
    let until = it.now + millis(9_500);
    assert_eq!(it.run_to(until), Vec::<u64>::new());

    it.now += secs(60);
    let until = it.now + millis(600);
    assert_eq!(it.run_to(until), [1]);
}

#[test]
fn one_of_three_that_dies_expires() {
    let mut it = Leases::with(3);
    it.keep(&[1, 3], secs(30));
    assert_eq!(it.ended, [2]);
    assert_eq!(it.table.frozen(), None);
}

#[test]
fn mass_silence_freezes_expiry_before_the_first_is_lost() {
    let mut it = Leases::with(40);
    let heard: Vec<u64> = (1..=30).collect();
    it.keep(&(1..=40).collect::<Vec<_>>(), secs(30));
    it.keep(&heard, secs(120));
    assert_eq!(it.ended, Vec::<u64>::new());
    assert_eq!(it.table.frozen(), Some(&Frozen { missing: 10, total: 40, zone: None }));

    // Half of them are back: too few are missing for a mass, and those who are do expire.
    let heard: Vec<u64> = (1..=36).collect();
    it.keep(&heard, secs(150));
    assert_eq!(it.ended, [37, 38, 39, 40]);
    assert_eq!(it.table.frozen(), None);
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
fn frozen_table_does_not_wake_its_caller_all_the_time() {
    let mut it = Leases::with(10);
    it.run_to(secs(20));
    assert!(it.table.frozen().is_some());
    assert_eq!(it.table.next_deadline(), Some(it.now + TICK));
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
        let (service, id) = ("orders".to_owned(), format!("i{lease_id}"));
        let health = Health::Draining.into();
        let drained = SetInstanceHealth { service, id, lease_id, health };
        it.mesh.run(Command::SetInstanceHealth(drained)).unwrap();
        it.table.follow(&it.mesh.registry, &it.mesh.outcome, it.now);
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
        it.mesh.run(Command::RecordNode(node(node_id, 1, node_id))).unwrap();
        it.table.follow(&it.mesh.registry, &it.mesh.outcome, it.now);
    }
    let state = NodeState::Stopping.into();
    it.mesh.run(Command::SetNodeState(SetNodeState { node_id: 1, lease_id: 1, state })).unwrap();
    it.table.follow(&it.mesh.registry, &it.mesh.outcome, it.now);
    it.keep(&[5, 6, 7], secs(30));
    assert!(it.table.frozen().is_some());
    assert_eq!(it.ended, [1]);
    it.table = LeaseTable::new(&it.mesh.registry, it.now);
    assert_eq!(it.table.len(), 6, "the next leader counts the others");
}

#[test]
fn instance_that_is_down_is_forgotten_after_the_hold_time() {
    let mut it = Leases::with(2);
    it.keep(&[2], secs(20));
    assert_eq!(it.ended, [1]);
    let reaped = |it: &Leases| it.mesh.registry.instance("orders", "i1").is_none();
    it.keep(&[2], secs(10) + HOLD - secs(1));
    assert!(!reaped(&it));
    it.keep(&[2], secs(12) + HOLD);
    assert!(reaped(&it));
    assert_eq!(it.table.down.len(), 0);
}

#[test]
fn instance_that_comes_back_is_not_forgotten() {
    let mut it = Leases::with(2);
    it.keep(&[2], secs(20));
    it.register(1, "a");
    it.keep(&[1, 2], secs(30) + HOLD);
    assert!(it.mesh.registry.instance("orders", "i1").unwrap().is_live());
}

#[test]
fn load_stretches_the_time() {
    assert_eq!(stretched(DEFAULT_TTL, 3_000), DEFAULT_TTL);
    assert_eq!(stretched(DEFAULT_TTL, 10_000), secs(30));
    assert_eq!(stretched(DEFAULT_TTL, 1_000_000), MAX_TTL);
}

#[test]
fn empty_table_waits_for_nothing() {
    let mut table = LeaseTable::new(&Registry::default(), secs(5));
    assert!(table.is_empty());
    assert_eq!(table.next_deadline(), None);
    assert_eq!(table.due(secs(500)), []);
}

/// Owners renew at a third of their time, more or less; the process is paused, the leader replaced,
/// and a few owners die. Nobody who renews is lost, and whoever dies is gone in time.
#[test]
fn only_the_dead_expire() {
    for seed in 0..100 {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(20..60);
        let mut it = Leases::with(count);
        let mut dead: BTreeSet<u64> = BTreeSet::new();
        let mut disturbed = it.now;
        let mut next: BTreeMap<u64, Time> =
            (1..=count).map(|id| (id, millis(random.random_range(0..3_300)))).collect();
        while it.now < secs(300) {
            it.tick_all();
            for (lease_id, at) in &mut next {
                if *at <= it.now && !dead.contains(lease_id) {
                    assert!(it.table.renew(*lease_id, it.now).is_some(), "seed {seed}");
                    *at = it.now + millis(random.random_range(2_500..4_000));
                }
            }
            match random.random_range(0..1_000) {
                0 => {
                    it.now += millis(random.random_range(0..60_000));
                    disturbed = it.now;
                }
                1 => {
                    it.table = LeaseTable::new(&it.mesh.registry, it.now);
                    disturbed = it.now;
                }
                2..=4 if dead.len() < 2 => {
                    dead.insert(random.random_range(1..=count));
                    disturbed = it.now;
                }
                _ => it.now += millis(random.random_range(10..500)),
            }
            assert!(it.ended.iter().all(|lease_id| dead.contains(lease_id)), "seed {seed}");
        }
        let end = disturbed + secs(25);
        while it.now < end {
            it.tick_all();
            for lease_id in (1..=count).filter(|lease_id| !dead.contains(lease_id)) {
                it.table.renew(lease_id, it.now);
            }
            it.now += TICK;
        }
        let ended: BTreeSet<u64> = it.ended.iter().copied().collect();
        assert_eq!(ended, dead, "seed {seed}");
    }
}

/// A registry and its leader's table, with a clock of their own.
struct Leases {
    mesh: Mesh,
    table: LeaseTable,
    now: Time,
    /// Leases that expired, in order.
    ended: Vec<u64>,
    /// Leaves proposals without effect.
    drop_proposals: bool,
}

impl Default for Leases {
    fn default() -> Self {
        let table = LeaseTable::new(&Registry::default(), Time::ZERO);
        let (mesh, now, ended) = (Mesh::default(), Time::ZERO, Vec::new());
        Self { mesh, table, now, ended, drop_proposals: false }
    }
}

impl Leases {
    /// Leases 1 to `count`, all granted at the start.
    fn with(count: u64) -> Self {
        let mut leases = Self::default();
        for lease_id in 1..=count {
            leases.register(lease_id, "a");
        }
        leases
    }

    fn register(&mut self, lease_id: u64, zone: &str) {
        let address = format!("10.0.{}.{}:80", lease_id / 200, lease_id % 200 + 1);
        let mut command = instance("orders", &format!("i{lease_id}"), &address, lease_id);
        let locality = WireLocality { region: String::new(), zone: zone.to_owned() };
        command.instance.as_mut().unwrap().locality = Some(locality);
        self.mesh.run(Command::RegisterInstance(command)).unwrap();
        self.table.follow(&self.mesh.registry, &self.mesh.outcome, self.now);
    }

    /// Calls the table as it asks to be, until `until`. Returns whose expiry was proposed.
    fn run_to(&mut self, until: Time) -> Vec<u64> {
        let before = self.ended.len();
        while self.now < until {
            let next = self.table.next_deadline().unwrap_or(until);
            self.now = next.clamp(self.now, until);
            self.tick_all();
            let next = self.table.next_deadline();
            assert!(next.is_none_or(|it| it > self.now), "would be called all the time");
        }
        self.ended[before..].to_vec()
    }

    /// Lets these owners renew each second, until `until`.
    fn keep(&mut self, heard: &[u64], until: Time) {
        while self.now < until {
            for lease_id in heard {
                assert!(self.table.renew(*lease_id, self.now).is_some());
            }
            self.run_to(until.min(self.now + secs(1)));
        }
    }

    fn tick_all(&mut self) {
        for proposal in self.table.due(self.now) {
            if let Proposal::Expire { lease_id, .. } = proposal {
                self.ended.push(lease_id);
            }
            if !self.drop_proposals {
                let _ = self.mesh.run(proposal.into_command(TERM).command.unwrap());
                self.table.follow(&self.mesh.registry, &self.mesh.outcome, self.now);
            }
        }
    }

    /// Calls the table every tick, and returns what it proposes last.
    fn tick(&mut self, from: Time, until: Time) -> Vec<Proposal> {
        let mut now = from;
        loop {
            let proposals = self.table.due(now);
            if now >= until {
                return proposals;
            }
            assert_eq!(proposals, []);
            now += TICK;
        }
    }
}

fn secs(of: u64) -> Duration {
    Duration::from_secs(of)
}

fn millis(of: u64) -> Duration {
    Duration::from_millis(of)
}
