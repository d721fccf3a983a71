use proto::quorate::v1::{RegistryDone, ReportLeader, registry_refusal::Reason};

use super::*;

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
