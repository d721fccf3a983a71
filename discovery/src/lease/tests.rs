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
    let mut it = Leases::of_nodes(1);
    it.run_to(secs(9));
    assert_eq!(it.table.renew(1, it.now), Some(DEFAULT_TTL));
    assert_eq!(it.run_to(millis(18_900)), Vec::<u64>::new());
    assert_eq!(it.run_to(secs(19)), [1]);
    assert_eq!(it.table.renew(2, it.now), None);
}

#[test]
fn proposal_is_made_again_if_it_has_no_effect() {
    let mut it = Leases::of_nodes(1);
    it.drop_proposals = true;
    assert_eq!(it.run_to(secs(10)), [1]);
    assert_eq!(it.run_to(millis(14_500)), Vec::<u64>::new());
    assert_eq!(it.run_to(secs(15)), [1]);
    // The owner was only slow, and the expiry was never committed.
    assert_eq!(it.table.renew(1, it.now), Some(DEFAULT_TTL));
    assert_eq!(it.run_to(millis(24_500)), Vec::<u64>::new());
}

#[test]
fn proposal_names_the_grant_it_is_about() {
    let mut it = Leases::of_nodes(1);
    let [proposal] = it.tick(secs(0), secs(10)).try_into().unwrap();
    let granted_index = it.mesh.registry.grant(1).unwrap().granted_index;
    assert_eq!(proposal, Proposal::Expire { lease_id: 1, granted_index });
    let expiry = proto::quorate::v1::ExpireLease { lease_id: 1, granted_index, term: TERM };
    assert_eq!(proposal.into_command(TERM).command, Some(Command::ExpireLease(expiry)));
}

#[test]
fn registering_again_gives_the_full_time() {
    let mut it = Leases::of_nodes(1);
    it.run_to(secs(6));
    it.node(1);
    assert_eq!(it.run_to(millis(15_500)), Vec::<u64>::new());
    assert_eq!(it.run_to(secs(16)), [1]);
}

#[test]
fn change_of_health_is_no_renewal() {
    let mut it = Leases::with(1);
    it.run_to(secs(6));
    it.drain(1);
    assert_eq!(it.run_to(secs(10)), [1]);
}

#[test]
fn new_leader_gives_everybody_time_and_spreads_the_ends() {
    let mut it = Leases::with(100);
    it.now = secs(1_000);
    it.elect();
    let ends: BTreeSet<Time> = it.table.deadlines.iter().map(|(end, _)| *end).collect();
    assert!(*ends.first().unwrap() >= secs(1_010));
    assert!(*ends.last().unwrap() <= secs(1_020));
    assert!(ends.len() > 90, "only {} moments", ends.len());
}

#[test]
fn pause_of_the_process_ends_no_lease() {
    let mut it = Leases::of_nodes(1);
    it.run_to(secs(9));
    it.now += secs(60);
    // After the pause the server checks its deadlines before it hears the owner.
    assert_eq!(it.table.due(&it.mesh.registry, it.now), []);
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
    let registry = Registry::default();
    let mut table = LeaseTable::new(&registry, PATIENCE, secs(5));
    assert!(table.is_empty());
    assert_eq!(table.due(&registry, secs(500)), []);
}

/// Owners renew at about a third of their time; the process is paused, the leader is replaced, and
/// a few owners die. No lease of a living owner ends, and every lease of a dead one ends in time.
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
                    it.elect();
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

#[test]
fn the_table_tells_when_an_owner_was_heard() {
    let mut it = Leases::of_nodes(1);
    it.run_to(secs(4));
    let heard = Some(Heard { ago: secs(4), left: secs(6) });
    assert_eq!(it.table.heard(1, it.now), heard);
    it.elect();
    assert_eq!(it.table.heard(1, it.now), None, "another leader has heard nobody");
    assert_eq!(it.table.heard(2, it.now), None);
}

#[test]
fn a_service_without_instances_goes_and_frees_its_port_after_a_grace() {
    let mut it = Leases::with(1);
    it.register_in("carts", 2);
    let deregister = |it: &mut Leases, id: &str| {
        it.mesh.deregister("orders", id).unwrap();
        it.table.follow(&it.mesh.registry, &it.mesh.outcome, it.now);
    };
    deregister(&mut it, "i1");
    it.keep_each_tick(&[2], EMPTY_HOLD - secs(3_600));
    it.register(1, "a");
    deregister(&mut it, "i1");
    let start = it.now;
    it.keep_each_tick(&[2], start + EMPTY_HOLD - secs(3_600));
    assert!(it.mesh.registry.service("orders").is_some());
    it.keep_each_tick(&[2], start + EMPTY_HOLD + secs(10));
    assert!(it.mesh.registry.service("orders").is_none());
    assert_eq!(it.mesh.registry.retired_services().count(), 1);
    it.keep_each_tick(&[2], start + EMPTY_HOLD + HOLD + secs(60));
    assert_eq!(it.mesh.registry.retired_services().count(), 0);
    assert!(it.mesh.registry.service("carts").is_some());
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

/// A registry and its leader's table, with a clock of their own.
struct Leases {
    mesh: Mesh,
    table: LeaseTable,
    now: Time,
    /// Leases that expired, in order.
    ended: Vec<u64>,
    /// Discards proposals.
    drop_proposals: bool,
}

impl Default for Leases {
    fn default() -> Self {
        let table = LeaseTable::new(&Registry::default(), PATIENCE, Time::ZERO);
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
        self.run(Command::RegisterInstance(command));
    }

    /// Nodes 1 to `count`, each with a lease of its number. The floor does not protect nodes.
    fn of_nodes(count: u64) -> Self {
        let mut leases = Self::default();
        for node_id in 1..=count {
            leases.node(node_id);
        }
        leases
    }

    fn node(&mut self, node_id: u64) {
        self.run(Command::RecordNode(node(node_id, 1, node_id)));
    }

    /// Lets the owner of an instance announce that it stops.
    fn drain(&mut self, lease_id: u64) {
        self.run(Command::SetInstanceHealth(SetInstanceHealth {
            service: "orders".to_owned(),
            id: format!("i{lease_id}"),
            lease_id,
            health: Health::Draining.into(),
            ..SetInstanceHealth::default()
        }));
    }

    fn run(&mut self, command: Command) {
        self.mesh.run(command).unwrap();
        self.table.follow(&self.mesh.registry, &self.mesh.outcome, self.now);
    }

    /// From here on, the table of another leader is used.
    fn elect(&mut self) {
        self.table = LeaseTable::new(&self.mesh.registry, PATIENCE, self.now);
    }

    /// Leases that the registry has marked as silent.
    fn silent(&self) -> Vec<u64> {
        let registry = &self.mesh.registry;
        let ids = registry.grants().map(|it| it.lease_id);
        ids.filter(|id| registry.silent_since(*id).is_some()).collect()
    }

    /// Calls the table every tick until `until`. Returns the leases whose expiry was proposed.
    fn run_to(&mut self, until: Time) -> Vec<u64> {
        let before = self.ended.len();
        while self.now < until {
            self.now = (self.now + millis(100)).min(until);
            self.tick_all();
        }
        self.ended[before..].to_vec()
    }

    fn register_in(&mut self, service: &str, lease_id: u64) {
        let address = format!("10.0.{}.{}:80", lease_id / 200, lease_id % 200 + 1);
        let command = instance(service, &format!("i{lease_id}"), &address, lease_id);
        self.run(Command::RegisterInstance(command));
    }

    /// Lets these owners renew every tick until `until`.
    fn keep_each_tick(&mut self, heard: &[u64], until: Time) {
        while self.now < until {
            self.now += TICK;
            for lease_id in heard {
                assert!(self.table.renew(*lease_id, self.now).is_some());
            }
            self.tick_all();
        }
    }

    /// Lets these owners renew every second until `until`.
    fn keep(&mut self, heard: &[u64], until: Time) {
        while self.now < until {
            for lease_id in heard {
                assert!(self.table.renew(*lease_id, self.now).is_some());
            }
            self.run_to(until.min(self.now + secs(1)));
        }
    }

    fn tick_all(&mut self) {
        for proposal in self.table.due(&self.mesh.registry, self.now) {
            if let Proposal::Expire { lease_id, .. } = proposal {
                self.ended.push(lease_id);
            }
            if !self.drop_proposals {
                let _ = self.mesh.run(proposal.into_command(TERM).command.unwrap());
                self.table.follow(&self.mesh.registry, &self.mesh.outcome, self.now);
            }
        }
    }

    /// Calls the table every tick. Returns its last proposals.
    fn tick(&mut self, from: Time, until: Time) -> Vec<Proposal> {
        let mut now = from;
        loop {
            let proposals = self.table.due(&self.mesh.registry, now);
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
