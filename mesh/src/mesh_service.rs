//! The gRPC service `Mesh`: who is here, where others are, and forming.

use proto::quorate::v1::{
    self as pb,
    form_request::Step,
    mesh_server::{self, MeshServer},
};
use tokio::task;
use tonic::{Request, Response, Status};

use crate::{
    formation::FormError, forming::FormStepError, hello, part::Mesh, peers::MESSAGE_BYTES,
};

/// Answers for a server.
struct MeshService<G> {
    mesh: Mesh,
    /// The groups that run here, which are not this crate's business.
    groups: G,
}

impl Mesh {
    /// The gRPC service that every server of a mesh answers. `groups` tells of the groups that run
    /// on this server.
    pub fn service<G>(&self, groups: G) -> MeshServer<impl mesh_server::Mesh + use<G>>
    where
        G: Fn() -> Vec<pb::HostedGroup> + Send + Sync + 'static,
    {
        MeshServer::new(MeshService { mesh: self.clone(), groups })
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl<G> mesh_server::Mesh for MeshService<G>
where
    G: Fn() -> Vec<pb::HostedGroup> + Send + Sync + 'static,
{
    async fn identify(
        &self,
        _: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::ServerIdentity>, Status> {
        Ok(Response::new(self.mesh.server_identity()))
    }

    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloReply>, Status> {
        Ok(Response::new(hello::answer(&self.mesh, &request.into_inner())))
    }

    async fn form(
        &self,
        request: Request<pb::FormRequest>,
    ) -> Result<Response<pb::FormReply>, Status> {
        let request = request.into_inner();
        let step = request.step();
        let formation =
            request.formation.ok_or_else(|| Status::invalid_argument("no formation"))?;
        let mesh = self.mesh.clone();
        // A commit syncs the disk.
        let done = task::spawn_blocking(move || match step {
            Step::Reserve => mesh.reserve(&formation),
            Step::Commit => mesh.commit(&formation),
            Step::Release => {
                mesh.release(&formation);
                Ok(())
            }
            Step::Unspecified => Err(FormStepError::Refused(FormError::Malformed("step"))),
        })
        .await
        .map_err(|_| Status::internal("forming failed"))?;
        match done {
            Ok(()) => Ok(Response::new(pb::FormReply {})),
            Err(FormStepError::Refused(error @ FormError::Malformed(_))) => {
                Err(Status::invalid_argument(error.to_string()))
            }
            Err(FormStepError::Refused(error)) => {
                Err(Status::failed_precondition(error.to_string()))
            }
            Err(error @ FormStepError::Io(_)) => Err(Status::internal(error.to_string())),
        }
    }

    async fn hosted_groups(
        &self,
        _: Request<pb::HostedGroupsRequest>,
    ) -> Result<Response<pb::HostedGroupsReply>, Status> {
        let mesh_id = self.mesh.id().map(|mesh| mesh.to_string()).unwrap_or_default();
        Ok(Response::new(pb::HostedGroupsReply { mesh_id, groups: (self.groups)() }))
    }
}
