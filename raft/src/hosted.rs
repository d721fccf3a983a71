//! What the gRPC service `Mesh` tells of the groups that run here.

use mesh::Mesh;
use proto::quorate::v1::{self as pb, mesh_server};

use crate::{group::Role, host::Host};

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
            (status.role != Role::Stopped).then(|| group.describe())
        });
        running.collect()
    }
}
