use std::collections::BTreeMap;

use proto::quorate::v1::{ExpireLease, Health, LeaseMark, MarkLeases, NodeState, RegistryDone};

use super::*;

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
