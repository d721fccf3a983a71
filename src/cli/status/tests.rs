use proto::quorate::v1::{GroupRecord, ReplicaSummary};

use super::*;

#[test]
fn a_mesh_that_is_well_has_no_ailment() {
    let mesh = well();
    assert_eq!(assess(&mesh), []);
    let screen = screen(&mesh, &[]);
    for line in ["disco     3 of 3 up", "data      3 of 3 up", "all is well"] {
        assert!(screen.lines().any(|it| it == line), "{line} in {screen}");
    }
}

#[test]
fn a_lost_quorum_of_disco_comes_first_and_names_who_to_start() {
    let mut mesh = well();
    mesh.answer.stale_for_ms = 12_345;
    mesh.members[1].state = "down".to_owned();
    mesh.members[2].state = "down".to_owned();
    let ailments = assess(&mesh);
    assert_eq!(ailments[0].severity, Severity::NoQuorum);
    assert_eq!(ailments[0].what, "DISCO has heard of no quorum for 12 s");
    assert!(ailments[0].fix.contains("disco-2") && ailments[0].fix.contains("disco-3"));
}

#[test]
fn a_group_without_a_leader_takes_no_writes() {
    let mut mesh = well();
    if let Some(record) = &mut mesh.groups[0].record {
        record.leader_id = 0;
    }
    let [ailment] = assess(&mesh).try_into().expect("one ailment");
    assert_eq!(ailment.severity, Severity::Broken);
    assert!(ailment.what.contains("group `default` has no leader"), "{ailment:?}");
}

#[test]
fn a_node_that_is_down_weakens_its_group() {
    let mut mesh = well();
    mesh.members[5].state = "down".to_owned();
    mesh.groups[0].replicas[2].up = false;
    let whats: Vec<_> = assess(&mesh).into_iter().map(|it| it.what).collect();
    assert_eq!(whats.len(), 2, "{whats:?}");
    assert!(whats[0].starts_with("data-3"), "{whats:?}");
    assert_eq!(whats[1], "group `default` has 2 of 3 voters");
}

#[test]
fn a_service_without_a_healthy_instance_does_not_serve() {
    let mut mesh = well();
    mesh.services[0].healthy = 0;
    assert_eq!(assess(&mesh)[0].what, "no instance of service `web` is healthy");
    mesh.services[0].instances = 0;
    assert_eq!(assess(&mesh), [], "nobody expects a service without instances to serve");
}

#[test]
fn silent_instances_weaken_their_service_and_can_be_deregistered() {
    let mut mesh = well();
    mesh.services[0].silent = 1;
    let [ailment] = assess(&mesh).try_into().expect("one ailment");
    assert_eq!(ailment.severity, Severity::Weakened);
    assert!(ailment.what.starts_with("1 of 2 instances of service `web` are silent"));
    assert!(ailment.fix.contains("quorate deregister --silent --service web"), "{ailment:?}");
}

#[test]
fn a_silent_node_is_told_like_one_that_is_down() {
    let mut mesh = well();
    mesh.members[5].state = "silent".to_owned();
    assert!(assess(&mesh)[0].what.ends_with("is silent"));
}

fn well() -> Mesh {
    let member = |number: u64, service: &str| MemberSummary {
        node_id: number,
        name: format!("{service}-{}", (number - 1) % 3 + 1),
        services: vec![service.to_owned()],
        state: "up".to_owned(),
        ..MemberSummary::default()
    };
    let replica = |node_id, role: &str| ReplicaSummary {
        node_id,
        role: role.to_owned(),
        up: true,
        ..ReplicaSummary::default()
    };
    Mesh {
        answer: Answer { leader: Some("1".to_owned()), ..Answer::default() },
        members: (1..=3)
            .map(|it| member(it, "disco"))
            .chain((4..=6).map(|it| member(it, "data")))
            .collect(),
        groups: vec![GroupSummary {
            record: Some(GroupRecord {
                namespace: "default".to_owned(),
                leader_id: 4,
                voters_wanted: 3,
                ..GroupRecord::default()
            }),
            replicas: vec![replica(4, "leader"), replica(5, "follower"), replica(6, "follower")],
            ..GroupSummary::default()
        }],
        services: vec![ServiceSummary {
            name: "web".to_owned(),
            instances: 2,
            healthy: 1,
            ..ServiceSummary::default()
        }],
    }
}
