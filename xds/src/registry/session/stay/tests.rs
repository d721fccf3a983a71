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

fn stay(hello: NodeHello) -> Stay {
    Stay::new(hello, LEASE).unwrap()
}

/// A registry that is fed what a stay asks for.
#[derive(Default)]
struct Fed {
    registry: Registry,
    index: u64,
}

impl Fed {
    fn apply(&mut self, command: Command) {
        self.index += 1;
        let command = RegistryCommand { command: Some(command) };
        let reply = self.registry.apply(command, self.index, 1).reply;
        assert!(matches!(reply.outcome, Some(Outcome::Done(_))), "{reply:?}");
    }

    /// Does everything that remains to be done, and says what that was.
    fn settle(&mut self, stay: &Stay) -> Vec<Task> {
        let mut done = Vec::new();
        while let Some(task) = stay.next_task(&self.registry) {
            self.apply(task.clone().into_command());
            done.push(task);
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
    let mut fed = Fed::default();
    let stay = stay(hello());
    assert_eq!(stay.standing(&fed.registry), Standing::Unknown);
    assert!(matches!(fed.settle(&stay)[..], [Task::Record(_)]));
    let recorded = Standing::Recorded { lease_id: LEASE, stopping: false };
    assert_eq!(stay.standing(&fed.registry), recorded);
}

#[test]
fn a_later_start_is_recorded_again() {
    let mut fed = Fed::default();
    fed.settle(&stay(hello()));
    let later = stay(NodeHello { boot_epoch: 2, ..hello() });
    assert_eq!(later.standing(&fed.registry), Standing::Outdated);
    assert!(matches!(fed.settle(&later)[..], [Task::Record(_)]));
}

#[test]
fn a_node_whose_lease_ended_is_recorded_again() {
    let mut fed = Fed::default();
    let stay = stay(hello());
    fed.settle(&stay);
    let granted_index = fed.index;
    fed.apply(Command::ExpireLease(ExpireLease { lease_id: LEASE, granted_index, term: 1 }));
    assert_eq!(stay.standing(&fed.registry), Standing::Outdated);
    assert!(matches!(fed.settle(&stay)[..], [Task::Record(_)]));
}

#[test]
fn an_address_spelled_otherwise_is_the_same() {
    let mut fed = Fed::default();
    let spelled = NodeHello { mesh_address: "[2001:DB8:0:0::1]:7400".to_owned(), ..hello() };
    let stay = stay(spelled);
    assert_eq!(fed.settle(&stay).len(), 1);
}

#[test]
fn a_leader_is_reported_when_it_is_news() {
    let mut fed = Fed::default();
    let mut stay = stay(hello());
    stay.report(leads(3));
    fed.settle(&stay);
    fed.decide_group();
    let Task::ReportLeader(report) = &fed.settle(&stay)[..][0] else { panic!("no report") };
    assert_eq!((report.term, report.leader_id, &report.serving[..]), (3, 1, &[1][..]));
    assert!(fed.settle(&stay).is_empty());
    stay.report(leads(2));
    assert!(fed.settle(&stay).is_empty());
    stay.report(leads(4));
    assert_eq!(fed.settle(&stay).len(), 1);
}

#[test]
fn a_leader_of_a_group_that_it_should_not_host_is_not_believed() {
    let mut fed = Fed::default();
    let first = stay(hello());
    fed.settle(&first);
    fed.decide_group();
    let mut other = stay(NodeHello { node_id: 2, store_id: 22, ..hello() });
    fed.settle(&other);
    other.report(leads(9));
    assert!(fed.settle(&other).is_empty());
}

#[test]
fn a_stop_is_noted_once() {
    let mut fed = Fed::default();
    let mut stay = stay(hello());
    fed.settle(&stay);
    stay.stop();
    assert!(matches!(fed.settle(&stay)[..], [Task::Stop(_)]));
    let noted = Standing::Recorded { lease_id: LEASE, stopping: true };
    assert_eq!(stay.standing(&fed.registry), noted);
}

#[test]
fn what_a_leader_knows_of_its_replicas_is_recorded() {
    let mut fed = Fed::default();
    let mut stay = stay(hello());
    fed.settle(&stay);
    fed.decide_group();
    stay.report(at(3, 10, 9));
    fed.settle(&stay);
    let progress = |fed: &Fed| fed.registry.group(2).unwrap().progress.clone();
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
    assert_eq!(progress(&fed), expected);
    assert_eq!(stay.progress_task(&fed.registry), None);

    stay.report(at(3, 20, 19));
    assert!(fed.settle(&stay).is_empty(), "it is no news that must be told at once");
    let task = stay.progress_task(&fed.registry).unwrap();
    fed.apply(task.into_command());
    assert_eq!(progress(&fed).committed, 19);
    stay.report(at(2, 99, 99));
    assert_eq!(stay.progress_task(&fed.registry), None, "an overtaken leader");
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
