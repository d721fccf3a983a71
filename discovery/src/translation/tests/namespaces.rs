use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster,
    route::v3::{RouteConfiguration, route},
};
use proto::quorate::v1::{NodeState, ReportLeader, SetNodeState, registry_command::Command};

use super::*;
use crate::{
    registry::tests::{Mesh, node},
    resource::ResourceType,
};

#[test]
fn silent_replicas_of_a_namespace_come_after_the_others() {
    let mut mesh = Mesh::default();
    mesh.nodes(3);
    mesh.decide("default", &[1, 2, 3]).unwrap();
    mesh.mark(2, true);
    let told = Told::of(&mesh).endpoints("kv/default");
    assert!(told[0].contains("10.0.1.2:2379 Degraded"), "{told:?}");
}

#[test]
fn leader_comes_first_and_the_others_are_the_reserve() {
    let mut mesh = three_nodes();
    let all = ["0  3: 10.0.1.1:2379 Healthy 1, 10.0.1.2:2379 Healthy 1, 10.0.1.3:2379 Healthy 1"];
    assert_eq!(Told::of(&mesh).endpoints("kv/default"), all);
    assert_eq!(Told::of(&mesh).endpoints("kv/default/leader"), all);

    mesh.lead(2, 2, 7);
    assert_eq!(Told::of(&mesh).endpoints("kv/default"), all);
    assert_eq!(
        Told::of(&mesh).endpoints("kv/default/leader"),
        ["0  1: 10.0.1.2:2379 Healthy 1", "1  2: 10.0.1.1:2379 Healthy 1, 10.0.1.3:2379 Healthy 1",]
    );
}

#[test]
fn new_leader_changes_one_resource() {
    let mut mesh = three_nodes();
    mesh.lead(2, 2, 7);
    let before = Told::of(&mesh).0;
    mesh.lead(2, 3, 8);
    let after = before.with_changes(9, translated(&mesh));
    for kind in ResourceType::all() {
        let changed: Vec<_> = after
            .resources(kind)
            .filter(|it| before.get(kind, it.name()) != Some(it))
            .map(|it| it.name().to_string())
            .collect();
        let expected: &[&str] =
            if kind == ResourceType::Endpoints { &["kv/default/leader"] } else { &[] };
        assert_eq!(changed, expected);
    }
}

#[test]
fn leader_that_stops_drains_and_one_that_is_down_is_gone() {
    let mut mesh = three_nodes();
    mesh.lead(2, 2, 7);
    let state = NodeState::Stopping.into();
    mesh.run(Command::SetNodeState(SetNodeState { node_id: 2, lease_id: 2, state })).unwrap();
    let reserve = "1  2: 10.0.1.1:2379 Healthy 1, 10.0.1.3:2379 Healthy 1";
    assert_eq!(
        Told::of(&mesh).endpoints("kv/default/leader"),
        ["0  1: 10.0.1.2:2379 Draining 1", reserve]
    );
    mesh.expire(2).unwrap();
    assert_eq!(
        Told::of(&mesh).endpoints("kv/default/leader"),
        ["0  2: 10.0.1.1:2379 Healthy 1, 10.0.1.3:2379 Healthy 1"]
    );
}

#[test]
fn replica_that_does_not_serve_yet_is_left_out() {
    let mut mesh = three_nodes();
    mesh.run(Command::RecordNode(node(4, 1, 4))).unwrap();
    mesh.assign(2, 4).unwrap();
    let report = |serving| ReportLeader {
        group: 2,
        leader_id: 1,
        term: 7,
        serving,
        ..ReportLeader::default()
    };
    mesh.run(Command::ReportLeader(report(vec![1, 2, 3]))).unwrap();
    let hosts = |mesh: &Mesh| Told::of(mesh).endpoints("kv/default").concat().matches(':').count();
    assert_eq!(hosts(&mesh), 1 + 3);
    mesh.run(Command::ReportLeader(report(vec![1, 2, 3, 4]))).unwrap();
    assert_eq!(hosts(&mesh), 1 + 4);
}

#[test]
fn namespace_is_chosen_by_header_and_the_default_takes_the_rest() {
    let mut mesh = three_nodes();
    mesh.decide("orders", &[1, 2, 3]).unwrap();
    let told = Told::of(&mesh);
    assert_eq!(
        told.routes("ingress-kv"),
        [
            route("*", "default", "kv/default/leader"),
            route("*", "orders", "kv/orders/leader"),
            route("*", "", "kv/default/leader"),
        ]
    );
    assert_eq!(
        told.names(ResourceType::Cluster),
        ["kv/default", "kv/default/leader", "kv/orders", "kv/orders/leader"]
    );
}

#[test]
fn retries_are_safe_and_leave_the_leader() {
    let told = Told::of(&three_nodes());
    let route: RouteConfiguration = told.get(ResourceType::Route, "ingress-kv");
    for route in &route.virtual_hosts[0].routes {
        let Some(route::Action::Route(action)) = &route.action else { panic!() };
        let retries = action.retry_policy.as_ref().unwrap();
        assert!(!retries.retry_on.split(',').any(|it| it == "reset"), "{}", retries.retry_on);
        let priority = retries.retry_priority.as_ref().unwrap();
        assert_eq!(priority.name, "envoy.retry_priorities.previous_priorities");
        assert_eq!(retries.retry_host_predicate.len(), 1);
    }
    // By default Envoy allows three concurrent retries per cluster: too few for a failover.
    let cluster: Cluster = told.get(ResourceType::Cluster, "kv/default/leader");
    let limits = &cluster.circuit_breakers.unwrap().thresholds[0];
    assert!(limits.max_retries.unwrap().value > 1_000);
}
