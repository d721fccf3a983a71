use proto::quorate::v1::{
    DeregisterSilent, Health, Locality as WireLocality, ReapInstance, RegisterInstance,
    RegistryDone, SetInstanceHealth, registry_refusal::Reason,
};

use super::*;

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
