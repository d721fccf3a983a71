use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mesh::{Hint, Member, MeshId};
use proto::quorate::v1::{
    AddressHint, AnswerMeta, Directive, GroupRecord, Locality, Member as WireMember, MemberSummary,
};
use tonic::Code;

use super::{
    SessionError,
    orders::{self, Assignment, NodeState, Orders, Peer},
    refused_by_all,
    servers::{backoff, servers_to_try},
    verdict::{Verdict, verdict_of},
};
use crate::namespaces::{DEFAULT_GROUP, DEFAULT_NAMESPACE};

const ALL_CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

#[test]
fn what_is_said_about_this_node_is_final() {
    let expected = [
        Code::InvalidArgument,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::FailedPrecondition,
        Code::Unauthenticated,
    ];
    assert_eq!(codes(Verdict::Final, false), expected);
}

#[test]
fn to_a_node_that_was_accepted_only_its_disk_is_news() {
    let expected = [Code::AlreadyExists, Code::FailedPrecondition];
    assert_eq!(codes(Verdict::Final, true), expected);
}

#[test]
fn only_the_refusal_of_every_seed_ends_a_node() {
    let seeds = [address(1), address(2)];
    let refusal = |n| {
        let message = "another mesh".to_owned();
        (address(n), SessionError::Refused { address: address(n), message })
    };
    assert!(refused_by_all(&seeds, BTreeMap::new()).is_none());
    assert!(refused_by_all(&seeds, BTreeMap::from([refusal(2)])).is_none());
    assert!(refused_by_all(&seeds, BTreeMap::from([refusal(2), refusal(3)])).is_none());
    let all = BTreeMap::from([refusal(1), refusal(2)]);
    assert!(refused_by_all(&seeds, all).is_some());
    assert!(refused_by_all(&[], BTreeMap::new()).is_none());
}

#[test]
fn backoff_grows_to_two_seconds() {
    let longest: Vec<u128> = (0..8).map(|n| backoff(n, 1.0).as_millis()).collect();
    assert_eq!(longest, [100, 200, 400, 800, 1600, 2000, 2000, 2000]);
    assert_eq!(backoff(u32::MAX, 1.0), Duration::from_secs(2));
}

#[test]
fn half_of_the_backoff_is_random() {
    assert_eq!(backoff(3, 0.0), Duration::from_millis(400));
    assert_eq!(backoff(3, 0.5), Duration::from_millis(600));
}

#[test]
fn every_disco_server_is_tried_once() {
    let seeds = [address(1), address(2)];
    let hints = vec![hint(2, "disco"), hint(3, "disco"), hint(4, "data")];
    let mut tried = servers_to_try(&seeds, hints, None);
    tried.sort_unstable();
    assert_eq!(tried, [address(1), address(2), address(3)]);
}

#[test]
fn the_server_just_lost_is_tried_last() {
    let seeds: Vec<SocketAddr> = (1..=5).map(address).collect();
    for lost in &seeds {
        assert_eq!(servers_to_try(&seeds, Vec::new(), Some(*lost)).last(), Some(lost));
    }
}

#[test]
fn a_directive_is_read_as_orders() {
    let mesh = MeshId::generate();
    let assignment = Assignment {
        group: DEFAULT_GROUP,
        namespace: DEFAULT_NAMESPACE.to_owned(),
        first_voters: vec![member(1)],
        replicas: vec![member(1), member(2)],
        voters_wanted: 3,
        formed: true,
    };
    let peer = Peer {
        node_id: 1,
        name: "n1".to_owned(),
        mesh_address: Some(address(1)),
        kv_address: None,
        zone: "eu/a".to_owned(),
        state: NodeState::Down,
    };
    let expected = Orders {
        mesh: mesh.clone(),
        assignments: BTreeMap::from([(DEFAULT_GROUP, assignment)]),
        peers: BTreeMap::from([(1, peer)]),
        fresh: true,
    };
    assert_eq!(orders::from_proto(mesh, &directive()), expected);
}

#[test]
fn orders_of_a_server_without_a_quorum_are_not_fresh() {
    let mut stale = directive();
    stale.meta = Some(AnswerMeta { stale_for_ms: 1, ..AnswerMeta::default() });
    assert!(!orders::from_proto(MeshId::generate(), &stale).fresh);
    stale.meta = None;
    assert!(!orders::from_proto(MeshId::generate(), &stale).fresh);
}

#[test]
fn a_state_of_a_later_version_is_neither_up_nor_down() {
    let mut directive = directive();
    for (text, state) in [
        ("up", NodeState::Up),
        ("down", NodeState::Down),
        ("removed", NodeState::Removed),
        ("stopping", NodeState::Away),
        ("levitating", NodeState::Away),
        ("", NodeState::Away),
    ] {
        text.clone_into(&mut directive.members[0].state);
        let orders = orders::from_proto(MeshId::generate(), &directive);
        assert_eq!(orders.peers[&1].state, state, "{text:?}");
    }
}

#[test]
fn hints_that_cannot_be_read_are_left_out() {
    let hints: Vec<Hint> = orders::hints(&directive()).collect();
    assert_eq!(hints, [hint(1, "disco")]);
}

fn codes(verdict: Verdict, accepted_before: bool) -> Vec<Code> {
    ALL_CODES.into_iter().filter(|code| verdict_of(*code, accepted_before) == verdict).collect()
}

fn directive() -> Directive {
    let wire = |id| WireMember { node_id: id, store_id: 100 + id };
    Directive {
        meta: Some(AnswerMeta::default()),
        groups: vec![GroupRecord {
            group: DEFAULT_GROUP,
            namespace: DEFAULT_NAMESPACE.to_owned(),
            first_voters: vec![wire(1)],
            replicas: vec![wire(1), wire(2)],
            leader_id: 1,
            term: 4,
            voters_wanted: 3,
            serving: Vec::new(),
            members: Vec::new(),
            progress: None,
        }],
        addresses: vec![
            AddressHint {
                node_id: 1,
                boot_epoch: 1,
                address: address(1).to_string(),
                services: vec!["disco".to_owned()],
                ..AddressHint::default()
            },
            AddressHint {
                node_id: 2,
                boot_epoch: 1,
                address: "disco.example:7400".to_owned(),
                services: Vec::new(),
                ..AddressHint::default()
            },
        ],
        members: vec![MemberSummary {
            node_id: 1,
            name: "n1".to_owned(),
            mesh_address: address(1).to_string(),
            locality: Some(Locality { region: "eu".to_owned(), zone: "a".to_owned() }),
            state: "down".to_owned(),
            ..MemberSummary::default()
        }],
        ..Directive::default()
    }
}

fn member(node_id: u64) -> Member {
    Member { node_id, store_id: 100 + node_id }
}

fn hint(last: u8, service: &str) -> Hint {
    Hint {
        node_id: last.into(),
        boot_epoch: 1,
        start: 0,
        moves: 0,
        address: address(last),
        services: vec![service.to_owned()],
    }
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 7400))
}
