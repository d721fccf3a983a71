//! Ends leases that nobody renews.
//!
//! Runs on every server and does something on the leader. What ends a lease is a command; it is
//! proposed only after a quorum has confirmed, *after* the deadline, that this server still leads:
//! one that was cut off or asleep may have missed renewals that another leader heard.

use std::time::Duration;

use discovery::lease::{Frozen, Proposal, TICK};
use futures::{StreamExt, stream};
use prost::Message;
use raft::{Group, Role};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::publish::{Board, Leases};

/// How long a quorum may take to confirm this server's leadership.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(2);

/// How long a proposal may take. It is made again when it is still due.
const PROPOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Proposals under way at once.
const PROPOSALS_AT_ONCE: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    group: Group,
    board: Board,
    leases: Leases,
    frozen: bool,
}

impl LeaseKeeper {
    pub(crate) const fn new(group: Group, board: Board, leases: Leases) -> Self {
        Self { group, board, leases, frozen: false }
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
                () = self.keep() => {}
            }
            self.leases.resign();
            if stopping.is_cancelled() {
                return;
            }
        }
    }

    async fn keep(&mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let due = self.leases.due();
            self.report_latch();
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

    async fn propose_one(&self, proposal: Proposal, term: u64) {
        match &proposal {
            Proposal::Expire { lease_id, .. } if self.leases.was_heard(*lease_id) => return,
            Proposal::Expire { lease_id, .. } => {
                tracing::info!(lease = format_args!("{lease_id:016x}"), "a lease ends unrenewed");
            }
            Proposal::Reap { service, id, .. } => {
                tracing::info!(service, id, "forgetting an instance that is long down");
            }
        }
        let command = proposal.into_command(term).encode_to_vec();
        if let Err(error) = self.group.write(command.into(), PROPOSE_PATIENCE).await {
            tracing::debug!(%error, "a lease has not ended yet");
        }
    }

    fn report_latch(&mut self) {
        let frozen = self.leases.frozen();
        match (&frozen, self.frozen) {
            (Some(Frozen { missing, total, zone }), false) => {
                tracing::warn!(
                    missing,
                    total,
                    zone = zone.as_ref().map(|it| it.zone.as_str()),
                    "too many owners fell silent at once: nothing expires until they are back"
                );
            }
            (None, true) => tracing::warn!("owners are back: leases expire again"),
            (Some(_), true) | (None, false) => {}
        }
        self.frozen = frozen.is_some();
    }
}
