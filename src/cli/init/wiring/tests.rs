use super::*;
use crate::failure::Code;

const MESH: &str = "0190b3a8-0000-7000-8000-000000000001";

#[test]
fn servers_that_were_told_of_each_other_are_formed() {
    let servers = [server(1, [2, 3]), server(2, [1, 3]), server(3, [1, 2])];
    assert_eq!(unlisted(&servers), BTreeSet::new());
    assert_eq!(check(&servers, &BTreeMap::new(), false), Ok(()));
}

/// U4: `init --servers A`, tried on one of three, would form a mesh of one for good.
#[test]
fn a_subset_is_refused_with_the_ones_left_out() {
    let servers = [server(1, [2, 3]), server(2, [1, 3])];
    assert_eq!(unlisted(&servers), BTreeSet::from([address(3)]));
    for answer in [None, Some(identity(3, []))] {
        let others = BTreeMap::from([(address(3), answer)]);
        let refused = check(&servers, &others, false).unwrap_err();
        assert_eq!(refused.code, Code::Refused);
        assert!(refused.message.contains("told of 10.0.0.3:7400"), "{refused}");
        assert!(refused.hint.unwrap().contains("--subset"));
        assert_eq!(check(&servers, &others, true), Ok(()));
    }
}

#[test]
fn a_server_that_the_others_were_not_told_of_is_refused() {
    let servers = [server(1, [2]), server(2, [1]), server(3, [1, 2])];
    let refused = check(&servers, &BTreeMap::new(), false).unwrap_err();
    assert_eq!(refused.code, Code::Refused);
    let told = "10.0.0.1:7400 was not told of 10.0.0.3:7400";
    assert!(refused.message.contains(told), "{refused}");
    assert_eq!(check(&servers, &BTreeMap::new(), true), Ok(()));
}

#[test]
fn a_server_may_be_known_under_an_address_that_is_not_listed() {
    let servers = [server(1, [9, 3]), server(2, [1, 3]), server(3, [1, 9])];
    assert_eq!(unlisted(&servers), BTreeSet::from([address(9)]));
    let others = BTreeMap::from([(address(9), Some(identity(2, [])))]);
    assert_eq!(check(&servers, &others, false), Ok(()));
}

/// D12: a wiped server, formed anew beside the mesh that it was a member of.
#[test]
fn a_server_whose_peers_belong_to_a_mesh_forms_no_other() {
    let peer = ServerIdentity { mesh_id: MESH.to_owned(), ..identity(2, []) };
    let asked = check(&[server(1, [2])], &BTreeMap::from([(address(2), Some(peer))]), true);
    let mut wiped = server(1, [2]);
    wiped.identity.met_mesh_id = MESH.to_owned();
    let told = check(&[wiped], &BTreeMap::from([(address(2), None)]), true);
    for refused in [asked.unwrap_err(), told.unwrap_err()] {
        assert_eq!(refused.code, Code::Refused);
        assert!(refused.message.contains(MESH), "{refused}");
        assert!(refused.hint.unwrap().contains("data directory that it had"));
    }
}

fn server<const N: usize>(n: u8, seeds: [u8; N]) -> Server {
    Server { address: address(n), identity: identity(n, seeds) }
}

fn identity<const N: usize>(n: u8, seeds: [u8; N]) -> ServerIdentity {
    ServerIdentity {
        node_id: n.into(),
        address: address(n).to_string(),
        seeds: seeds.into_iter().map(|seed| address(seed).to_string()).collect(),
        ..ServerIdentity::default()
    }
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 7400))
}
