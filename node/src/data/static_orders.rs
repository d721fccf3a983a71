//! What to host where there is no DISCO: the namespace `default`, on the members of the formation.
//!
//! All of them hold a replica. The first voters are three of them, or five of five and more: those
//! with the lowest ids, which is the same choice on every server. The leader adds the others as
//! learners. A voter is never replaced, since without DISCO nothing tells which nodes are down.

use std::collections::BTreeMap;

use mesh::{Member, MeshId, node_hex};
use proto::quorate::v1::{Formation, FormationMember};
use tracing::warn;

use crate::{
    namespaces::{DEFAULT_GROUP, DEFAULT_NAMESPACE},
    session::{Assignment, NodeState, Orders, Peer},
};

/// Turns a formation into orders. It is as final as a group that DISCO has decided.
pub(crate) fn from_formation(formation: &Formation) -> Option<Orders> {
    let Ok(mesh) = formation.mesh_id.parse::<MeshId>() else {
        warn!(mesh_id = formation.mesh_id, "a formation without a mesh id");
        return None;
    };
    let mut members: Vec<Member> = formation.members.iter().map(member).collect();
    members.sort_by_key(|member| member.node_id);
    let voters = voters_of(members.len());
    let assignment = Assignment {
        group: DEFAULT_GROUP,
        namespace: DEFAULT_NAMESPACE.to_owned(),
        voters_wanted: voters,
        first_voters: members[..voters].to_vec(),
        replicas: members,
        formed: false,
    };
    Some(Orders {
        mesh,
        assignments: BTreeMap::from([(DEFAULT_GROUP, assignment)]),
        peers: formation.members.iter().map(|member| (member.node_id, peer(member))).collect(),
        fresh: true,
    })
}

/// How many of `servers` vote. Always an odd number: one voter more would not tolerate another
/// failure.
const fn voters_of(servers: usize) -> usize {
    match servers {
        0 => 0,
        1 | 2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}

const fn member(member: &FormationMember) -> Member {
    Member { node_id: member.node_id, store_id: member.store_id }
}

fn peer(member: &FormationMember) -> Peer {
    Peer {
        node_id: member.node_id,
        name: node_hex(member.node_id),
        // The formation has the address at the time of forming; the book has the current one.
        mesh_address: None,
        kv_address: None,
        zone: String::new(),
        // Without DISCO nothing tells that a node is down.
        state: NodeState::Up,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_servers_vote_or_five_of_five_and_more() {
        let voters: Vec<usize> = (1..=9).map(voters_of).collect();
        assert_eq!(voters, [1, 1, 3, 3, 5, 5, 5, 5, 5]);
    }

    #[test]
    fn the_lowest_ids_vote_and_all_hold_a_replica_in_whatever_order_they_are_listed() {
        let expected = from_formation(&formation([1, 2, 3, 4, 5, 6, 7])).unwrap();
        let told = from_formation(&formation([7, 3, 5, 1, 6, 2, 4])).unwrap();
        assert_eq!(told.assignments, expected.assignments);
        let assignment = &told.assignments[&DEFAULT_GROUP];
        let ids = |members: &[Member]| members.iter().map(|it| it.node_id).collect::<Vec<_>>();
        assert_eq!(ids(&assignment.first_voters), [1, 2, 3, 4, 5]);
        assert_eq!(ids(&assignment.replicas), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(assignment.voters_wanted, 5);
        assert!(told.fresh && told.peers.values().all(|peer| peer.state == NodeState::Up));
    }

    fn formation<const N: usize>(ids: [u64; N]) -> Formation {
        let member = |node_id| FormationMember { node_id, store_id: node_id, ..Default::default() };
        let mesh_id = "8b0a4b5a-6d6a-4b3c-9a55-0d6f0e6a7c11".to_owned();
        Formation { mesh_id, members: ids.map(member).into() }
    }
}
