use std::time::Duration;

use proto::quorate::v1::{
    ConfigureService, ReapService, RegistryDone, RemoveService, ServiceOptions as WireOptions,
    registry_refusal::Reason,
};

use super::*;
use crate::options::{ServiceOptions, Timeouts};

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
        let options = WireOptions { stream_idle_ms, try_unhealthy, ..WireOptions::default() };
        configured("orders", options)
    };
    assert_eq!(mesh.run(configure(None, true)), Ok(RegistryDone::default()), "no such service");
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let options = |mesh: &Mesh| mesh.registry.service("orders").unwrap().options.clone();
    assert_eq!(options(&mesh), ServiceOptions::default());
    let existed = RegistryDone { existed: true, ..RegistryDone::default() };
    let done = RegistryDone { existed: true, ..changed() };
    assert_eq!(mesh.run(configure(Some(0), true)), Ok(done));
    assert_eq!(mesh.run(configure(Some(0), true)), Ok(existed), "nothing is touched");
    let timeouts = Timeouts { stream_idle: Some(Duration::ZERO), ..Timeouts::default() };
    let wanted = ServiceOptions { timeouts, try_unhealthy: true, ..ServiceOptions::default() };
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
        let service = Service {
            name: format!("s{port}"),
            protocol: Protocol::Http1,
            sidecar_port: port,
            retired_since: None,
            options: ServiceOptions::default(),
            configured: false,
        };
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

#[test]
fn the_instance_that_registers_last_is_heard_until_somebody_configures_the_service() {
    let mut mesh = Mesh::default();
    let timeout = |mesh: &Mesh| mesh.registry.service("orders").unwrap().options.timeouts.request;
    let secs = |secs| Some(Duration::from_secs(secs));
    let asking = |id: &str, address: &str, lease_id, timeout_ms: Option<u64>| {
        let mut command = instance("orders", id, address, lease_id);
        command.instance.as_mut().unwrap().options = timeout_ms.map(request_timeout);
        Command::RegisterInstance(command)
    };
    mesh.run(asking("a", "10.0.0.1:80", 1, Some(1_000))).unwrap();
    assert_eq!(timeout(&mesh), secs(1));
    mesh.run(asking("b", "10.0.0.2:80", 2, Some(2_000))).unwrap();
    assert_eq!(timeout(&mesh), secs(2));
    mesh.run(asking("c", "10.0.0.3:80", 3, None)).unwrap();
    assert_eq!(timeout(&mesh), secs(2), "who says nothing changes nothing");
    mesh.run(asking("a", "10.0.0.1:80", 1, Some(1_000))).unwrap();
    assert_eq!(timeout(&mesh), secs(2), "the same registration again is no new one");
    mesh.run(asking("a", "10.0.0.1:80", 1, Some(3_000))).unwrap();
    assert_eq!(timeout(&mesh), secs(3));
    let too_long = asking("d", "10.0.0.4:80", 4, Some(u64::MAX));
    assert_eq!(mesh.run(too_long), Err(Reason::Malformed));
    assert_eq!(mesh.registry.instances_of("orders").len(), 3, "a refused one is not there");

    mesh.run(configured("orders", request_timeout(9_000))).unwrap();
    mesh.run(asking("b", "10.0.0.2:80", 5, Some(4_000))).unwrap();
    assert_eq!(timeout(&mesh), secs(9));
    let reset = ConfigureService { name: "orders".into(), ..ConfigureService::default() };
    mesh.run(Command::ConfigureService(reset)).unwrap();
    assert_eq!(timeout(&mesh), secs(4), "instances are heard again, the last one first");
    assert!(!mesh.registry.service("orders").unwrap().configured);
}

#[test]
fn a_service_may_be_configured_before_it_has_an_instance() {
    let mut mesh = Mesh::default();
    let create = |name: &str, protocol: &str| {
        Command::ConfigureService(ConfigureService {
            name: name.into(),
            options: Some(request_timeout(1_000)),
            configured: true,
            create: protocol.into(),
        })
    };
    for (name, protocol) in [("orders", "smtp"), ("ingress", "tcp"), ("", "tcp")] {
        assert_eq!(mesh.run(create(name, protocol)), Err(Reason::Malformed), "{name} {protocol}");
        assert_eq!(mesh.registry.services().count(), 0);
    }
    let done = RegistryDone { existed: true, ..changed() };
    assert_eq!(mesh.run(create("orders", "http2")), Ok(done));
    let service = mesh.registry.service("orders").unwrap();
    assert_eq!((service.protocol, service.sidecar_port), (Protocol::Http2, 21_000));
    assert_eq!(service.forgotten_after(), None, "what somebody wants is kept");
    let mut http2 = instance("orders", "b", "10.0.0.2:80", 2);
    http2.instance.as_mut().unwrap().protocol = "http2".into();
    mesh.run(Command::RegisterInstance(http2)).unwrap();
    assert_eq!(mesh.run(create("orders", "tcp")), Err(Reason::Malformed), "it has an instance");
}

#[test]
fn a_service_that_was_configured_meanwhile_is_not_removed_for_being_empty() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    mesh.deregister("orders", "a").unwrap();
    mesh.run(configured("orders", WireOptions::default())).unwrap();
    let remove = RemoveService { name: "orders".into(), if_empty: true, ..Default::default() };
    assert_eq!(mesh.run(Command::RemoveService(remove.clone())), Ok(RegistryDone::default()));
    let forget = WireOptions { forget_after_ms: Some(60_000), ..WireOptions::default() };
    mesh.run(configured("orders", forget)).unwrap();
    assert!(mesh.run(Command::RemoveService(remove)).unwrap().existed);
}

fn configured(name: &str, options: WireOptions) -> Command {
    Command::ConfigureService(ConfigureService {
        name: name.into(),
        options: Some(options),
        configured: true,
        ..ConfigureService::default()
    })
}

fn request_timeout(millis: u64) -> WireOptions {
    WireOptions { request_timeout_ms: Some(millis), ..WireOptions::default() }
}
