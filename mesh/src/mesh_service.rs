//! The gRPC service `Mesh`: this server's identity, the exchange of addresses, and forming.

use std::time::Duration;

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

/// How long `identify` waits for the first round of Hello messages, on a server that waits to be
/// formed. The caller may be about to form it although it was a member of another mesh.
const GREETED_WITHIN: Duration = Duration::from_millis(1500);

/// The service of one server.
struct MeshService<G> {
    mesh: Mesh,
    /// Describes the groups of this server, which this crate does not know.
    groups: G,
}

impl Mesh {
    /// The gRPC service that every server of a mesh offers. `groups` describes the groups that run
    /// on this server and what it remembers of other groups.
    pub fn service<G>(&self, groups: G) -> MeshServer<impl mesh_server::Mesh + use<G>>
    where
        G: Fn(&pb::HostedGroupsRequest) -> pb::HostedGroupsReply + Send + Sync + 'static,
    {
        MeshServer::new(MeshService { mesh: self.clone(), groups })
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }
}

#[tonic::async_trait]
impl<G> mesh_server::Mesh for MeshService<G>
where
    G: Fn(&pb::HostedGroupsRequest) -> pb::HostedGroupsReply + Send + Sync + 'static,
{
    async fn identify(
        &self,
        _: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::ServerIdentity>, Status> {
        self.mesh.greeted(GREETED_WITHIN).await;
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
        // On a blocking thread, because a commit syncs the disk.
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
        request: Request<pb::HostedGroupsRequest>,
    ) -> Result<Response<pb::HostedGroupsReply>, Status> {
        Ok(Response::new((self.groups)(request.get_ref())))
    }
}
