//! The gRPC service `Mesh`: who is here, where others are, and forming.

use proto::quorate::v1::{self as pb, form_request::Step, mesh_server::Mesh};
use tokio::task;
use tonic::{Request, Response, Status};

use crate::{
    formation::FormError,
    group::{self, Group, Role},
    hello,
    host::{FormStepError, Host},
};

/// Answers for a host.
pub(crate) struct MeshService {
    pub(crate) host: Host,
}

#[tonic::async_trait]
impl Mesh for MeshService {
    async fn identify(
        &self,
        _: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::ServerIdentity>, Status> {
        Ok(Response::new(self.host.server_identity()))
    }

    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloReply>, Status> {
        Ok(Response::new(hello::answer(&self.host, request.into_inner())))
    }

    async fn form(
        &self,
        request: Request<pb::FormRequest>,
    ) -> Result<Response<pb::FormReply>, Status> {
        let request = request.into_inner();
        let step = request.step();
        let formation =
            request.formation.ok_or_else(|| Status::invalid_argument("no formation"))?;
        let host = self.host.clone();
        // A commit syncs the disk.
        let done = task::spawn_blocking(move || match step {
            Step::Reserve => host.reserve(&formation),
            Step::Commit => host.commit(&formation),
            Step::Release => {
                host.release(&formation);
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
        let mesh_id = self.host.mesh_id().map(|mesh| mesh.to_string()).unwrap_or_default();
        // What a stopped replica knew may have been overtaken.
        let running = self.host.groups().into_iter().filter_map(|group| {
            let status = group.status();
            (status.role != Role::Stopped).then(|| hosted_group(&group, &status))
        });
        Ok(Response::new(pb::HostedGroupsReply { mesh_id, groups: running.collect() }))
    }
}

fn hosted_group(group: &Group, status: &group::Status) -> pb::HostedGroup {
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
