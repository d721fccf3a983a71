//! The etcd Maintenance service: what a replica says about itself.

use proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, HashKvRequest, HashKvResponse, MoveLeaderRequest,
    MoveLeaderResponse, ResponseHeader, StatusRequest, StatusResponse, alarm_request::AlarmAction,
    maintenance_server::Maintenance,
};
use tonic::{Request, Response, Status, async_trait};

use super::{
    ETCD_VERSION,
    backend::{Backend, Breadth, Freshness},
    refusal,
};
use crate::kv::{self, Meta};

/// How a replica is, and moving the leadership.
#[derive(Debug)]
pub struct MaintenanceService {
    backend: Backend,
}

impl MaintenanceService {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }
}

#[async_trait]
impl Maintenance for MaintenanceService {
    /// Answers without a leader too, since that is when operators ask.
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let group = self.backend.hosted(request.metadata()).await?.group;
        let meta = self
            .backend
            .read(&group, Freshness::Serializable, Breadth::Few, |rows| Ok(Meta::load(rows)?))
            .await?;
        let status = group.status();
        let own = status.members.iter().find(|member| member.node_id == self.backend.node_id());
        let size = i64::try_from(meta.size).unwrap_or(i64::MAX);
        let errors = match status.is_led() {
            true => Vec::new(),
            false => {
                let reason = status.no_quorum(self.backend.node_id());
                vec!["etcdserver: no leader".to_owned(), format!("etcdserver: {reason}")]
            }
        };
        Ok(Response::new(StatusResponse {
            header: Some(ResponseHeader { revision: meta.revision, ..self.backend.header(&group) }),
            version: ETCD_VERSION.to_owned(),
            db_size: size,
            db_size_in_use: size,
            leader: status.leader.filter(|_| status.is_led()).unwrap_or_default(),
            raft_index: status.committed,
            raft_term: status.term,
            raft_applied_index: status.applied,
            errors,
            is_learner: own.is_none_or(|member| !member.voter),
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let group = self.backend.hosted(request.metadata()).await?.group;
        let revision = request.get_ref().revision;
        let hash = self
            .backend
            .read(&group, Freshness::Serializable, Breadth::Many, move |rows| {
                kv::hash(rows, revision)
            })
            .await?;
        Ok(Response::new(HashKvResponse {
            header: Some(ResponseHeader { revision: hash.revision, ..self.backend.header(&group) }),
            hash: hash.hash,
            compact_revision: hash.compacted,
        }))
    }

    /// Nothing raises an alarm, so there is none to list or to deactivate.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let group = self.backend.hosted(request.metadata()).await?.group;
        match request.get_ref().action() {
            AlarmAction::Get | AlarmAction::Deactivate => Ok(Response::new(AlarmResponse {
                header: Some(self.backend.header(&group)),
                alarms: Vec::new(),
            })),
            AlarmAction::Activate => {
                Err(Status::unimplemented("etcdserver: alarms are not raised by clients"))
            }
        }
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let group = self.backend.hosted(request.metadata()).await?.group;
        let target = request.get_ref().target_id;
        let status = group.status();
        if status.leader != Some(self.backend.node_id()) {
            return Err(refusal::not_leader());
        }
        if !status.members.iter().any(|member| member.node_id == target && member.voter) {
            return Err(refusal::bad_transferee());
        }
        group.transfer_leader(target).await.map_err(|error| refusal::of_change(&error))?;
        Ok(Response::new(MoveLeaderResponse { header: Some(self.backend.header(&group)) }))
    }
}
