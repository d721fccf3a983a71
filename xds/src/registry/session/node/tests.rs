use discovery::registry::Acknowledged;
use proto::quorate::v1::{
    DecideGroup, ExpireLease, GroupMember, Member, RegistryCommand, registry_reply::Outcome,
};

use super::*;

const LEASE: u64 = 77;

fn hello() -> NodeHello {
    NodeHello {
        node_id: 1,
        store_id: 11,
        boot_epoch: 1,
        mesh_address: "10.0.0.1:7400".to_owned(),
        kv_address: "10.0.0.1:2379".to_owned(),
        name: "n1".to_owned(),
        ..NodeHello::default()
    }
}

fn node(hello: NodeHello) -> SessionNode {
    SessionNode::new(hello, LEASE).unwrap()
}

/// A registry that applies what a node asks for.
#[derive(Default)]
struct TestRegistry {
    inner: Registry,
    index: u64,
}

impl TestRegistry {
    fn apply(&mut self, command: Command) {
        self.index += 1;
        let command = RegistryCommand { command: Some(command) };
        let reply = self.inner.apply(command, self.index, 1).reply;
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
    }

    /// Does everything that remains to be done, and says what that was.
    fn settle(&mut self, node: &SessionNode) -> Vec<NodeCommand> {
        let mut done = Vec::new();
        while let Some(command) = node.next_command(&self.inner) {
            self.apply(command.clone().into_command());
            done.push(command);
            assert!(done.len() < 10, "it never ends: {done:?}");
        }
        done
    }

    fn decide_group(&mut self) {
        self.apply(Command::DecideGroup(DecideGroup {
            namespace: "default".to_owned(),
            first_voters: vec![Member { node_id: 1, store_id: 11 }],
            voters_wanted: 1,
        }));
    }
}

fn leads(term: u64) -> NodeStatus {
    let group = HostedGroup {
        group: 2,
        role: "leader".to_owned(),
        term,
        leader_id: 1,
        members: vec![
            GroupMember { node_id: 1, voter: true, lag: Some(0), silent: false },
            GroupMember { node_id: 9, voter: false, lag: Some(0), silent: false },
        ],
        ..HostedGroup::default()
    };
    NodeStatus { groups: vec![group] }
}

#[test]
fn a_node_is_recorded_once() {
    let mut registry = TestRegistry::default();
    let node = node(hello());
    assert_eq!(node.record_state(&registry.inner), RecordState::Unknown);
    assert!(matches!(registry.settle(&node)[..], [NodeCommand::Record(_)]));
    let recorded = RecordState::Recorded { lease_id: LEASE, stopping: false };
    assert_eq!(node.record_state(&registry.inner), recorded);
}

#[test]
fn a_later_start_is_recorded_again() {
    let mut registry = TestRegistry::default();
    registry.settle(&node(hello()));
    let later = node(NodeHello { boot_epoch: 2, ..hello() });
    assert_eq!(later.record_state(&registry.inner), RecordState::Outdated);
    assert!(matches!(registry.settle(&later)[..], [NodeCommand::Record(_)]));
}

#[test]
fn a_node_whose_lease_ended_is_recorded_again() {
    let mut registry = TestRegistry::default();
    let node = node(hello());
    registry.settle(&node);
    let granted_index = registry.index;
    registry.apply(Command::ExpireLease(ExpireLease { lease_id: LEASE, granted_index, term: 1 }));
    assert_eq!(node.record_state(&registry.inner), RecordState::Outdated);
    assert!(matches!(registry.settle(&node)[..], [NodeCommand::Record(_)]));
}

#[test]
fn an_address_spelled_otherwise_is_the_same() {
    let mut registry = TestRegistry::default();
    let spelled = NodeHello { mesh_address: "[2001:DB8:0:0::1]:7400".to_owned(), ..hello() };
    let node = node(spelled);
    assert_eq!(registry.settle(&node).len(), 1);
}

#[test]
fn a_leader_is_reported_when_it_is_news() {
    let mut registry = TestRegistry::default();
    let mut node = node(hello());
    node.report(leads(3));
    registry.settle(&node);
    registry.decide_group();
    let NodeCommand::ReportLeader(report) = &registry.settle(&node)[..][0] else {
        panic!("no report")
    };
    assert_eq!((report.term, report.leader_id, &report.serving[..]), (3, 1, &[1][..]));
    assert!(registry.settle(&node).is_empty());
    node.report(leads(2));
    assert!(registry.settle(&node).is_empty());
    node.report(leads(4));
    assert_eq!(registry.settle(&node).len(), 1);
}

#[test]
fn a_leader_of_a_group_that_it_should_not_host_is_not_believed() {
    let mut registry = TestRegistry::default();
    let first = node(hello());
    registry.settle(&first);
    registry.decide_group();
    let mut other = node(NodeHello { node_id: 2, store_id: 22, ..hello() });
    registry.settle(&other);
    other.report(leads(9));
    assert!(registry.settle(&other).is_empty());
}

#[test]
fn a_stop_is_noted_once() {
    let mut registry = TestRegistry::default();
    let mut node = node(hello());
    registry.settle(&node);
    node.stop();
    assert!(matches!(registry.settle(&node)[..], [NodeCommand::Stop(_)]));
    let noted = RecordState::Recorded { lease_id: LEASE, stopping: true };
    assert_eq!(node.record_state(&registry.inner), noted);
}

#[test]
fn what_a_leader_knows_of_its_replicas_is_recorded() {
    let mut registry = TestRegistry::default();
    let mut node = node(hello());
    registry.settle(&node);
    registry.decide_group();
    node.report(at(3, 10, 9));
    registry.settle(&node);
    let progress = |registry: &TestRegistry| registry.inner.group(2).unwrap().progress.clone();
    let expected = Progress {
        term: 3,
        last_index: 10,
        committed: 9,
        replicas: [
            (1, Acknowledged { term: 3, index: 9 }),
            (8, Acknowledged::default()),
            (9, Acknowledged { term: 3, index: 6 }),
        ]
        .into(),
    };
    assert_eq!(progress(&registry), expected);
    assert_eq!(node.progress_command(&registry.inner), None);

    node.report(at(3, 20, 19));
    assert!(registry.settle(&node).is_empty(), "it is no news that must be told at once");
    let command = node.progress_command(&registry.inner).unwrap();
    registry.apply(command.into_command());
    assert_eq!(progress(&registry).committed, 19);
    node.report(at(2, 99, 99));
    assert_eq!(node.progress_command(&registry.inner), None, "an overtaken leader");
}

/// Node 1 leads; node 9 is four entries behind, and node 8 was never heard.
fn at(term: u64, last_index: u64, committed_index: u64) -> NodeStatus {
    let mut status = leads(term);
    let hosted = &mut status.groups[0];
    (hosted.last_index, hosted.committed_index) = (last_index, committed_index);
    hosted.members = vec![
        GroupMember { node_id: 1, voter: true, lag: Some(0), silent: false },
        GroupMember { node_id: 8, voter: true, lag: Some(last_index), silent: false },
        GroupMember { node_id: 9, voter: true, lag: Some(4), silent: false },
    ];
    status
}
