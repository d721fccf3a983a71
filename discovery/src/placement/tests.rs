use proto::quorate::v1::{Locality as WireLocality, ReportLeader, SetNodeState};

use super::*;
use crate::registry::tests::{Mesh, node};

#[test]
fn default_namespace_is_decided_once_enough_nodes_are_up() {
    let mut mesh = Mesh::default();
    mesh.nodes(2);
    assert_eq!(proposals(&mesh.registry, 3), []);
    mesh.run(Command::RecordNode(node(3, 1, 3))).unwrap();
    assert_eq!(settle(&mut mesh, 3), ["decide default 1,2,3"]);
    assert_eq!(proposals(&mesh.registry, 3), []);
}

#[test]
fn single_mode_decides_with_one() {
    let mut mesh = Mesh::default();
    assert_eq!(proposals(&mesh.registry, 1), []);
    mesh.nodes(1);
    assert_eq!(settle(&mut mesh, 1), ["decide default 1"]);
}

#[test]
fn voters_are_spread_over_zones() {
    let mut mesh = Mesh::default();
    for (node_id, zone) in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "c")] {
        join(&mut mesh, node_id, zone);
    }
    assert_eq!(settle(&mut mesh, 3), ["decide default 1,4,5", "assign 2 2", "assign 2 3"]);
}

#[test]
fn two_zones_share_three_voters() {
    let mut mesh = Mesh::default();
    for (node_id, zone) in [(1, "a"), (2, "a"), (3, "a"), (4, "b")] {
        join(&mut mesh, node_id, zone);
    }
    assert_eq!(settle(&mut mesh, 3), ["decide default 1,2,4", "assign 2 3"]);
}

#[test]
fn nodes_that_stop_or_are_down_are_not_chosen() {
    let mut mesh = Mesh::default();
    mesh.nodes(5);
    stop(&mut mesh, 1);
    mesh.expire(2).unwrap();
    assert_eq!(settle(&mut mesh, 3), ["decide default 3,4,5"]);
    mesh.run(Command::RecordNode(node(2, 2, 2))).unwrap();
    assert_eq!(settle(&mut mesh, 3), ["assign 2 2"]);
}

#[test]
fn group_whose_voters_are_all_gone_is_not_decided_again() {
    let mut mesh = Mesh::default();
    mesh.nodes(3);
    settle(&mut mesh, 3);
    for lease_id in 1..=3 {
        mesh.expire(lease_id).unwrap();
    }
    for node_id in 4..=6 {
        join(&mut mesh, node_id, "");
    }
    assert_eq!(settle(&mut mesh, 3), ["assign 2 4", "assign 2 5", "assign 2 6"]);
    assert_eq!(mesh.registry.group(2).unwrap().first_voters.len(), 3);
}

#[test]
fn further_replicas_stop_at_the_limit_and_replace_those_down() {
    let mut mesh = Mesh::default();
    mesh.nodes(9);
    assert_eq!(
        settle(&mut mesh, 3),
        ["decide default 1,2,3", "assign 2 4", "assign 2 5", "assign 2 6", "assign 2 7"]
    );
    // A node with another disk at the same address is another node; one node is down.
    mesh.expire(7).unwrap();
    assert_eq!(settle(&mut mesh, 3), ["assign 2 8"]);
}

#[test]
fn nodes_that_come_and_go_with_empty_disks_never_fill_the_list() {
    let mut mesh = Mesh::default();
    mesh.nodes(3);
    settle(&mut mesh, 3);
    for node_id in 4..200 {
        join(&mut mesh, node_id, "");
        assert_eq!(settle(&mut mesh, 3), [format!("assign 2 {node_id}")]);
        mesh.expire(node_id).unwrap();
        members(&mut mesh, &[1, 2, 3]);
    }
    let group = mesh.registry.group(2).unwrap();
    assert!([1, 2, 3, 199].iter().all(|node_id| group.has_replica(*node_id)));
}

#[test]
fn a_full_list_of_members_that_are_down_asks_for_nothing() {
    let mut mesh = Mesh::default();
    mesh.nodes(3);
    settle(&mut mesh, 3);
    let mut known = vec![1, 2, 3];
    for node_id in 4..=64 {
        join(&mut mesh, node_id, "");
        settle(&mut mesh, 3);
        mesh.expire(node_id).unwrap();
        known.push(node_id);
    }
    members(&mut mesh, &known);
    join(&mut mesh, 65, "");
    assert_eq!(settle(&mut mesh, 3), Vec::<String>::new(), "a member keeps its place");
}

#[test]
fn further_replicas_prefer_zones_that_have_few() {
    let mut mesh = Mesh::default();
    for node_id in 1..=3 {
        join(&mut mesh, node_id, "a");
    }
    settle(&mut mesh, 3);
    for (node_id, zone) in [(4, "a"), (5, "a"), (6, "a"), (7, "b"), (8, "b"), (9, "b"), (10, "c")] {
        join(&mut mesh, node_id, zone);
    }
    assert_eq!(settle(&mut mesh, 3), ["assign 2 7", "assign 2 10", "assign 2 8", "assign 2 9"]);
}

#[test]
fn every_group_gets_every_node() {
    let mut mesh = Mesh::default();
    mesh.nodes(4);
    settle(&mut mesh, 3);
    mesh.decide("orders", &[2, 3, 4]).unwrap();
    assert_eq!(settle(&mut mesh, 3), ["assign 3 1"]);
}

/// Applies the proposals until there are none. Returns them as text.
fn settle(mesh: &mut Mesh, voters_wanted: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..100 {
        let proposals = proposals(&mesh.registry, voters_wanted);
        if proposals.is_empty() {
            return told;
        }
        for proposal in proposals {
            let command = proposal.command.unwrap();
            told.push(describe(&command));
            assert!(mesh.run(command).unwrap().changed);
        }
    }
    panic!("placement does not settle: {told:?}");
}

/// Reports that node 1 leads, and the members of the group.
fn members(mesh: &mut Mesh, members: &[u64]) {
    let report = ReportLeader {
        group: 2,
        leader_id: 1,
        term: 1,
        serving: Vec::new(),
        members: members.to_vec(),
        progress: None,
    };
    mesh.run(Command::ReportLeader(report)).unwrap();
}

fn describe(command: &Command) -> String {
    if let Command::DecideGroup(it) = command {
        let voters: Vec<_> = it.first_voters.iter().map(|it| it.node_id.to_string()).collect();
        return format!("decide {} {}", it.namespace, voters.join(","));
    }
    let Command::AssignReplica(it) = command else { panic!("{command:?}") };
    format!("assign {} {}", it.group, it.replica.unwrap().node_id)
}

fn join(mesh: &mut Mesh, node_id: u64, zone: &str) {
    let mut command = node(node_id, 1, node_id);
    let locality = WireLocality { region: String::new(), zone: zone.to_owned() };
    command.node.as_mut().unwrap().locality = Some(locality);
    mesh.run(Command::RecordNode(command)).unwrap();
}

fn stop(mesh: &mut Mesh, node_id: u64) {
    let state = NodeState::Stopping.into();
    mesh.run(Command::SetNodeState(SetNodeState { node_id, lease_id: node_id, state })).unwrap();
}
