//! Ends leases that nobody renews.
//!
//! Runs on every server and acts on the leader. A lease is ended by a command. The command is
//! proposed only after a quorum has confirmed, *after* the lease's deadline, that this server still
//! leads: a server that was cut off or suspended may have missed renewals that another leader has
//! counted.

use std::time::Duration;

use discovery::lease::{Frozen, Proposal, TICK};
use futures::{StreamExt, stream};
use prost::Message;
use raft::{Group, Role};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::publish::{Board, Leases};

/// How long a quorum may take to confirm this server's leadership.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(2);

/// How long a proposal may take. It is made again when it is still due.
const PROPOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Proposals under way at once.
const PROPOSALS_AT_ONCE: usize = 32;

/// How often silent owners are logged while there are any.
const LOG_SILENCE_EVERY: Duration = Duration::from_secs(60);

/// Ends the leases of the registry on the group's leader.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    group: Group,
    board: Board,
    leases: Leases,
    frozen: bool,
    /// When it was last logged that owners are silent.
    silence_logged_at: Option<Instant>,
}

impl LeaseKeeper {
    pub(crate) const fn new(group: Group, board: Board, leases: Leases) -> Self {
        Self { group, board, leases, frozen: false, silence_logged_at: None }
    }

    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        let mut status = self.group.watch_status();
        loop {
            let led = status.wait_for(|it| it.role == Role::Leader);
            let term = tokio::select! {
                () = stopping.cancelled() => return,
                led = led => match led {
                    Ok(status) => status.term,
                    Err(_) => return,
                },
            };
            self.leases.lead(&self.board);
            tracing::debug!(term, "counting leases");
            let until = status.wait_for(|it| it.role != Role::Leader || it.term != term);
            tokio::select! {
                () = stopping.cancelled() => {}
                _ = until => {}
                () = self.expire_leases() => {}
            }
            self.leases.resign();
            if stopping.is_cancelled() {
                return;
            }
        }
    }

    async fn expire_leases(&mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let due = self.leases.due(&self.board);
            self.log_latch();
            self.log_silence();
            if !due.is_empty() {
                self.propose(due).await;
            }
        }
    }

    async fn propose(&self, due: Vec<Proposal>) {
        let term = match self.group.confirm_leadership(CONFIRM_PATIENCE).await {
            Ok(term) => term,
            Err(error) => {
                tracing::debug!(%error, due = due.len(), "nothing expires without a quorum");
                return;
            }
        };
        stream::iter(due)
            .for_each_concurrent(PROPOSALS_AT_ONCE, |proposal| self.propose_one(proposal, term))
            .await;
    }

    async fn propose_one(&self, mut proposal: Proposal, term: u64) {
        match &mut proposal {
            Proposal::Expire { lease_id, .. } if self.leases.was_heard(*lease_id) => return,
            Proposal::Expire { lease_id, .. } => self.log_expiry(*lease_id),
            Proposal::Mark(marks) => {
                marks.retain(|it| !it.silent || !self.leases.was_heard(it.lease_id));
                if marks.is_empty() {
                    return;
                }
                let silent = marks.iter().filter(|it| it.silent).count();
                if silent > 0 {
                    tracing::info!(leases = silent, "owners are silent: served as a last resort");
                }
                if silent < marks.len() {
                    tracing::info!(leases = marks.len() - silent, "owners are heard again");
                }
            }
            Proposal::Reap { service, id, .. } => {
                tracing::info!(service, id, "forgetting an instance that is long down");
            }
            Proposal::RemoveService { name } => {
                tracing::info!(service = name, "removing a service that long had no instance");
            }
            Proposal::ReapService { name, .. } => {
                tracing::info!(service = name, "the port of a removed service is free");
            }
        }
        let command = proposal.into_command(term).encode_to_vec();
        if let Err(error) = self.group.write(command.into(), PROPOSE_PATIENCE).await {
            tracing::debug!(%error, "a lease has not ended yet");
        }
    }

    /// Logs whose lease ends.
    fn log_expiry(&self, lease_id: u64) {
        let instances: Vec<(String, String)> = self.board.read(|registry| {
            let instances = registry.instances_of_lease(lease_id);
            instances.map(|it| (it.service.clone(), it.id.clone())).collect()
        });
        let lease = format!("{lease_id:016x}");
        for (service, id) in &instances {
            tracing::info!(service, id, lease, "expired: not renewed in time");
        }
        if instances.is_empty() {
            tracing::info!(lease, "a node's lease ends unrenewed");
        }
    }

    /// Logs once a minute how many owners are silent.
    fn log_silence(&mut self) {
        let silent = self.leases.silent();
        let is_due = self.silence_logged_at.is_none_or(|told| told.elapsed() >= LOG_SILENCE_EVERY);
        if silent == 0 {
            self.silence_logged_at = None;
        } else if is_due {
            self.silence_logged_at = Some(Instant::now());
            tracing::warn!(
                silent,
                "silent instances are kept, and end slowly unless their owners are heard; \
                 `quorate deregister --silent` removes those that are gone for good"
            );
        }
    }

    fn log_latch(&mut self) {
        let frozen = self.leases.frozen();
        match (&frozen, self.frozen) {
            (Some(Frozen { missing, total, zone }), false) => {
                tracing::warn!(
                    missing,
                    total,
                    zone = zone.as_ref().map(|it| it.zone.as_str()),
                    "too many owners fell silent at once: nothing expires for the time being"
                );
            }
            (None, true) => {
                tracing::warn!("no mass of owners falls silent any more: leases expire again")
            }
            (Some(_), true) | (None, false) => {}
        }
        self.frozen = frozen.is_some();
    }
}
