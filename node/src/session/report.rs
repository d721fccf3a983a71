//! What a node says of itself, on the wire.

use mesh::{GroupId, Identity};
use proto::quorate::v1::{GroupMember, HostedGroup, Locality, NodeHello, NodeStatus};
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
    NodeStatus { groups: hosted.iter().map(hosted_group).collect() }
}

fn hosted_group(group: &Group) -> HostedGroup {
    let status = group.status();
    let members = status.members.iter().map(|member| GroupMember {
        node_id: member.node_id,
        voter: member.voter,
        lag: member.lag,
    });
    HostedGroup {
        group: group.id(),
        namespace: group.namespace().to_owned(),
        role: status.role.as_str().to_owned(),
        term: status.term,
        leader_id: status.leader.unwrap_or_default(),
        last_index: status.last_index,
        committed_index: status.committed,
        applied_index: status.applied,
        members: members.collect(),
        voted_for: status.voted_for,
    }
}
