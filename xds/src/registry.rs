//! The registry over gRPC: wire types in, commands out.
//!
//! Writes go to the group, through its leader, and are answered once this replica has applied them.
//! Reads are answered from this replica's own state, and say how fresh it is.

mod live;
pub(crate) mod own_record;
mod removal;
mod session;

use std::{sync::Arc, time::Duration};

use discovery::lease::Heard;
use proto::{
    millis,
    quorate::v1::{
        self as wire, ConfigureService, ConfigureServiceReply, ConfigureServiceRequest,
        DeregisterInstance, DeregisterReply, DeregisterRequest, DeregisterSilent,
        DeregisterSilentReply, DeregisterSilentRequest, Directive, Instance, LeaseLive,
        ListGroupsReply, ListGroupsRequest, ListInstancesReply, ListInstancesRequest,
        ListMembersReply, ListMembersRequest, ListServicesReply, ListServicesRequest, LiveReply,
        LiveRequest, NodeReport, RegisterInstance, RegisterReply, RegisterRequest,
        RemoveMemberReply, RemoveMemberRequest, RemoveService, RemoveServiceReply,
        RemoveServiceRequest, RenewReply, RenewRequest, SetHealthReply, SetHealthRequest,
        SetInstanceHealth, registry_command::Command, registry_server::Registry,
    },
};
use raft::Role;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataValue};

use self::{
    live::Live,
    session::{DIRECTIVE_QUEUE, Session},
};
use crate::{
    leader::{ProposeError, is_forwarded, not_leader},
    publish::{CONFIGURED, Renewed},
    shared::{Formed, Shared},
};

/// Metadata of a refused registration: how long ago the holder of the id was heard, and how long
/// its lease lasts if it is not renewed.
const HOLDER_HEARD_MS: &str = "quorate-holder-heard-ms-ago";
const HOLDER_LEFT_MS: &str = "quorate-holder-left-ms";

/// How long a registration waits for a quorum if this server had none before.
const STALE_PATIENCE: Duration = Duration::from_secs(1);

/// The most leases in one renewal. A caller with more must renew them in parts.
const MAX_RENEWALS: usize = 100_000;

/// The gRPC service of the registry.
#[derive(Clone, Debug)]
pub(crate) struct RegistryService {
    shared: Arc<Shared>,
}

impl RegistryService {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Admits a caller that names this mesh, or none. Addresses are used again, so a caller may
    /// reach a server of another mesh than its own.
    fn admit_for_mesh(&self, mesh_id: &str) -> Result<&Formed, Status> {
        let formed = self.shared.admit()?;
        let ours = self.shared.mesh_id();
        if mesh_id.is_empty() || mesh_id == ours {
            return Ok(formed);
        }
        Err(Status::failed_precondition(format!(
            "this server belongs to mesh {ours}, and mesh {mesh_id} is meant"
        )))
    }

    /// Renews the lease of a registration that exists already in exactly these terms. Returns the
    /// lease and how long it lasts.
    ///
    /// None if no leader with a quorum has renewed it, since the lease may have ended without this
    /// server's knowledge.
    async fn renew_unchanged(
        &self,
        formed: &Formed,
        command: &RegisterInstance,
    ) -> Option<(u64, Duration)> {
        let lease_id = self.shared.board.read(|registry| registry.unchanged_lease(command))?;
        let Renewed { unknown, ttl, counted } = formed.renewals.renew(&[lease_id]).await;
        let stands = counted && unknown.is_empty() && self.shared.stale_for().is_zero();
        stands.then_some((lease_id, ttl))
    }

    async fn propose_registration(
        &self,
        formed: &Formed,
        command: RegisterInstance,
    ) -> Result<(u64, Duration), Status> {
        let proposed = formed.proposals.propose(Command::RegisterInstance(command.clone()));
        let stale = self.shared.stale_for();
        let patience = if stale.is_zero() { Duration::MAX } else { STALE_PATIENCE };
        let Ok(outcome) = timeout(patience, proposed).await else {
            return Err(Status::unavailable(format!(
                "the registry cannot be written: no quorum for {} s",
                stale.as_secs()
            )));
        };
        match outcome {
            Ok(done) => {
                let Instance { service, id, address, .. } = command.instance.unwrap_or_default();
                if done.changed {
                    tracing::info!(service, id, address, "registered");
                }
                Ok((done.lease_id, formed.renewals.ttl(done.lease_id)))
            }
            Err(error) => {
                let holder = self.shared.board.read(|registry| registry.holder(&command));
                let mut status = to_status(error);
                if let Some(lease_id) = holder
                    && status.code() == Code::AlreadyExists
                {
                    let heard = formed.renewals.heard(lease_id).await;
                    let left = heard.map_or_else(|| formed.renewals.ttl(lease_id), |it| it.left);
                    add_holder_metadata(&mut status, heard.map(|it| it.ago), left);
                }
                Err(status)
            }
        }
    }
}

#[tonic::async_trait]
impl Registry for RegistryService {
    type SessionStream = ReceiverStream<Result<Directive, Status>>;

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterReply>, Status> {
        let RegisterRequest { instance, lease_id, ttl_ms, mesh_id, start } = request.into_inner();
        let formed = self.admit_for_mesh(&mesh_id)?;
        let lease_drawn = lease_id == 0;
        let lease_id = if lease_drawn { rand::random_range(1..=u64::MAX) } else { lease_id };
        let command = RegisterInstance { instance, lease_id, ttl_ms, start, lease_drawn };
        let (lease_id, ttl) = match self.renew_unchanged(formed, &command).await {
            Some(standing) => standing,
            None => self.propose_registration(formed, command).await?,
        };
        let meta = Some(self.shared.meta());
        Ok(Response::new(RegisterReply { meta, lease_id, ttl_ms: millis(ttl) }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let forwarded = is_forwarded(&request);
        let RenewRequest { lease_ids, mesh_id, reports } = request.into_inner();
        let formed = self.admit_for_mesh(&mesh_id)?;
        if lease_ids.len() > MAX_RENEWALS {
            return Err(Status::invalid_argument(format!("renew at most {MAX_RENEWALS} at once")));
        }
        let Renewed { unknown, ttl, counted } = if forwarded {
            formed.renewals.renew_as_leader(&lease_ids, reports)?
        } else {
            formed.renewals.renew(&lease_ids).await
        };
        let meta = if counted { self.shared.meta() } else { self.shared.meta_without_leader() };
        let meta = Some(meta);
        Ok(Response::new(RenewReply { meta, unknown, ttl_ms: millis(ttl) }))
    }

    async fn set_health(
        &self,
        request: Request<SetHealthRequest>,
    ) -> Result<Response<SetHealthReply>, Status> {
        let SetHealthRequest { service, id, lease_id, health, mesh_id, reason, since_unix_ms } =
            request.into_inner();
        let formed = self.admit_for_mesh(&mesh_id)?;
        let command = SetInstanceHealth { service, id, lease_id, health, reason, since_unix_ms };
        let proposed = Command::SetInstanceHealth(command.clone());
        let done = formed.proposals.propose(proposed).await.map_err(to_status)?;
        if done.changed {
            let SetInstanceHealth { service, id, reason, .. } = &command;
            let health = command.health().as_str_name();
            tracing::info!(service, id, health, reason, "health changed");
        }
        Ok(Response::new(SetHealthReply { meta: Some(self.shared.meta()) }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterReply>, Status> {
        let DeregisterRequest { service, id, lease_id, mesh_id } = request.into_inner();
        let formed = self.admit_for_mesh(&mesh_id)?;
        let command = DeregisterInstance { service, id, lease_id };
        let proposed = Command::DeregisterInstance(command.clone());
        let done = formed.proposals.propose(proposed).await.map_err(to_status)?;
        if done.existed {
            let DeregisterInstance { service, id, .. } = command;
            tracing::info!(service, id, "deregistered");
        }
        let meta = Some(self.shared.meta());
        Ok(Response::new(DeregisterReply { meta, existed: done.existed }))
    }

    async fn deregister_silent(
        &self,
        request: Request<DeregisterSilentRequest>,
    ) -> Result<Response<DeregisterSilentReply>, Status> {
        let DeregisterSilentRequest { service, zone, mesh_id } = request.into_inner();
        let formed = self.admit_for_mesh(&mesh_id)?;
        let command = DeregisterSilent { service, zone };
        let proposed = Command::DeregisterSilent(command.clone());
        let done = formed.proposals.propose(proposed).await.map_err(to_status)?;
        let DeregisterSilent { service, zone } = command;
        tracing::info!(service, zone, instances = done.removed, "silent instances deregistered");
        let meta = Some(self.shared.meta());
        Ok(Response::new(DeregisterSilentReply { meta, removed: done.removed }))
    }

    async fn configure_service(
        &self,
        request: Request<ConfigureServiceRequest>,
    ) -> Result<Response<ConfigureServiceReply>, Status> {
        let ConfigureServiceRequest { name, options, mesh_id, create } = request.into_inner();
        let formed = self.admit_for_mesh(&mesh_id)?;
        // While a voter does not know of this, the service has its options, but is not kept for it.
        let configured = options.is_some() && formed.group.level() >= CONFIGURED;
        let command = ConfigureService { name, options, configured, create };
        let proposed = Command::ConfigureService(command.clone());
        let done = formed.proposals.propose(proposed).await.map_err(to_status)?;
        if done.changed {
            let ConfigureService { name, options, .. } = command;
            tracing::info!(service = name, ?options, "service configured");
        }
        let meta = Some(self.shared.meta());
        Ok(Response::new(ConfigureServiceReply { meta, existed: done.existed }))
    }

    async fn remove_service(
        &self,
        request: Request<RemoveServiceRequest>,
    ) -> Result<Response<RemoveServiceReply>, Status> {
        let RemoveServiceRequest { name, force, mesh_id } = request.into_inner();
        let formed = self.admit_for_mesh(&mesh_id)?;
        let command = RemoveService { name, force, if_empty: false };
        let proposed = Command::RemoveService(command.clone());
        let done = formed.proposals.propose(proposed).await.map_err(to_status)?;
        if done.existed {
            tracing::info!(service = command.name, force, "service removed");
        }
        let meta = Some(self.shared.meta());
        Ok(Response::new(RemoveServiceReply { meta, existed: done.existed }))
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberReply>, Status> {
        let forwarded = is_forwarded(&request);
        let RemoveMemberRequest { node_id, mesh_id } = request.into_inner();
        let formed = self.admit_for_mesh(&mesh_id)?;
        if forwarded && !self.shared.leases.leads() {
            return Err(not_leader());
        }
        let done = removal::remove_member(&self.shared, formed, node_id).await?;
        let meta = Some(self.shared.meta());
        let (existed, leaving) = (done.existed, done.leaving);
        Ok(Response::new(RemoveMemberReply { meta, existed, leaving }))
    }

    async fn live(&self, request: Request<LiveRequest>) -> Result<Response<LiveReply>, Status> {
        let formed = self.shared.admit()?;
        let leases = &self.shared.leases;
        if !leases.leads() {
            return Err(not_leader());
        }
        let lease_ids = request.into_inner().lease_ids.into_iter().take(MAX_RENEWALS);
        let leases = lease_ids.filter_map(|lease_id| {
            let Heard { ago, left } = leases.heard(lease_id)?;
            Some(LeaseLive { lease_id, heard_ms_ago: millis(ago), left_ms: millis(left) })
        });
        let leases = leases.collect();
        let live = Live::local(&self.shared, formed);
        Ok(Response::new(live.into_proto(self.shared.meta(), leases)))
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
        let (live, meta) = Live::of_leader(&self.shared, formed).await;
        let members = self.shared.board.read(|registry| registry.list_members(&live.servers));
        Ok(Response::new(ListMembersReply { meta: Some(meta), members }))
    }

    async fn list_groups(
        &self,
        _: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsReply>, Status> {
        let formed = self.shared.admit()?;
        let (live, meta) = Live::of_leader(&self.shared, formed).await;
        let mut groups = self.shared.board.read(|registry| registry.list_groups(&live.nodes));
        groups.iter_mut().for_each(fill_leader_role);
        Ok(Response::new(ListGroupsReply { meta: Some(meta), groups }))
    }
}

/// Fills in the role of a group's leader if its node has not reported it: who leads is replicated.
fn fill_leader_role(group: &mut wire::GroupSummary) {
    let leader_id = group.record.as_ref().map_or(0, |record| record.leader_id);
    for replica in &mut group.replicas {
        if replica.role.is_empty() && replica.node_id == leader_id {
            Role::Leader.as_str().clone_into(&mut replica.role);
        }
    }
}

/// Tells a refused caller about the holder of the id, so that it can tell a live holder from one
/// that has died and whose lease will end.
fn add_holder_metadata(status: &mut Status, heard_ago: Option<Duration>, left: Duration) {
    let metadata = status.metadata_mut();
    if let Some(ago) = heard_ago {
        metadata.insert(HOLDER_HEARD_MS, MetadataValue::from(millis(ago)));
    }
    metadata.insert(HOLDER_LEFT_MS, MetadataValue::from(millis(left)));
}

fn to_status(error: ProposeError) -> Status {
    tracing::debug!(%error, "a request was not carried out");
    error.to_status()
}
