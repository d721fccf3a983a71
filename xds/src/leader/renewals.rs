//! Renewals: the leader counts them, and the other servers pass them on to it.
//!
//! A renewal is no command: it moves a deadline in the leader's memory. Without a leader no lease
//! can end, so a server that cannot reach a leader accepts the renewal. But there may be a leader
//! that only this server cannot reach. So the answer says that the renewal was not counted, and the
//! owner can try another server.

use std::{
    collections::BTreeMap,
    mem,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use discovery::{lease::Heard, registry::DEFAULT_TTL};
use proto::quorate::v1::{AnswerMeta, LiveReply, NodeLive, RegistryDone, RemoveMemberReply};
use raft::{Group, Host};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{link::LeaderLink, reports::Reports};
use crate::publish::{Board, Leases, Renewed};

/// How long the renewals of sessions are gathered before they go to the leader together.
const GATHER: Duration = Duration::from_millis(250);

/// Renews leases, here or at the leader.
#[derive(Clone, Debug)]
pub(crate) struct Renewals {
    host: Host,
    group: Group,
    board: Board,
    leases: Leases,
    link: Arc<LeaderLink>,
    reports: Reports,
    /// Leases to be passed on to the leader, with the nodes that hold them. Bounded by the number
    /// of sessions on this server.
    gathered: Arc<Mutex<BTreeMap<u64, u64>>>,
}

impl Renewals {
    pub(crate) fn new(
        host: Host,
        group: Group,
        board: Board,
        leases: Leases,
        reports: Reports,
    ) -> Self {
        let (link, gathered) = (Arc::default(), Arc::default());
        Self { host, group, board, leases, link, reports, gathered }
    }

    /// Renews leases here or at the leader.
    pub(crate) async fn renew(&self, lease_ids: &[u64]) -> Renewed {
        self.renew_with(lease_ids, Vec::new()).await
    }

    async fn renew_with(&self, lease_ids: &[u64], reports: Vec<NodeLive>) -> Renewed {
        if let Some(renewed) = self.leases.renew(lease_ids) {
            return renewed;
        }
        match self.pass_on(lease_ids, reports).await {
            Ok(renewed) => renewed,
            Err(status) => {
                tracing::debug!(%status, "accepted renewals that the leader has not heard of");
                let ttl = self.granted_ttl(lease_ids);
                Renewed { unknown: Vec::new(), ttl, counted: false }
            }
        }
    }

    /// Renews leases that another server passed on, believing that this one leads.
    pub(crate) fn renew_as_leader(
        &self,
        lease_ids: &[u64],
        reports: Vec<NodeLive>,
    ) -> Result<Renewed, Status> {
        let renewed = self.leases.renew(lease_ids).ok_or_else(not_leader)?;
        for NodeLive { node_id, status } in reports {
            self.reports.put_passed_on(node_id, status.unwrap_or_default());
        }
        Ok(renewed)
    }

    /// Renews a node's lease soon, without an answer. If the lease has ended, the registry shows
    /// it.
    pub(crate) fn renew_soon(&self, lease_id: u64, node_id: u64) {
        if self.leases.renew(&[lease_id]).is_none() {
            let mut gathered = self.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            gathered.insert(lease_id, node_id);
        }
    }

    /// What the leader knows and the log does not hold, if another server leads and answers.
    pub(crate) async fn ask_live(&self, lease_ids: Vec<u64>) -> Result<LiveReply, Status> {
        let reply = self.link.live(self.leader_address()?, lease_ids).await?;
        self.check_mesh(reply.meta.as_ref())?;
        Ok(reply)
    }

    /// Lets the leader remove a member.
    pub(crate) async fn remove_member_at_leader(
        &self,
        node_id: u64,
    ) -> Result<RegistryDone, Status> {
        let reply = self.link.remove_member(self.leader_address()?, node_id).await?;
        self.check_mesh(reply.meta.as_ref())?;
        let RemoveMemberReply { existed, leaving, .. } = reply;
        Ok(RegistryDone { existed, leaving, ..RegistryDone::default() })
    }

    /// When the owner of a lease was last heard, if this server or the leader knows it.
    pub(crate) async fn heard(&self, lease_id: u64) -> Option<Heard> {
        if self.leases.leads() {
            return self.leases.heard(lease_id);
        }
        let live = self.ask_live(vec![lease_id]).await.ok()?;
        let lease = live.leases.into_iter().find(|it| it.lease_id == lease_id)?;
        Some(Heard {
            ago: Duration::from_millis(lease.heard_ms_ago),
            left: Duration::from_millis(lease.left_ms),
        })
    }

    /// How long a lease lasts that was just granted or renewed.
    pub(crate) fn ttl(&self, lease_id: u64) -> Duration {
        self.leases.ttl(lease_id).unwrap_or_else(|| self.granted_ttl(&[lease_id]))
    }

    /// Passes on what the sessions have gathered, until `stopping`.
    pub(crate) async fn run(self, stopping: CancellationToken) {
        let mut ticks = interval(GATHER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let gathered =
                mem::take(&mut *self.gathered.lock().unwrap_or_else(PoisonError::into_inner));
            if !gathered.is_empty() {
                let reports = gathered.values().filter_map(|node_id| {
                    let status = Some(self.reports.of(*node_id)?);
                    Some(NodeLive { node_id: *node_id, status })
                });
                let reports = reports.collect();
                let lease_ids: Vec<u64> = gathered.into_keys().collect();
                self.renew_with(&lease_ids, reports).await;
            }
        }
    }

    async fn pass_on(&self, lease_ids: &[u64], reports: Vec<NodeLive>) -> Result<Renewed, Status> {
        let leader = self.leader_address()?;
        let reply = self.link.renew(leader, lease_ids.to_vec(), reports).await?;
        self.check_mesh(reply.meta.as_ref())?;
        Ok(Renewed {
            unknown: reply.unknown,
            ttl: Duration::from_millis(reply.ttl_ms),
            // A leader without a quorum may have been replaced without knowing it.
            counted: reply.meta.is_some_and(|it| it.stale_for_ms == 0),
        })
    }

    fn leader_address(&self) -> Result<SocketAddr, Status> {
        let leader = self.group.status().leader;
        let leader = leader.ok_or_else(|| Status::unavailable("the disco group has no leader"))?;
        if leader == self.host.identity().node_id {
            return Err(Status::unavailable("this server is only just taking the lead"));
        }
        let address = self.host.mesh().book().address(leader);
        address.ok_or_else(|| Status::unavailable("the leader's address is unknown"))
    }

    /// Checks that the reply is of this mesh: the address may belong to a server of another mesh by
    /// now, which knows none of our leases.
    fn check_mesh(&self, meta: Option<&AnswerMeta>) -> Result<(), Status> {
        let theirs = meta.map_or("", |it| it.mesh_id.as_str());
        if self.host.mesh().id().is_some_and(|ours| ours.as_str() == theirs) {
            return Ok(());
        }
        Err(Status::unavailable(format!("the leader's address belongs to mesh {theirs}")))
    }

    fn granted_ttl(&self, lease_ids: &[u64]) -> Duration {
        self.board.read(|registry| {
            let grants = lease_ids.iter().filter_map(|lease_id| registry.grant(*lease_id));
            grants.map(|grant| grant.ttl).min().unwrap_or(DEFAULT_TTL)
        })
    }
}

/// The answer to a call that only the leader can carry out.
pub(crate) fn not_leader() -> Status {
    Status::unavailable("this server does not lead the disco group")
}
