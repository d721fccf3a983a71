use std::collections::BTreeMap;

use proto::quorate::v1::{GroupMember, HostedGroup, NodeStatus};

use super::*;

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

/// U1: without a quorum no lease ends, so only the probes tell that a process is gone.
#[test]
fn a_process_with_two_services_is_down_if_its_server_is() {
    let mut mesh = Mesh::default();
    mesh.nodes(1);
    mesh.run(Command::RecordServer(server(1, 1, "10.0.0.1:7400"))).unwrap();
    let state = |mesh: &Mesh, up| {
        let probed = BTreeMap::from([(1, ServerStatus { role: String::new(), up })]);
        let [member] = mesh.registry.list_members(&probed).try_into().unwrap();
        member.state
    };
    assert_eq!(state(&mesh, true), "up");
    assert_eq!(state(&mesh, false), "down");
    mesh.expire(1).unwrap();
    assert_eq!(state(&mesh, true), "down");
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
