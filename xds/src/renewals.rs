//! Renewals: counted where the leader is, and passed on to it from elsewhere.
//!
//! A renewal is no command. It moves a deadline in the leader's memory; without a leader there is
//! nothing to move, and nothing that could end either, so it is accepted. But a server that cannot
//! reach the leader does not know that there is none: it says that nobody has counted, so that who
//! renews can try elsewhere.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use discovery::lease::DEFAULT_TTL;
use proto::quorate::v1::AnswerMeta;
use raft::{Group, Host};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    board::Board,
    leader_link::LeaderLink,
    leases::{Leases, Renewed},
};

/// How long the renewals of sessions are gathered before they go to the leader together.
const GATHER: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Renewals {
    host: Host,
    group: Group,
    board: Board,
    leases: Leases,
    link: Arc<LeaderLink>,
    /// Leases that sessions on this server hold for their nodes, to be passed on. Bounded by the
    /// number of sessions.
    gathered: Arc<Mutex<BTreeSet<u64>>>,
}

impl Renewals {
    pub(crate) fn new(host: Host, group: Group, board: Board, leases: Leases) -> Self {
        Self { host, group, board, leases, link: Arc::default(), gathered: Arc::default() }
    }

    /// Renews leases here or at the leader.
    pub(crate) async fn renew(&self, lease_ids: &[u64]) -> Renewed {
        if let Some(renewed) = self.leases.renew(lease_ids) {
            return renewed;
        }
        match self.pass_on(lease_ids).await {
            Ok(renewed) => renewed,
            Err(status) => {
                tracing::debug!(%status, "accepted renewals that the leader has not heard of");
                let ttl = self.granted_ttl(lease_ids);
                Renewed { unknown: Vec::new(), ttl, counted: false }
            }
        }
    }

    /// Renews leases that another server passed on, believing that this one leads.
    pub(crate) fn renew_as_leader(&self, lease_ids: &[u64]) -> Result<Renewed, Status> {
        let not_leader = || Status::unavailable("this server does not lead the disco group");
        self.leases.renew(lease_ids).ok_or_else(not_leader)
    }

    /// Renews a lease soon, without an answer: that it has ended shows in the registry.
    pub(crate) fn renew_soon(&self, lease_id: u64) {
        if self.leases.renew(&[lease_id]).is_none() {
            self.gathered.lock().unwrap_or_else(PoisonError::into_inner).insert(lease_id);
        }
    }

    /// How long a lease lasts that was just granted or renewed.
    pub(crate) fn ttl(&self, lease_id: u64) -> Duration {
        self.leases.ttl(lease_id).unwrap_or_else(|| self.granted_ttl(&[lease_id]))
    }

    /// Passes on what sessions gather, for ever.
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
                let lease_ids: Vec<u64> = gathered.into_iter().collect();
                self.renew(&lease_ids).await;
            }
        }
    }

    async fn pass_on(&self, lease_ids: &[u64]) -> Result<Renewed, Status> {
        let leader = self.group.status().leader;
        let leader = leader.ok_or_else(|| Status::unavailable("the disco group has no leader"))?;
        if leader == self.host.identity().node_id {
            return Err(Status::unavailable("this server is only just taking the lead"));
        }
        let address = self.host.mesh().book().address(leader);
        let address =
            address.ok_or_else(|| Status::unavailable("the leader's address is unknown"))?;
        let reply = self.link.renew(address, lease_ids.to_vec()).await?;
        let AnswerMeta { mesh_id, stale_for_ms, .. } = reply.meta.unwrap_or_default();
        self.check_mesh(&mesh_id)?;
        Ok(Renewed {
            unknown: reply.unknown,
            ttl: Duration::from_millis(reply.ttl_ms),
            // A leader without a quorum may have been replaced unheard.
            counted: stale_for_ms == 0,
        })
    }

    /// An address may have gone to a server of another mesh, which knows none of our leases.
    fn check_mesh(&self, theirs: &str) -> Result<(), Status> {
        let ours = self.host.mesh().watch_id().borrow().as_ref().map(ToString::to_string);
        if ours.as_deref() == Some(theirs) {
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
