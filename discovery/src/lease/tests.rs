mod latch;
mod silence;

use proto::quorate::v1::{
    ConfigureService, Health, Locality as WireLocality, ServiceOptions, SetInstanceHealth,
    registry_command::Command,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::registry::{
    DEFAULT_TTL, EMPTY_HOLD,
    tests::{Mesh, TERM, instance, node},
};

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

#[test]
fn a_service_is_forgotten_when_it_says_and_not_at_all_if_it_was_configured() {
    let mut it = Leases::with(1);
    it.register_in("carts", 2);
    let configure = |it: &mut Leases, forget_after_ms| {
        let options = ServiceOptions { forget_after_ms, ..ServiceOptions::default() };
        let command = ConfigureService {
            name: "orders".to_owned(),
            options: Some(options),
            configured: true,
            ..ConfigureService::default()
        };
        it.mesh.run(Command::ConfigureService(command)).unwrap();
        it.table.follow(&it.mesh.registry, &it.mesh.outcome, it.now);
    };
    configure(&mut it, None);
    it.mesh.deregister("orders", "i1").unwrap();
    it.table.follow(&it.mesh.registry, &it.mesh.outcome, it.now);
    let start = it.now;
    it.keep_each_tick(&[2], start + EMPTY_HOLD + secs(60));
    assert!(it.mesh.registry.service("orders").is_some(), "it was configured");
    // Its time has run since the last instance went.
    configure(&mut it, Some(3_600_000));
    let now = it.now;
    it.keep_each_tick(&[2], now + secs(2));
    assert!(it.mesh.registry.service("orders").is_none());
    assert_eq!(it.mesh.registry.retired_services().count(), 1, "its port is kept for an hour");
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
