use std::time::Duration;

use proto::quorate::v1::{
    ConfigureService, ReapService, RegistryDone, RemoveService, ServiceOptions as WireOptions,
    registry_refusal::Reason,
};

use super::*;

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
fn options_of_a_service_are_replaced_and_outlive_its_removal() {
    let mut mesh = Mesh::default();
    let configure = |stream_idle_ms, try_unhealthy| {
        let options = Some(WireOptions { stream_idle_ms, try_unhealthy });
        Command::ConfigureService(ConfigureService { name: "orders".into(), options })
    };
    assert_eq!(mesh.run(configure(None, true)), Ok(RegistryDone::default()), "no such service");
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let options = |mesh: &Mesh| mesh.registry.service("orders").unwrap().options;
    assert_eq!(options(&mesh), ServiceOptions::default());
    let existed = RegistryDone { existed: true, ..RegistryDone::default() };
    let done = RegistryDone { existed: true, ..changed() };
    assert_eq!(mesh.run(configure(Some(0), true)), Ok(done));
    assert_eq!(mesh.run(configure(Some(0), true)), Ok(existed), "nothing is touched");
    let wanted = ServiceOptions { stream_idle: Some(Duration::ZERO), try_unhealthy: true };
    assert_eq!(options(&mesh), wanted);
    assert_eq!(mesh.run(configure(Some(u64::MAX), true)), Err(Reason::Malformed));

    let name = "orders".to_owned();
    mesh.run(Command::RemoveService(RemoveService { name, force: true, if_empty: false })).unwrap();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    assert_eq!(options(&mesh), wanted);
    assert_eq!(mesh.run(configure(None, false)), Ok(done));
    assert_eq!(options(&mesh), ServiceOptions::default());
}

#[test]
fn a_freed_port_is_given_again_when_no_other_is_left() {
    let mut registry = Registry::default();
    let mut effects = Effects::default();
    for port in SIDECAR_PORTS.filter(|port| *port != 21_500) {
        let (name, protocol) = (format!("s{port}"), Protocol::Http1);
        let options = ServiceOptions::default();
        let service = Service { name, protocol, sidecar_port: port, retired_since: None, options };
        registry.put_service(service, &mut effects);
    }
    assert_eq!(registry.free_port(), Some(21_500));
    registry.ports.insert(21_500);
    assert_eq!(registry.free_port(), None);
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
