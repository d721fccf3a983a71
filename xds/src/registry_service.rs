//! The registry over gRPC: wire types in, commands out.
//!
//! Writes go to the group, wherever its leader is, and are answered once this replica has applied
//! them. Reads are of this replica's own state, and say how fresh it is.

use std::{sync::Arc, time::Duration};

use proto::quorate::v1::{
    self as wire, DeregisterInstance, DeregisterReply, DeregisterRequest, Directive,
    ListGroupsReply, ListGroupsRequest, ListInstancesReply, ListInstancesRequest, ListMembersReply,
    ListMembersRequest, ListServicesReply, ListServicesRequest, NodeReport, RegisterInstance,
    RegisterReply, RegisterRequest, RenewReply, RenewRequest, SetHealthReply, SetHealthRequest,
    SetInstanceHealth, registry_command::Command, registry_server::Registry,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    leader_link::is_forwarded,
    leases::Renewed,
    proposals::ProposeError,
    servers,
    session::{DIRECTIVE_QUEUE, Session},
    shared::{Formed, Shared, millis},
};

/// Leases in one renewal. A caller with more renews in parts.
const MAX_RENEWALS: usize = 100_000;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct RegistryService {
    shared: Arc<Shared>,
}

impl RegistryService {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Lets a caller in that means this mesh, or says nothing of a mesh. Addresses are handed out
    /// again, so a caller may reach another mesh than it knows.
    fn admit_of(&self, mesh_id: &str) -> Result<&Formed, Status> {
        let formed = self.shared.admit()?;
        let ours = self.shared.host.mesh().watch_id().borrow().as_ref().map(ToString::to_string);
        let ours = ours.unwrap_or_default();
        if mesh_id.is_empty() || mesh_id == ours {
            return Ok(formed);
        }
        Err(Status::failed_precondition(format!(
            "this server belongs to mesh {ours}, and mesh {mesh_id} is meant"
        )))
    }

    /// How long the lease lasts of a registration that stands already, word for word.
    ///
    /// Only if a quorum's leader has renewed it: elsewhere it may have ended unheard.
    async fn renew_standing(
        &self,
        formed: &Formed,
        command: &RegisterInstance,
    ) -> Option<(u64, Duration)> {
        let lease_id = self.shared.board.read(|registry| registry.standing(command))?;
        let Renewed { unknown, ttl, counted } = formed.renewals.renew(&[lease_id]).await;
        let stands = counted && unknown.is_empty() && self.shared.stale_for().is_zero();
        stands.then_some((lease_id, ttl))
    }
}

#[tonic::async_trait]
impl Registry for RegistryService {
    type SessionStream = ReceiverStream<Result<Directive, Status>>;

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterReply>, Status> {
        let RegisterRequest { instance, lease_id, ttl_ms, mesh_id } = request.into_inner();
        let formed = self.admit_of(&mesh_id)?;
        let lease_id = if lease_id == 0 { rand::random_range(1..=u64::MAX) } else { lease_id };
        let command = RegisterInstance { instance, lease_id, ttl_ms };
        let (lease_id, ttl) = match self.renew_standing(formed, &command).await {
            Some(standing) => standing,
            None => {
                let command = Command::RegisterInstance(command);
                let done = formed.proposals.propose(command).await.map_err(to_status)?;
                (done.lease_id, formed.renewals.ttl(done.lease_id))
            }
        };
        let meta = Some(self.shared.meta());
        Ok(Response::new(RegisterReply { meta, lease_id, ttl_ms: millis(ttl) }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let forwarded = is_forwarded(&request);
        let RenewRequest { lease_ids, mesh_id } = request.into_inner();
        let formed = self.admit_of(&mesh_id)?;
        if lease_ids.len() > MAX_RENEWALS {
            return Err(Status::invalid_argument(format!("renew at most {MAX_RENEWALS} at once")));
        }
        let Renewed { unknown, ttl, counted } = if forwarded {
            formed.renewals.renew_as_leader(&lease_ids)?
        } else {
            formed.renewals.renew(&lease_ids).await
        };
        let meta = if counted { self.shared.meta() } else { self.shared.meta_unheard() };
        let meta = Some(meta);
        Ok(Response::new(RenewReply { meta, unknown, ttl_ms: millis(ttl) }))
    }

    async fn set_health(
        &self,
        request: Request<SetHealthRequest>,
    ) -> Result<Response<SetHealthReply>, Status> {
        let SetHealthRequest { service, id, lease_id, health, mesh_id } = request.into_inner();
        let formed = self.admit_of(&mesh_id)?;
        let command = SetInstanceHealth { service, id, lease_id, health };
        let command = Command::SetInstanceHealth(command);
        formed.proposals.propose(command).await.map_err(to_status)?;
        Ok(Response::new(SetHealthReply { meta: Some(self.shared.meta()) }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterReply>, Status> {
        let DeregisterRequest { service, id, lease_id, mesh_id } = request.into_inner();
        let formed = self.admit_of(&mesh_id)?;
        let command = Command::DeregisterInstance(DeregisterInstance { service, id, lease_id });
        let done = formed.proposals.propose(command).await.map_err(to_status)?;
        let meta = Some(self.shared.meta());
        Ok(Response::new(DeregisterReply { meta, existed: done.existed }))
    }

    async fn session(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let formed = self.shared.admit()?.clone();
        let (directives, outgoing) = mpsc::channel(DIRECTIVE_QUEUE);
        let shared = Arc::clone(&self.shared);
        let session = Session::serve(shared, formed, request.into_inner(), directives);
        self.shared.tasks.spawn(session);
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn list_services(
        &self,
        _: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesReply>, Status> {
        self.shared.admit()?;
        let services = self.shared.board.read(|registry| registry.list_services());
        Ok(Response::new(ListServicesReply { meta: Some(self.shared.meta()), services }))
    }

    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesReply>, Status> {
        self.shared.admit()?;
        let ListInstancesRequest { service } = request.into_inner();
        let instances = self.shared.board.read(|registry| registry.list_instances(&service));
        Ok(Response::new(ListInstancesReply { meta: Some(self.shared.meta()), instances }))
    }

    async fn list_members(
        &self,
        _: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersReply>, Status> {
        let formed = self.shared.admit()?;
        let servers = servers::statuses(&self.shared, formed).await;
        let members = self.shared.board.read(|registry| registry.list_members(&servers));
        Ok(Response::new(ListMembersReply { meta: Some(self.shared.meta()), members }))
    }

    async fn list_groups(
        &self,
        _: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsReply>, Status> {
        self.shared.admit()?;
        let reports = self.shared.reports.all();
        let mut groups = self.shared.board.read(|registry| registry.list_groups(&reports));
        groups.iter_mut().for_each(name_leader);
        Ok(Response::new(ListGroupsReply { meta: Some(self.shared.meta()), groups }))
    }
}

/// Who leads is replicated, so it is known also of nodes whose sessions are elsewhere.
fn name_leader(group: &mut wire::GroupSummary) {
    let leader_id = group.record.as_ref().map_or(0, |record| record.leader_id);
    for replica in &mut group.replicas {
        if replica.role.is_empty() && replica.node_id == leader_id {
            "leader".clone_into(&mut replica.role);
        }
    }
}

fn to_status(error: ProposeError) -> Status {
    tracing::debug!(%error, "a request was not carried out");
    error.to_status()
}
