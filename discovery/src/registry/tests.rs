use std::collections::BTreeMap;

use proto::quorate::v1::{
    AddressHint, AssignReplica, DecideGroup, DeregisterInstance, DeregisterSilent, ExpireLease,
    GroupMember, Health, HostedGroup, LeaseMark, Locality as WireLocality, MarkLeases,
    Member as WireMember, NodeRecord, NodeState, NodeStatus, ReapInstance, ReapService, RecordNode,
    RecordServer, RegisterInstance, RegistryDone, RemoveNode, RemoveServer, RemoveService,
    ReportLeader, SetInstanceHealth, SetNodeState, registry_refusal::Reason,
};

use super::*;

mod property;

#[test]
fn registration_makes_the_service_and_assigns_its_port() {
    let mut mesh = Mesh::default();
    assert_eq!(mesh.register("orders", "a", "10.0.0.1:80", 1), Ok(granted(1)));
    let service = mesh.registry.service("orders").unwrap();
    assert_eq!((service.sidecar_port, service.protocol), (21_000, Protocol::Http1));
    let instance = mesh.registry.instance("orders", "a").unwrap();
    assert_eq!((instance.weight, instance.health), (1, Health::Healthy));
    assert_eq!(
        mesh.touched,
        [RecordKey::Service("orders".into()), instance_key("orders", "a")].into()
    );
}

#[test]
fn unchanged_registration_is_no_change() {
    let mut mesh = Mesh::default();
    let command = instance("orders", "a", "10.0.0.1:80", 1);
    assert_eq!(mesh.registry.unchanged_lease(&command), None);
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    assert_eq!(mesh.registry.unchanged_lease(&command), Some(1));
    let again = mesh.register("orders", "a", "10.0.0.1:80", 1);
    assert_eq!(again, Ok(RegistryDone { changed: false, ..granted(1) }));
}

#[test]
fn another_address_is_refused_while_the_lease_holds() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let other = mesh.register("orders", "a", "10.0.0.2:80", 2);
    assert_eq!(other, Err(Reason::HeldByAnother));
    assert!(mesh.touched.is_empty());

    mesh.expire(1).unwrap();
    assert_eq!(mesh.register("orders", "a", "10.0.0.2:80", 2), Ok(granted(2)));
}

#[test]
fn same_lease_may_move_and_who_chose_none_is_known_by_the_address() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    assert_eq!(mesh.register("orders", "a", "10.0.0.2:80", 1), Ok(granted(1)));
    // The reply was lost, and the owner registers again without a lease.
    let mut again = instance("orders", "a", "10.0.0.2:80", 7);
    again.lease_drawn = true;
    let again = mesh.run(Command::RegisterInstance(again));
    assert_eq!(again, Ok(RegistryDone { changed: false, ..granted(1) }));
    assert_eq!(mesh.registry.grant(7), None);
}

/// P14: the successor is registered while its predecessor still deregisters.
#[test]
fn who_ends_takes_along_nothing_of_its_successor() {
    let mut mesh = Mesh::default();
    let started = |start, lease_id| {
        let mut command = instance("orders", "a", "10.0.0.1:80", lease_id);
        command.start = start;
        Command::RegisterInstance(command)
    };
    mesh.run(started(100, 1)).unwrap();
    mesh.run(health(1, "a", Health::Draining)).unwrap();
    assert_eq!(mesh.run(started(200, 2)), Ok(granted(2)));
    let successor = mesh.registry.instance("orders", "a").unwrap().clone();
    assert_eq!(successor.health, Health::Healthy);
    // Everything that the predecessor may still do.
    assert_eq!(mesh.run(health(1, "a", Health::Draining)), Err(Reason::LeaseUnknown));
    assert_eq!(mesh.run(started(100, 1)), Err(Reason::HeldByAnother));
    assert_eq!(mesh.deregister_held("orders", "a", 1), Ok(RegistryDone::default()));
    mesh.expire(1).unwrap();
    assert_eq!(mesh.registry.instance("orders", "a"), Some(&successor));
}

/// D10: a fleet with fixed ids died and comes back at other addresses.
#[test]
fn who_comes_for_the_place_of_a_silent_owner_is_let_in() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let elsewhere = instance("orders", "a", "10.0.0.2:80", 2);
    assert_eq!(mesh.registry.holder(&elsewhere), Some(1));
    let refused = mesh.run(Command::RegisterInstance(elsewhere.clone()));
    assert_eq!(refused, Err(Reason::HeldByAnother));
    mesh.mark(1, true);
    assert_eq!(mesh.registry.holder(&elsewhere), None);
    assert!(mesh.registry.instance("orders", "a").unwrap().is_live());
    assert_eq!(mesh.run(Command::RegisterInstance(elsewhere)), Ok(granted(2)));
    let instance = mesh.registry.instance("orders", "a").unwrap();
    assert_eq!((instance.silent_since, instance.grant.lease_id), (None, 2));
    assert_eq!(mesh.registry.grant(1), None, "the old owner holds nothing any more");
}

#[test]
fn silence_is_noted_and_taken_back() {
    let mut mesh = Mesh::default();
    mesh.nodes(1);
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    mesh.mark(1, true);
    assert_eq!(mesh.touched, [RecordKey::Node(1), instance_key("orders", "a")].into());
    let since = Some(mesh.index);
    assert_eq!(mesh.registry.silent_since(1), since);
    mesh.mark(1, true);
    assert_eq!((mesh.registry.silent_since(1), mesh.touched.len()), (since, 0));
    let states: Vec<_> =
        mesh.registry.list_members(&BTreeMap::new()).into_iter().map(|it| it.state).collect();
    assert_eq!(states, ["silent"]);
    mesh.mark(1, false);
    assert_eq!(mesh.registry.silent_since(1), None);
    // Of another grant, or of another term.
    let marks = vec![LeaseMark { lease_id: 1, granted_index: 999, silent: true }];
    mesh.run(Command::MarkLeases(MarkLeases { marks, term: TERM })).unwrap();
    let granted_index = mesh.registry.grant(1).unwrap().granted_index;
    let marks = vec![LeaseMark { lease_id: 1, granted_index, silent: true }];
    mesh.run(Command::MarkLeases(MarkLeases { marks, term: TERM - 1 })).unwrap();
    assert_eq!(mesh.registry.silent_since(1), None);
}

#[test]
fn silent_and_dead_instances_go_together_by_service_and_zone() {
    let mut mesh = Mesh::default();
    for (lease_id, service, zone) in
        [(1, "orders", "a"), (2, "orders", "b"), (3, "orders", "b"), (4, "carts", "b")]
    {
        let id = format!("i{lease_id}");
        let mut command = instance(service, &id, &format!("10.0.0.{lease_id}:80"), lease_id);
        let (region, zone) = (String::new(), zone.to_owned());
        command.instance.as_mut().unwrap().locality = Some(WireLocality { region, zone });
        mesh.run(Command::RegisterInstance(command)).unwrap();
    }
    mesh.mark(1, true);
    mesh.mark(2, true);
    mesh.expire(4).unwrap();
    let bulk = |service: &str, zone: &str| {
        let (service, zone) = (service.to_owned(), zone.to_owned());
        Command::DeregisterSilent(DeregisterSilent { service, zone })
    };
    let removed = |removed| Ok(RegistryDone { removed, ..changed() });
    assert_eq!(mesh.run(bulk("carts", "a")), Ok(RegistryDone::default()));
    assert_eq!(mesh.run(bulk("orders", "b")), removed(1));
    assert_eq!(mesh.run(bulk("", "")), removed(2));
    let left: Vec<_> = mesh.registry.instances().map(|it| it.id.as_str()).collect();
    assert_eq!(left, ["i3"]);
}

#[test]
fn removed_service_keeps_its_port_until_it_is_reaped_and_may_come_back() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    mesh.register("carts", "a", "10.0.0.2:80", 2).unwrap();
    let remove = |force, if_empty| {
        Command::RemoveService(RemoveService { name: "orders".into(), force, if_empty })
    };
    assert_eq!(mesh.run(remove(false, false)), Err(Reason::Alive));
    assert_eq!(mesh.run(remove(false, true)), Ok(RegistryDone::default()));
    let done = RegistryDone { existed: true, ..changed() };
    assert_eq!(mesh.run(remove(true, false)), Ok(done));
    assert_eq!(mesh.run(remove(true, false)), Ok(RegistryDone::default()));
    assert_eq!(mesh.registry.grant(1), None);
    let names: Vec<_> = mesh.registry.list_services().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["carts"]);

    mesh.register("orders", "b", "10.0.0.3:80", 3).unwrap();
    assert_eq!(mesh.registry.service("orders").unwrap().sidecar_port, 21_000);
    mesh.mark(3, true);
    mesh.run(remove(false, false)).unwrap();
    let since = mesh.index;
    let reap = |retired_since_index| {
        Command::ReapService(ReapService { name: "orders".into(), retired_since_index })
    };
    assert_eq!(mesh.run(reap(since - 1)), Ok(RegistryDone::default()));
    assert_eq!(mesh.run(reap(since)), Ok(done));
    assert_eq!(mesh.registry.record(&RecordKey::Service("orders".into())), None);
    mesh.register("orders", "b", "10.0.0.3:80", 3).unwrap();
    assert_eq!(mesh.registry.service("orders").unwrap().sidecar_port, 21_002);
}

#[test]
fn a_freed_port_is_given_again_when_no_other_is_left() {
    let mut registry = Registry::default();
    let mut effects = Effects::default();
    for port in SIDECAR_PORTS.filter(|port| *port != 21_500) {
        let (name, protocol) = (format!("s{port}"), Protocol::Http1);
        let service = Service { name, protocol, sidecar_port: port, retired_since: None };
        registry.put_service(service, &mut effects);
    }
    assert_eq!(registry.free_port(), Some(21_500));
    registry.ports.insert(21_500);
    assert_eq!(registry.free_port(), None);
}

#[test]
fn removed_node_goes_once_no_group_counts_it() {
    let mut mesh = Mesh::default();
    mesh.nodes(5);
    mesh.decide("default", &[1, 2, 3]).unwrap();
    let remove = |node_id| Command::RemoveNode(RemoveNode { node_id });
    assert_eq!(mesh.run(remove(9)), Ok(RegistryDone::default()));
    assert_eq!(mesh.run(remove(3)), Err(Reason::Alive));
    let done = RegistryDone { existed: true, ..changed() };
    mesh.expire(5).unwrap();
    assert_eq!(mesh.run(remove(5)), Ok(done));
    assert_eq!(mesh.registry.node(5), None);

    mesh.assign(2, 4).unwrap();
    mesh.expire(3).unwrap();
    assert_eq!(mesh.run(remove(3)), Ok(RegistryDone { leaving: true, ..done }));
    let state = |mesh: &Mesh| {
        let members = mesh.registry.list_members(&BTreeMap::new());
        members.into_iter().find(|it| it.node_id == 3).map(|it| it.state)
    };
    assert_eq!(state(&mesh).as_deref(), Some("removed"));
    let report = |members: &[u64]| {
        let (serving, members) = (Vec::new(), members.to_vec());
        let progress = None;
        let (group, leader_id, term) = (2, 1, 1);
        Command::ReportLeader(ReportLeader { group, leader_id, term, serving, members, progress })
    };
    mesh.run(report(&[1, 2, 3, 4])).unwrap();
    assert!(state(&mesh).is_some());
    mesh.run(report(&[1, 2, 4])).unwrap();
    assert_eq!(state(&mesh), None);
    assert!(!mesh.registry.group(2).unwrap().has_replica(3));
}

#[test]
fn removed_node_that_comes_back_is_a_node_again() {
    let mut mesh = Mesh::default();
    mesh.nodes(3);
    mesh.decide("default", &[1, 2, 3]).unwrap();
    mesh.expire(3).unwrap();
    mesh.run(Command::RemoveNode(RemoveNode { node_id: 3 })).unwrap();
    mesh.run(Command::RecordNode(node(3, 2, 7))).unwrap();
    let node = mesh.registry.node(3).unwrap();
    assert_eq!((node.removed, node.state), (false, NodeState::Up));
}

#[test]
fn an_owner_says_why_it_is_unhealthy_and_since_when() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let said = |reason: &str, since_unix_ms| {
        Command::SetInstanceHealth(SetInstanceHealth {
            service: "orders".into(),
            id: "a".into(),
            lease_id: 1,
            health: Health::Unhealthy.into(),
            reason: reason.into(),
            since_unix_ms,
        })
    };
    let done = RegistryDone { lease_id: 1, existed: true, ..changed() };
    assert_eq!(mesh.run(said("it answered `503`", 7)), Ok(done));
    assert_eq!(mesh.run(said("no connection", 7)), Ok(done));
    assert_eq!(mesh.run(said("no connection", 7)), Ok(RegistryDone { changed: false, ..done }));
    assert_eq!(mesh.run(said("a\nb", 7)), Err(Reason::Malformed));
    let told = mesh.registry.list_instances("orders").remove(0);
    assert_eq!((told.health_reason.as_str(), told.health_since_unix_ms), ("no connection", 7));
}

#[test]
fn a_lease_removes_only_what_it_holds() {
    let mut mesh = Mesh::default();
    let gone = Ok(RegistryDone { existed: true, ..changed() });
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    assert_eq!(mesh.deregister_held("orders", "a", 2), Ok(RegistryDone::default()));
    assert!(mesh.touched.is_empty());
    assert!(mesh.registry.instance("orders", "a").is_some_and(|it| it.is_live()));
    assert_eq!(mesh.deregister_held("orders", "a", 1), gone);
    assert_eq!(mesh.deregister_held("orders", "a", 1), Ok(RegistryDone::default()));

    // Its lease has ended, and another process took the name.
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    mesh.expire(1).unwrap();
    mesh.register("orders", "a", "10.0.0.2:80", 2).unwrap();
    assert_eq!(mesh.deregister_held("orders", "a", 1), Ok(RegistryDone::default()));
    mesh.expire(2).unwrap();
    assert_eq!(mesh.deregister_held("orders", "a", 2), gone, "also what is down");
}

#[test]
fn port_stays_with_the_service_when_its_last_instance_goes() {
    let mut mesh = Mesh::default();
    for (at, service) in ["a", "b", "c"].into_iter().enumerate() {
        mesh.register(service, "i", &format!("10.0.0.{}:80", at + 1), 1).unwrap();
    }
    assert_eq!(mesh.deregister("b", "i"), Ok(RegistryDone { existed: true, ..changed() }));
    assert_eq!(mesh.deregister("b", "i"), Ok(RegistryDone::default()));
    mesh.register("d", "i", "10.0.0.4:80", 1).unwrap();
    mesh.register("b", "i", "10.0.0.2:80", 1).unwrap();
    let ports: Vec<_> = mesh.registry.services().map(|it| it.sidecar_port).collect();
    assert_eq!(ports, [21_000, 21_001, 21_002, 21_003]);
}

#[test]
fn protocol_changes_only_when_no_other_instance_is_live() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let mut http2 = instance("orders", "b", "10.0.0.2:80", 2);
    http2.instance.as_mut().unwrap().protocol = "http2".into();
    assert_eq!(mesh.run(Command::RegisterInstance(http2.clone())), Err(Reason::Malformed));
    mesh.expire(1).unwrap();
    mesh.run(Command::RegisterInstance(http2)).unwrap();
    assert_eq!(mesh.registry.service("orders").unwrap().protocol, Protocol::Http2);
}

#[test]
fn invalid_fields_are_refused_with_a_reason() {
    type Change = fn(&mut RegisterInstance);
    fn it(command: &mut RegisterInstance) -> &mut proto::quorate::v1::Instance {
        command.instance.as_mut().unwrap()
    }
    let cases: [(&str, Change); 22] = [
        ("no instance", |c| c.instance = None),
        ("no id", |c| c.lease_id = 0),
        ("has no name", |c| it(c).service.clear()),
        ("'/' is kept", |c| it(c).service = "kv/orders".into()),
        ("'/' is kept", |c| it(c).service = "sidecar/orders".into()),
        ("for the mesh itself", |c| it(c).service = "ingress".into()),
        ("for the mesh itself", |c| it(c).service = "ingress-kv".into()),
        ("begins and ends", |c| it(c).service = "Orders".into()),
        ("begins and ends", |c| it(c).service = "-orders".into()),
        ("begins and ends", |c| it(c).service = "órders".into()),
        ("1 to 63", |c| it(c).service = "o".repeat(64)),
        ("instance id", |c| it(c).id.clear()),
        ("instance id", |c| it(c).id = "a/b".into()),
        ("IP:PORT", |c| it(c).address = "localhost:80".into()),
        ("IP:PORT", |c| it(c).address = "10.0.0.1".into()),
        ("the port is missing", |c| it(c).address = "10.0.0.1:0".into()),
        ("cannot dial", |c| it(c).address = "0.0.0.0:80".into()),
        ("weight 129", |c| it(c).weight = 129),
        ("http1, http2 and tcp", |c| it(c).protocol = "udp".into()),
        ("when its lease ends", |c| it(c).set_health(Health::Down)),
        ("metadata", |c| _ = it(c).metadata.insert(String::new(), "x".into())),
        ("zone", |c| {
            it(c).locality = Some(WireLocality { region: "r".into(), zone: "a\nb".into() });
        }),
    ];
    for (message, change) in cases {
        let mut command = instance("orders", "a", "10.0.0.1:80", 1);
        change(&mut command);
        let mut mesh = Mesh::default();
        let refused = mesh.run(Command::RegisterInstance(command));
        assert_eq!(refused, Err(Reason::Malformed), "{message}");
        assert!(mesh.message.contains(message), "{message:?} is not in {:?}", mesh.message);
        assert_eq!(mesh.registry, Registry::default(), "{message}");
    }
}

#[test]
fn health_is_set_by_the_holder_only() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let done = RegistryDone { lease_id: 1, existed: true, ..changed() };
    assert_eq!(mesh.run(health(1, "a", Health::Draining)), Ok(done));
    let unchanged = RegistryDone { changed: false, ..done };
    assert_eq!(mesh.run(health(1, "a", Health::Draining)), Ok(unchanged));
    assert_eq!(mesh.run(health(2, "a", Health::Healthy)), Err(Reason::LeaseUnknown));
    assert_eq!(mesh.run(health(1, "b", Health::Healthy)), Err(Reason::InstanceUnknown));
    assert_eq!(mesh.run(health(1, "a", Health::Down)), Err(Reason::Malformed));
    // Registering again without a health leaves it draining.
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    assert_eq!(mesh.registry.instance("orders", "a").unwrap().health, Health::Draining);
    mesh.expire(1).unwrap();
    assert_eq!(mesh.run(health(1, "a", Health::Healthy)), Err(Reason::LeaseUnknown));
}

#[test]
fn expiry_is_void_after_another_grant_or_election() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let granted_index = mesh.registry.grant(1).unwrap().granted_index;
    let expire = |granted_index, term| {
        Command::ExpireLease(ExpireLease { lease_id: 1, granted_index, term })
    };
    assert_eq!(mesh.run(expire(granted_index, TERM - 1)), Ok(RegistryDone::default()));
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    assert_eq!(mesh.run(expire(granted_index, TERM)), Ok(RegistryDone::default()));
    assert!(mesh.registry.instance("orders", "a").unwrap().is_live());

    let granted_index = mesh.registry.grant(1).unwrap().granted_index;
    mesh.run(expire(granted_index, TERM)).unwrap();
    let instance = mesh.registry.instance("orders", "a").unwrap();
    assert_eq!((instance.health, instance.down_since), (Health::Down, Some(mesh.index)));
    assert_eq!(mesh.registry.grant(1), None);
    assert_eq!(mesh.run(expire(granted_index, TERM)), Ok(RegistryDone::default()));
}

#[test]
fn one_lease_may_hold_several_records() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    mesh.register("carts", "a", "10.0.0.1:81", 1).unwrap();
    mesh.run(Command::RecordNode(node(5, 1, 1))).unwrap();
    mesh.deregister("orders", "a").unwrap();
    assert!(mesh.registry.grant(1).is_some());
    mesh.expire(1).unwrap();
    assert!(!mesh.registry.instance("carts", "a").unwrap().is_live());
    assert_eq!(mesh.registry.node(5).unwrap().state, NodeState::Down);
}

#[test]
fn reaping_spares_who_has_come_back() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let reap = |down_since_index| {
        let (service, id) = ("orders".to_owned(), "a".to_owned());
        Command::ReapInstance(ReapInstance { service, id, down_since_index })
    };
    assert_eq!(mesh.run(reap(0)), Ok(RegistryDone::default()));
    mesh.expire(1).unwrap();
    let first = mesh.index;
    mesh.register("orders", "a", "10.0.0.1:80", 2).unwrap();
    assert_eq!(mesh.run(reap(first)), Ok(RegistryDone::default()));
    mesh.expire(2).unwrap();
    assert_eq!(mesh.run(reap(first)), Ok(RegistryDone::default()));
    let second = mesh.index - 1;
    assert_eq!(mesh.run(reap(second)), Ok(RegistryDone { existed: true, ..changed() }));
    assert_eq!(mesh.registry.instance("orders", "a"), None);
}

#[test]
fn node_belongs_to_its_store_and_its_last_start() {
    let mut mesh = Mesh::default();
    mesh.run(Command::RecordNode(node(5, 2, 1))).unwrap();

    let mut swapped = node(5, 3, 2);
    swapped.node.as_mut().unwrap().store_id += 1;
    assert_eq!(mesh.run(Command::RecordNode(swapped)), Err(Reason::StoreMismatch));
    assert_eq!(mesh.run(Command::RecordNode(node(5, 1, 2))), Err(Reason::Superseded));
    let mut copy = node(5, 2, 2);
    copy.node.as_mut().unwrap().mesh_address = "10.0.9.9:7400".into();
    assert_eq!(mesh.run(Command::RecordNode(copy.clone())), Err(Reason::HeldByAnother));

    copy.node.as_mut().unwrap().boot_epoch = 3;
    assert_eq!(mesh.run(Command::RecordNode(copy)), Ok(granted(2)));
    let moved = mesh.registry.node(5).unwrap();
    assert_eq!(moved.mesh_address, "10.0.9.9:7400".parse().unwrap());
    assert_eq!(mesh.registry.grant(1), None);
}

#[test]
fn node_that_returns_within_one_start_keeps_lease_and_state() {
    let mut mesh = Mesh::default();
    mesh.run(Command::RecordNode(node(5, 1, 1))).unwrap();
    let stopping = |lease_id| {
        let state = NodeState::Stopping.into();
        Command::SetNodeState(SetNodeState { node_id: 5, lease_id, state })
    };
    assert_eq!(mesh.run(stopping(9)), Err(Reason::LeaseUnknown));
    mesh.run(stopping(1)).unwrap();
    let again = mesh.run(Command::RecordNode(node(5, 1, 2)));
    assert_eq!(again, Ok(RegistryDone { changed: false, ..granted(1) }));
    assert_eq!(mesh.registry.node(5).unwrap().state, NodeState::Stopping);

    mesh.expire(1).unwrap();
    assert_eq!(mesh.run(stopping(1)), Err(Reason::LeaseUnknown));
    mesh.run(Command::RecordNode(node(5, 2, 3))).unwrap();
    assert_eq!(mesh.registry.node(5).unwrap().state, NodeState::Up);
}

#[test]
fn server_record_follows_the_later_start() {
    let mut mesh = Mesh::default();
    assert_eq!(mesh.run(Command::RecordServer(server(9, 2, "10.0.0.9:7400"))), Ok(changed()));
    let again = mesh.run(Command::RecordServer(server(9, 2, "10.0.0.9:7400")));
    assert_eq!(again, Ok(RegistryDone::default()));
    let old = mesh.run(Command::RecordServer(server(9, 1, "10.0.0.8:7400")));
    assert_eq!(old, Err(Reason::Superseded));
    mesh.run(Command::RecordServer(server(9, 3, "10.0.0.7:7400"))).unwrap();
    assert_eq!(mesh.registry.server(9).unwrap().address, "10.0.0.7:7400".parse().unwrap());
}

#[test]
fn first_voters_are_decided_once() {
    let mut mesh = Mesh::default();
    mesh.nodes(4);
    assert_eq!(mesh.decide("default", &[1, 2, 9]), Err(Reason::NodeUnknown));
    assert_eq!(mesh.decide("default", &[1, 2, 2]), Err(Reason::Malformed));
    assert_eq!(mesh.decide("default", &[]), Err(Reason::Malformed));
    assert_eq!(mesh.decide("default", &[1, 2, 3, 4]), Err(Reason::Malformed));
    assert_eq!(mesh.decide("disco", &[1, 2, 3]), Err(Reason::Malformed));
    assert_eq!(mesh.decide("default", &[1, 2, 3]), Ok(RegistryDone { group: 2, ..changed() }));
    assert_eq!(mesh.decide("default", &[1, 2, 3]), Err(Reason::GroupExists));
    assert_eq!(mesh.decide("default", &[2, 3, 4]), Err(Reason::GroupExists));
    assert_eq!(mesh.decide("orders", &[2, 3, 4]), Ok(RegistryDone { group: 3, ..changed() }));
}

#[test]
fn replicas_are_assigned_up_to_the_limit() {
    let mut mesh = Mesh::default();
    mesh.nodes(9);
    mesh.decide("default", &[1, 2, 3]).unwrap();
    let in_group = RegistryDone { group: 2, ..RegistryDone::default() };
    assert_eq!(mesh.assign(3, 4), Err(Reason::GroupUnknown));
    assert_eq!(mesh.assign(2, 99), Err(Reason::NodeUnknown));
    assert_eq!(mesh.assign(2, 3), Ok(in_group));
    for node_id in 4..=7 {
        assert_eq!(mesh.assign(2, node_id), Ok(RegistryDone { changed: true, ..in_group }));
    }
    assert_eq!(mesh.assign(2, 8), Err(Reason::Exhausted));
    // A node that is down makes room for another.
    mesh.expire(5).unwrap();
    assert_eq!(mesh.assign(2, 8), Ok(RegistryDone { changed: true, ..in_group }));
}

#[test]
fn leader_of_the_highest_term_wins() {
    let mut mesh = Mesh::default();
    mesh.nodes(4);
    mesh.decide("default", &[1, 2, 3]).unwrap();
    let report = |leader_id, term, serving: &[u64]| {
        let (serving, members) = (serving.to_vec(), Vec::new());
        Command::ReportLeader(ReportLeader {
            group: 2,
            leader_id,
            term,
            serving,
            members,
            progress: None,
        })
    };
    let unchanged = Ok(RegistryDone { group: 2, ..RegistryDone::default() });
    let accepted = Ok(RegistryDone { group: 2, ..changed() });
    assert_eq!(mesh.run(report(1, 5, &[])), accepted);
    assert_eq!(mesh.run(report(1, 5, &[])), unchanged);
    assert_eq!(mesh.run(report(2, 4, &[])), unchanged);
    assert_eq!(mesh.run(report(4, 9, &[])), Err(Reason::NodeUnknown));
    assert_eq!(mesh.run(report(2, 6, &[2, 3, 4, 2])), accepted);
    let group = mesh.registry.group_of_namespace("default").unwrap();
    assert_eq!(group.leader, Some(Leader { term: 6, node_id: 2 }));
    assert_eq!(group.serving, [2, 3]);
    assert_eq!(mesh.run(report(2, 6, &[])), unchanged);
}

#[test]
fn empty_command_is_refused() {
    let outcome = Registry::default().apply(RegistryCommand::default(), 1, 1);
    let Some(registry_reply::Outcome::Refused(refusal)) = outcome.reply.outcome else { panic!() };
    assert_eq!(refusal.reason(), Reason::Malformed);
}

#[test]
fn rows_of_no_registry_are_refused() {
    let key = RecordKey::Node(5).encode();
    let restore = |key: &[u8], value: &[u8]| Registry::restore([(key, value)]).unwrap_err();
    assert!(matches!(restore(b"x", b""), RestoreError::Key { .. }));
    assert!(matches!(restore(b"node/123", b""), RestoreError::Key { .. }));
    assert!(matches!(restore(&key, b"\xff"), RestoreError::Decode { .. }));
    assert!(matches!(restore(&key, b""), RestoreError::Invalid { .. }));
    let mut mesh = Mesh::default();
    mesh.nodes(1);
    let other = mesh.registry.record(&RecordKey::Node(1)).unwrap();
    assert!(matches!(restore(&key, &other), RestoreError::Invalid { .. }));
}

#[test]
fn answers_describe_services_and_instances() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    mesh.register("orders", "b", "10.0.0.2:80", 2).unwrap();
    mesh.register("carts", "a", "10.0.0.3:80", 3).unwrap();
    mesh.expire(2).unwrap();
    mesh.mark(3, true);
    let summary: Vec<_> = mesh
        .registry
        .list_services()
        .into_iter()
        .map(|it| (it.name, it.instances, it.healthy, it.silent, it.sidecar_port))
        .collect();
    assert_eq!(summary, [("carts".into(), 1, 0, 1, 21_001), ("orders".into(), 2, 1, 0, 21_000)]);
    let ids = |service| -> Vec<_> {
        mesh.registry.list_instances(service).into_iter().map(|it| it.id).collect()
    };
    assert_eq!(ids("orders"), ["a", "b"]);
    assert_eq!(ids("nosuch"), Vec::<String>::new());
    assert_eq!(ids("").len(), 3);
}

#[test]
fn one_process_with_two_services_is_one_member() {
    let mut mesh = Mesh::default();
    mesh.nodes(2);
    mesh.run(Command::RecordServer(server(1, 1, "10.0.0.1:7400"))).unwrap();
    mesh.run(Command::RecordServer(server(9, 1, "10.0.0.9:7400"))).unwrap();
    let up = ServerStatus { role: "leader".into(), up: true };
    let members: Vec<_> = mesh
        .registry
        .list_members(&BTreeMap::from([(1, up)]))
        .into_iter()
        .map(|it| (it.node_id, it.services.join(","), it.state, it.role))
        .collect();
    let member = |node_id, services: &str, state: &str, role: &str| {
        (node_id, services.to_owned(), state.to_owned(), role.to_owned())
    };
    assert_eq!(
        members,
        [
            member(1, "disco,data", "up", "leader"),
            member(2, "data", "up", ""),
            member(9, "disco", "unknown", ""),
        ]
    );
}

#[test]
fn groups_show_roles_and_the_lag_that_the_leader_sees() {
    let mut mesh = Mesh::default();
    mesh.nodes(2);
    mesh.decide("default", &[1, 2]).unwrap();
    let hosted = |role: &str, term, members| {
        let role = role.to_owned();
        let group = HostedGroup { group: 2, role, term, members, ..HostedGroup::default() };
        NodeStatus { groups: vec![group] }
    };
    let lag = |node_id, lag| GroupMember { node_id, voter: true, lag: Some(lag), silent: false };
    let reports = BTreeMap::from([
        (1, hosted("leader", 3, vec![lag(2, 99)])),
        (2, hosted("leader", 4, vec![lag(1, 7)])),
    ]);
    let [group] = mesh.registry.list_groups(&reports).try_into().unwrap();
    let replicas: Vec<_> = group.replicas.into_iter().map(|it| (it.role, it.lag, it.up)).collect();
    assert_eq!(replicas, [("leader".to_owned(), Some(7), true), ("leader".to_owned(), None, true)]);
}

#[test]
fn node_is_told_its_groups_its_peers_and_disco() {
    let mut mesh = Mesh::default();
    mesh.nodes(5);
    mesh.decide("default", &[1, 2, 3]).unwrap();
    mesh.decide("orders", &[3, 4]).unwrap();
    mesh.run(Command::RecordServer(server(2, 7, "10.0.0.9:7400"))).unwrap();
    mesh.run(Command::RecordServer(server(9, 1, "10.0.0.9:7400"))).unwrap();
    let groups: Vec<_> = mesh.registry.groups_of_node(3).iter().map(|it| it.group).collect();
    assert_eq!(groups, [2, 3]);
    let hints: Vec<_> = mesh
        .registry
        .addresses_for_node(3)
        .into_iter()
        .map(|it| (it.node_id, it.boot_epoch, it.services.join(",")))
        .collect();
    assert_eq!(
        hints,
        [
            (1, 1, "data".to_owned()),
            (2, 7, "data,disco".to_owned()),
            (4, 1, "data".to_owned()),
            (9, 1, "disco".to_owned()),
        ]
    );
    assert_eq!(mesh.registry.groups_of_node(5), []);
}

/// A health report for an instance of `orders`, by the holder of a lease.
fn health(lease_id: u64, id: &str, health: Health) -> Command {
    Command::SetInstanceHealth(SetInstanceHealth {
        service: "orders".to_owned(),
        id: id.to_owned(),
        lease_id,
        health: health.into(),
        ..SetInstanceHealth::default()
    })
}

/// The term in which every command here is committed.
pub(crate) const TERM: u64 = 4;

/// A registry, and the index of the next command.
#[derive(Default)]
pub(crate) struct Mesh {
    pub(crate) registry: Registry,
    pub(crate) index: u64,
    pub(crate) touched: BTreeSet<RecordKey>,
    pub(crate) outcome: Outcome,
    message: String,
}

impl Mesh {
    pub(crate) fn run(&mut self, command: Command) -> Result<RegistryDone, Reason> {
        self.index += 1;
        let command = RegistryCommand { command: Some(command) };
        self.outcome = self.registry.apply(command, self.index, TERM);
        self.touched = self.outcome.touched.clone();
        match self.outcome.reply.outcome.clone().unwrap() {
            registry_reply::Outcome::Done(done) => Ok(done),
            registry_reply::Outcome::Refused(refusal) => {
                let reason = refusal.reason();
                self.message = refusal.message;
                Err(reason)
            }
        }
    }

    pub(crate) fn register(
        &mut self,
        service: &str,
        id: &str,
        address: &str,
        lease_id: u64,
    ) -> Result<RegistryDone, Reason> {
        self.run(Command::RegisterInstance(instance(service, id, address, lease_id)))
    }

    /// Removes an instance, whichever lease holds it.
    pub(crate) fn deregister(&mut self, service: &str, id: &str) -> Result<RegistryDone, Reason> {
        self.deregister_held(service, id, 0)
    }

    pub(crate) fn deregister_held(
        &mut self,
        service: &str,
        id: &str,
        lease_id: u64,
    ) -> Result<RegistryDone, Reason> {
        let (service, id) = (service.to_owned(), id.to_owned());
        self.run(Command::DeregisterInstance(DeregisterInstance { service, id, lease_id }))
    }

    pub(crate) fn expire(&mut self, lease_id: u64) -> Result<RegistryDone, Reason> {
        let granted_index = self.registry.grant(lease_id).map_or(0, |it| it.granted_index);
        self.run(Command::ExpireLease(ExpireLease { lease_id, granted_index, term: TERM }))
    }

    /// Marks a lease as silent, or removes the mark.
    pub(crate) fn mark(&mut self, lease_id: u64, silent: bool) {
        let granted_index = self.registry.grant(lease_id).map_or(0, |it| it.granted_index);
        let marks = vec![LeaseMark { lease_id, granted_index, silent }];
        self.run(Command::MarkLeases(MarkLeases { marks, term: TERM })).unwrap();
    }

    /// Registers the nodes 1 to `count`, each with a lease of the same number.
    pub(crate) fn nodes(&mut self, count: u64) {
        for node_id in 1..=count {
            self.run(Command::RecordNode(node(node_id, 1, node_id))).unwrap();
        }
    }

    pub(crate) fn decide(
        &mut self,
        namespace: &str,
        voters: &[u64],
    ) -> Result<RegistryDone, Reason> {
        self.run(Command::DecideGroup(DecideGroup {
            namespace: namespace.to_owned(),
            first_voters: voters.iter().map(|node_id| member(*node_id)).collect(),
            voters_wanted: 3,
        }))
    }

    pub(crate) fn assign(&mut self, group: u32, node_id: u64) -> Result<RegistryDone, Reason> {
        let replica = Some(member(node_id));
        self.run(Command::AssignReplica(AssignReplica { group, replica }))
    }

    pub(crate) fn lead(&mut self, group: u32, leader_id: u64, term: u64) {
        let serving = Vec::new();
        let members = Vec::new();
        let report = ReportLeader { group, leader_id, term, serving, members, progress: None };
        self.run(Command::ReportLeader(report)).unwrap();
    }
}

pub(crate) fn instance(service: &str, id: &str, address: &str, lease_id: u64) -> RegisterInstance {
    let instance = proto::quorate::v1::Instance {
        service: service.to_owned(),
        id: id.to_owned(),
        address: address.to_owned(),
        ..Default::default()
    };
    RegisterInstance { instance: Some(instance), lease_id, ..RegisterInstance::default() }
}

/// A node whose address is made from its id.
pub(crate) fn node(node_id: u64, boot_epoch: u64, lease_id: u64) -> RecordNode {
    let node = NodeRecord {
        node_id,
        store_id: node_id + 100,
        boot_epoch,
        mesh_address: format!("10.0.1.{node_id}:7400"),
        kv_address: format!("10.0.1.{node_id}:2379"),
        name: format!("n{node_id}"),
        lease_id,
        ..NodeRecord::default()
    };
    RecordNode { node: Some(node) }
}

fn server(node_id: u64, boot_epoch: u64, address: &str) -> RecordServer {
    let services = vec!["disco".to_owned()];
    let address = address.to_owned();
    let hint = AddressHint { node_id, boot_epoch, address, services, ..AddressHint::default() };
    RecordServer { hint: Some(hint), ..RecordServer::default() }
}

fn member(node_id: u64) -> WireMember {
    WireMember { node_id, store_id: node_id + 100 }
}

fn instance_key(service: &str, id: &str) -> RecordKey {
    RecordKey::Instance { service: service.to_owned(), id: id.to_owned() }
}

fn changed() -> RegistryDone {
    RegistryDone { changed: true, ..RegistryDone::default() }
}

fn granted(lease_id: u64) -> RegistryDone {
    RegistryDone { lease_id, ..changed() }
}
