//! The etcd Cluster service: who the members of a namespace are. Only the mesh changes them.

use std::net::SocketAddr;

use proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, cluster_server::Cluster,
};
use tonic::{Request, Response, Status, async_trait};

use super::backend::Backend;
use crate::namespaces::MemberAddress;

/// The members of a namespace's group, for clients to read. The mesh decides who they are.
#[derive(Debug)]
pub struct ClusterService {
    backend: Backend,
}

impl ClusterService {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }
}

#[async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let hosted = self.backend.hosted(request.metadata()).await?;
        if request.get_ref().linearizable {
            self.backend.confirm(&hosted.group).await?;
        }
        let members = self.backend.namespaces().members(&hosted.namespace);
        Ok(Response::new(MemberListResponse {
            header: Some(self.backend.header(&hosted.group)),
            members: members.iter().map(to_proto).collect(),
        }))
    }

    async fn member_add(
        &self,
        _request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        Err(unsupported("start a data node with this mesh's --disco addresses"))
    }

    async fn member_remove(
        &self,
        _request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(unsupported("a node that stays away is replaced by another one"))
    }

    async fn member_update(
        &self,
        _request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(unsupported("a node tells its addresses at every start"))
    }

    async fn member_promote(
        &self,
        _request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(unsupported("a learner is promoted once it has caught up and is needed"))
    }
}

fn unsupported(instead: &str) -> Status {
    Status::unimplemented(format!("etcdserver: the mesh keeps the membership: {instead}"))
}

fn to_proto(member: &MemberAddress) -> Member {
    Member {
        id: member.node_id,
        name: member.name.clone(),
        peer_ur_ls: urls(member.mesh_address),
        client_ur_ls: urls(member.kv_address),
        is_learner: !member.voter,
    }
}

fn urls(address: Option<SocketAddr>) -> Vec<String> {
    address.iter().map(|address| format!("http://{address}")).collect()
}
