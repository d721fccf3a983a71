//! What the gRPC service `Mesh` tells of the groups that run here.

use mesh::Mesh;
use proto::quorate::v1::{self as pb, mesh_server};

use crate::{
    group::{Group, Role, Status},
    host::Host,
};

impl Host {
    /// The gRPC service `Mesh` of this server, which tells of its groups too.
    pub fn mesh_service(&self) -> mesh_server::MeshServer<impl mesh_server::Mesh + use<>> {
        let host = self.clone();
        Mesh::service(self.mesh(), move || host.hosted_groups())
    }

    fn hosted_groups(&self) -> Vec<pb::HostedGroup> {
        // What a stopped replica knew may have been overtaken.
        let running = self.groups().into_iter().filter_map(|group| {
            let status = group.status();
            (status.role != Role::Stopped).then(|| hosted_group(&group, &status))
        });
        running.collect()
    }
}

fn hosted_group(group: &Group, status: &Status) -> pb::HostedGroup {
    let members = status.members.iter().map(|member| pb::GroupMember {
        node_id: member.node_id,
        voter: member.voter,
        lag: member.lag,
    });
    pb::HostedGroup {
        group: group.id(),
        namespace: group.namespace().to_owned(),
        role: status.role.as_str().to_owned(),
        term: status.term,
        leader_id: status.leader.unwrap_or(0),
        last_index: status.last_index,
        committed_index: status.committed,
        applied_index: status.applied,
        members: members.collect(),
        voted_for: status.voted_for,
    }
}
