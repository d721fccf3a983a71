//! Random commands, many of them invalid. After each one the registry equals the one restored from
//! its rows, its resources follow from the touched records, and what must never change has not
//! changed.

use std::collections::BTreeMap;

use proto::quorate::v1::{
    AssignReplica, ConfigureService, DecideGroup, DeleteResources, DeregisterInstance,
    DeregisterSilent, ExpireLease, GroupProgress, LeaseMark, Locality as WireLocality, MarkLeases,
    PutResources, ReapInstance, ReapService, RegisterInstance, RemoveNode, RemoveServer,
    RemoveService, ReplicaProgress, ReportLeader, ResourceSelector, ServiceOptions as WireOptions,
    SetInstanceHealth, SetNodeState, WrittenResource,
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::{snapshot::Snapshot, translation::Translator};

const SEEDS: u64 = 40;
const COMMANDS: u64 = 300;

#[test]
fn any_history_keeps_the_invariants() {
    for seed in 0..SEEDS {
        run(seed);
    }
}

fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut registry = Registry::default();
    let mut twin = Registry::default();
    let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut translator = Translator::default();
    let mut snapshot = Snapshot::empty().with_changes(0, translator.translate_all(&registry));
    for index in 1..=COMMANDS {
        let term = 1 + index / 100;
        let command = command(&mut random, &registry, term);
        let before = registry.clone();
        let outcome = registry.apply(command.clone(), index, term);
        assert_eq!(twin.apply(command.clone(), index, term), outcome, "seed {seed} at {index}");
        if matches!(outcome.reply.outcome, Some(registry_reply::Outcome::Refused(_))) {
            assert_eq!(registry, before, "seed {seed} at {index}: refused {command:?}");
            assert!(outcome.touched.is_empty());
        }
        for key in &outcome.touched {
            match registry.record(key) {
                Some(row) => rows.insert(key.encode(), row),
                None => rows.remove(&key.encode()),
            };
            assert_eq!(RecordKey::decode(&key.encode()).as_ref(), Some(key));
        }
        let changes = translator.translate(&registry, &outcome.touched);
        snapshot = snapshot.with_changes(index, changes);

        invariant_rows_are_the_registry(&registry, &rows, seed, index);
        invariant_leases_hold_live_records(&registry, seed, index);
        invariant_latches_stay(&before, &registry, seed, index);
        invariant_resources_follow(&registry, &snapshot, seed, index);
    }
}

fn invariant_rows_are_the_registry(
    registry: &Registry,
    rows: &BTreeMap<Vec<u8>, Vec<u8>>,
    seed: u64,
    index: u64,
) {
    let restored = Registry::restore(rows).unwrap();
    assert_eq!(&restored, registry, "seed {seed} at {index}");
    let keys: BTreeSet<_> = registry.keys().iter().map(RecordKey::encode).collect();
    assert_eq!(keys, rows.keys().cloned().collect(), "seed {seed} at {index}");
}

fn invariant_leases_hold_live_records(registry: &Registry, seed: u64, index: u64) {
    let instances = registry.instances().filter(|it| it.is_live()).map(|it| it.grant.lease_id);
    let nodes = registry.nodes().filter(|it| it.is_live()).map(|it| it.grant.lease_id);
    let live: BTreeSet<u64> = instances.chain(nodes).collect();
    let granted: BTreeSet<u64> = registry.grants().map(|it| it.lease_id).collect();
    assert_eq!(granted, live, "seed {seed} at {index}");
}

fn invariant_latches_stay(before: &Registry, after: &Registry, seed: u64, index: u64) {
    for group in before.groups() {
        let later = after.group(group.group).unwrap();
        assert_eq!(later.first_voters, group.first_voters, "seed {seed} at {index}");
        assert_eq!(later.namespace, group.namespace, "seed {seed} at {index}");
        assert!(later.leader >= group.leader, "seed {seed} at {index}");
    }
    let port = |registry: &Registry, name: &str| {
        let service = registry.service(name).or_else(|| registry.retired_service(name));
        service.map(|it| it.sidecar_port)
    };
    for service in before.services().chain(before.retired_services()) {
        let later = port(after, &service.name);
        let reaped = later.is_none() && service.retired_since.is_some();
        assert!(reaped || later == Some(service.sidecar_port), "seed {seed} at {index}");
    }
    let ports: Vec<u16> =
        after.services().chain(after.retired_services()).map(|it| it.sidecar_port).collect();
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len(), "seed {seed} at {index}");
    for node in before.nodes() {
        let Some(later) = after.node(node.node_id) else {
            let counted = after.groups().any(|it| it.members.contains(&node.node_id));
            assert!(!counted, "seed {seed} at {index}");
            continue;
        };
        assert_eq!(later.store_id, node.store_id, "seed {seed} at {index}");
        assert!(later.boot_epoch >= node.boot_epoch, "seed {seed} at {index}");
    }
}

fn invariant_resources_follow(registry: &Registry, snapshot: &Snapshot, seed: u64, index: u64) {
    let whole =
        Snapshot::empty().with_changes(index, Translator::default().translate_all(registry));
    for kind in crate::resource::ResourceType::all() {
        assert!(
            whole.resources(kind).eq(snapshot.resources(kind)),
            "seed {seed} at {index}: {kind}"
        );
    }
}

fn command(random: &mut StdRng, registry: &Registry, term: u64) -> RegistryCommand {
    let command = match random.random_range(0..16) {
        0 => return RegistryCommand::default(),
        1..=3 => Command::RegisterInstance(registration(random)),
        4 => Command::DeregisterInstance(DeregisterInstance {
            service: service(random),
            id: id(random),
            lease_id: random.random_range(0..12),
        }),
        5 => Command::SetInstanceHealth(SetInstanceHealth {
            service: service(random),
            id: id(random),
            lease_id: random.random_range(0..12),
            health: random.random_range(0..7),
            reason: pick(random, &["", "no answer in time", "\n"]).to_owned(),
            since_unix_ms: random.random_range(0..3),
        }),
        6 => {
            let lease_id = random.random_range(0..12);
            let granted = registry.grant(lease_id).map_or(0, |it| it.granted_index);
            let granted_index = granted + u64::from(random.random_bool(0.2));
            let term = term - u64::from(random.random_bool(0.2));
            Command::ExpireLease(ExpireLease { lease_id, granted_index, term })
        }
        7 => {
            let (service, id) = (service(random), id(random));
            let since = registry.instance(&service, &id).and_then(|it| it.down_since);
            let down_since_index = since.unwrap_or(0);
            Command::ReapInstance(ReapInstance { service, id, down_since_index })
        }
        8 => Command::RecordServer(server(
            random.random_range(0..4),
            random.random_range(0..3),
            &address(random),
        )),
        9 => node_command(random),
        10 => mark_command(random, registry, term),
        11 => removal_command(random, registry),
        15 => resource_command(random),
        _ => group_command(random),
    };
    RegistryCommand { command: Some(command) }
}

fn mark_command(random: &mut StdRng, registry: &Registry, term: u64) -> Command {
    let marks = (0..random.random_range(0..4)).map(|_| {
        let lease_id = random.random_range(0..12);
        let granted = registry.grant(lease_id).map_or(0, |it| it.granted_index);
        let granted_index = granted + u64::from(random.random_bool(0.1));
        LeaseMark { lease_id, granted_index, silent: random.random_bool(0.7) }
    });
    let marks = marks.collect();
    Command::MarkLeases(MarkLeases { marks, term: term - u64::from(random.random_bool(0.1)) })
}

fn options(random: &mut StdRng) -> WireOptions {
    WireOptions {
        stream_idle_ms: random.random_bool(0.5).then(|| random.random_range(0..3) << 31),
        try_unhealthy: random.random_bool(0.5),
        forget_after_ms: random.random_bool(0.2).then(|| random.random_range(0..3) * 60_000),
        ..WireOptions::default()
    }
}

fn removal_command(random: &mut StdRng, registry: &Registry) -> Command {
    match random.random_range(0..6) {
        5 => Command::ConfigureService(ConfigureService {
            name: service(random),
            options: random.random_bool(0.8).then(|| options(random)),
            configured: random.random_bool(0.5),
            create: pick(random, &["", "http1", "http2", "smtp"]).to_owned(),
        }),
        0 => Command::DeregisterSilent(DeregisterSilent {
            service: service(random),
            zone: pick(random, &["a", "b", ""]).to_owned(),
        }),
        1 => Command::RemoveService(RemoveService {
            name: service(random),
            force: random.random_bool(0.5),
            if_empty: random.random_bool(0.3),
        }),
        2 => {
            let name = service(random);
            let since = registry.retired_service(&name).and_then(|it| it.retired_since);
            let retired_since_index = since.unwrap_or(0);
            Command::ReapService(ReapService { name, retired_since_index })
        }
        3 => Command::RemoveServer(RemoveServer { node_id: random.random_range(0..4) }),
        _ => Command::RemoveNode(RemoveNode { node_id: random.random_range(0..7) }),
    }
}

fn registration(random: &mut StdRng) -> RegisterInstance {
    let mut command =
        instance(&service(random), &id(random), &address(random), random.random_range(0..12));
    let it = command.instance.as_mut().unwrap();
    it.weight = random.random_range(0..131);
    it.health = random.random_range(0..7);
    let protocol = pick(random, &["", "http1", "http1", "http1", "http2", "tcp", "udp"]);
    it.protocol = protocol.to_owned();
    let zone = pick(random, &["a", "b", ""]).to_string();
    it.locality = Some(WireLocality { region: String::new(), zone });
    command.start = random.random_range(0..3);
    command.lease_drawn = random.random_bool(0.3);
    command.ttl_ms = random.next_u64() >> random.random_range(0..64);
    command
}

fn node_command(random: &mut StdRng) -> Command {
    let node_id = random.random_range(0..7);
    if random.random_bool(0.3) {
        let lease_id = random.random_range(0..12);
        let state = random.random_range(0..5);
        return Command::SetNodeState(SetNodeState { node_id, lease_id, state });
    }
    let mut command = node(node_id, random.random_range(0..4), random.random_range(0..12));
    if random.random_bool(0.1) {
        command.node.as_mut().unwrap().store_id = 7;
    }
    command.node.as_mut().unwrap().state = random.random_range(0..5);
    Command::RecordNode(command)
}

fn resource_command(random: &mut StdRng) -> Command {
    let file = pick(random, &["a.yaml", "b.yaml", "b.yaml/c", ""]).to_string();
    if random.random_bool(0.2) {
        return Command::DeleteResources(DeleteResources { file });
    }
    let resources = (0..random.random_range(0..5)).map(|_| WrittenResource {
        type_url: pick(random, &["type/cluster", "type/listener"]).to_string(),
        name: pick(random, &["orders", "orders/a", "carts", "\0"]).to_string(),
        selector: random.random_bool(0.5).then(|| ResourceSelector {
            zones: vec![pick(random, &["a", "b"]).to_string()],
            kinds: vec![random.random_range(0..4)],
            ..ResourceSelector::default()
        }),
        resource: vec![random.random_range(0..3); 3].into(),
        references: Vec::new(),
    });
    let resources = resources.collect();
    Command::PutResources(PutResources { file, resources })
}

fn group_command(random: &mut StdRng) -> Command {
    let group = random.random_range(0..5);
    let node_id = random.random_range(0..7);
    match random.random_range(0..3) {
        0 => Command::DecideGroup(DecideGroup {
            namespace: pick(random, &["default", "orders", "disco", ""]).to_string(),
            first_voters: (0..random.random_range(0..4))
                .map(|_| member(random.random_range(0..7)))
                .collect(),
            voters_wanted: random.random_range(0..9),
        }),
        1 => Command::AssignReplica(AssignReplica { group, replica: Some(member(node_id)) }),
        _ => Command::ReportLeader(ReportLeader {
            group,
            leader_id: node_id,
            term: random.random_range(0..5),
            serving: (0..random.random_range(0..3)).map(|_| random.random_range(0..7)).collect(),
            members: (0..random.random_range(0..3)).map(|_| random.random_range(0..7)).collect(),
            progress: random.random_bool(0.5).then(|| progress(random)),
        }),
    }
}

fn progress(random: &mut StdRng) -> GroupProgress {
    GroupProgress {
        term: random.random_range(0..5),
        last_index: random.random_range(0..9),
        committed_index: random.random_range(0..9),
        replicas: (0..3)
            .map(|node_id| ReplicaProgress {
                node_id,
                term: random.random_range(0..5),
                index: random.random_range(0..9),
            })
            .collect(),
    }
}

fn service(random: &mut StdRng) -> String {
    pick(random, &["orders", "carts", "web", "ingress", "kv/orders", ""]).to_string()
}

fn id(random: &mut StdRng) -> String {
    pick(random, &["a", "b", "c", "web-1.example:80", "A"]).to_string()
}

fn address(random: &mut StdRng) -> String {
    pick(random, &["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:80", "x", "1.1.1.1:0"]).to_string()
}

fn pick<'a>(random: &mut StdRng, of: &[&'a str]) -> &'a str {
    of[random.random_range(0..of.len())]
}
