//! What a node says of itself, on the wire.

use mesh::{GroupId, Identity};
use proto::quorate::v1::{Locality, NodeHello, NodeStatus};
use raft::Group;

use super::Introduction;

pub(crate) fn hello(
    introduction: &Introduction,
    identity: &Identity,
    mesh_id: String,
    groups_on_disk: Vec<GroupId>,
) -> NodeHello {
    NodeHello {
        mesh_id,
        node_id: identity.node_id,
        store_id: identity.store_id,
        boot_epoch: identity.boot_epoch,
        start: identity.start,
        moves: 0,
        mesh_address: introduction.mesh_address.to_string(),
        kv_address: introduction.kv_address.to_string(),
        locality: Some(Locality {
            region: introduction.region.clone(),
            zone: introduction.zone.clone(),
        }),
        groups_on_disk,
        name: introduction.name.clone(),
        version: introduction.version.clone(),
    }
}

pub(crate) fn status(hosted: &[Group]) -> NodeStatus {
    NodeStatus { groups: hosted.iter().map(Group::describe).collect() }
}
