use std::collections::BTreeMap;

use proto::quorate::v1::{
    NodeState, RegistryDone, RemoveNode, ReportLeader, SetNodeState, registry_refusal::Reason,
};

use super::*;

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
