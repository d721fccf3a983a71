//! What to host where there is no DISCO: the namespace `default`, on the members of the formation.

use std::collections::BTreeMap;

use proto::quorate::v1::{Formation, FormationMember};
use raft::{GroupId, Member, MeshId, node_hex};
use tracing::warn;

use crate::session::{Assignment, NodeState, Orders, Peer};

/// The group of the namespace `default`; 1 is DISCO's own.
const GROUP: GroupId = 2;

const NAMESPACE: &str = "default";

/// The formation as orders: it is as final as a record that DISCO committed.
pub(crate) fn orders(formation: &Formation) -> Option<Orders> {
    let Ok(mesh) = formation.mesh_id.parse::<MeshId>() else {
        warn!(mesh_id = formation.mesh_id, "a formation without a mesh id");
        return None;
    };
    let members: Vec<Member> = formation.members.iter().map(member).collect();
    let assignment = Assignment {
        group: GROUP,
        namespace: NAMESPACE.to_owned(),
        voters_wanted: members.len(),
        first_voters: members.clone(),
        replicas: members,
        formed: false,
    };
    Some(Orders {
        mesh,
        assignments: BTreeMap::from([(GROUP, assignment)]),
        peers: formation.members.iter().map(|member| (member.node_id, peer(member))).collect(),
        fresh: false,
    })
}

const fn member(member: &FormationMember) -> Member {
    Member { node_id: member.node_id, store_id: member.store_id }
}

fn peer(member: &FormationMember) -> Peer {
    Peer {
        node_id: member.node_id,
        name: node_hex(member.node_id),
        // Where it was when the mesh was formed; the book knows where it is.
        mesh_address: None,
        kv_address: None,
        zone: String::new(),
        state: NodeState::Away,
    }
}
