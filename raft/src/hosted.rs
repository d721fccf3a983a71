//! The part of the gRPC service `Mesh` that reports the groups of this server.

use mesh::Mesh;
use proto::quorate::v1::{self as pb, mesh_server};

use crate::{group::Role, host::Host};

impl Host {
    /// The gRPC service `Mesh` of this server. It reports the groups too.
    pub fn mesh_service(&self) -> mesh_server::MeshServer<impl mesh_server::Mesh + use<>> {
        let host = self.clone();
        Mesh::service(self.mesh(), move |request| host.hosted_groups(request))
    }

    fn hosted_groups(&self, request: &pb::HostedGroupsRequest) -> pb::HostedGroupsReply {
        let asked = (request.group != 0).then_some(request.group);
        // A stopped replica is left out: what it knew may be outdated.
        let running = self.groups().into_iter().filter_map(|group| {
            let status = group.status();
            let told = asked.is_none_or(|asked| asked == group.id());
            (told && status.role != Role::Stopped).then(|| group.describe())
        });
        pb::HostedGroupsReply {
            mesh_id: self.mesh().id().map(|mesh| mesh.to_string()).unwrap_or_default(),
            groups: running.collect(),
            remembered: asked.and_then(|group| self.reported_progress(group)),
        }
    }
}
