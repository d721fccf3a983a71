//! Decides where data groups live, on the leader.
//!
//! After each change of the topology it reads from the registry which placements are missing; see
//! [`placement`]. It proposes nothing before a quorum has confirmed that this server leads, so a
//! server that was cut off decides nothing from an old state.

use std::time::Duration;

use discovery::placement;
use mesh::node_hex;
use prost::Message;
use proto::quorate::v1::{
    RegistryCommand, RegistryRefusal, RegistryReply, registry_command::Command,
    registry_reply::Outcome,
};
use raft::{Group, Role};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::publish::Board;

/// How long to wait for more nodes after one was recorded, so that a group's first voters are
/// chosen among all nodes that start together.
const SETTLE: Duration = Duration::from_millis(200);

/// Pause after a proposal that failed.
const RETRY: Duration = Duration::from_secs(1);

/// How long a quorum may take to confirm this server, and then to store a command.
const PATIENCE: Duration = Duration::from_secs(5);

/// Places data groups, on the group's leader.
#[derive(Debug)]
pub(crate) struct Placer {
    group: Group,
    board: Board,
    voters_wanted: usize,
}

impl Placer {
    pub(crate) const fn new(group: Group, board: Board, voters_wanted: usize) -> Self {
        Self { group, board, voters_wanted }
    }

    pub(crate) async fn run(self, stopping: CancellationToken) {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.follow() => {}
        }
    }

    /// Ends only when the group does.
    async fn follow(&self) {
        let mut status = self.group.watch_status();
        let mut topology = self.board.topology();
        loop {
            if status.wait_for(|it| it.role == Role::Leader).await.is_err() {
                return;
            }
            topology.mark_unchanged();
            if !self.missing().is_empty() {
                sleep(SETTLE).await;
                if !self.place().await {
                    sleep(RETRY).await;
                }
                continue;
            }
            tokio::select! {
                changed = topology.changed() => if changed.is_err() { return },
                changed = status.changed() => if changed.is_err() { return },
            }
        }
    }

    fn missing(&self) -> Vec<RegistryCommand> {
        self.board.read(|registry| placement::proposals(registry, self.voters_wanted))
    }

    /// Proposes what is missing. Returns false if that failed.
    async fn place(&self) -> bool {
        if let Err(error) = self.group.confirm_leadership(PATIENCE).await {
            tracing::debug!(%error, "nothing is placed without a quorum");
            return false;
        }
        // A decision is made only once, so this server must first have applied what every earlier
        // leader has decided.
        if let Err(error) = self.group.read_barrier(PATIENCE).await {
            tracing::debug!(%error, "nothing is placed before the registry has caught up");
            return false;
        }
        for proposal in self.missing() {
            log_proposal(&proposal);
            match self.group.write(proposal.encode_to_vec().into(), PATIENCE).await {
                Ok(applied) => log_refusal(&applied.reply),
                Err(error) => {
                    tracing::warn!(%error, "a placement did not come through");
                    return false;
                }
            }
        }
        true
    }
}

fn log_proposal(proposal: &RegistryCommand) {
    match &proposal.command {
        Some(Command::DecideGroup(decision)) => tracing::info!(
            namespace = decision.namespace,
            voters = decision.first_voters.len(),
            "deciding a group's first voters"
        ),
        Some(Command::AssignReplica(assignment)) => tracing::info!(
            group = assignment.group,
            node = assignment.replica.map(|it| node_hex(it.node_id)),
            "assigning a further replica"
        ),
        Some(other) => tracing::debug!(?other, "placing"),
        None => {}
    }
}

fn log_refusal(reply: &[u8]) {
    if let Ok(RegistryReply { outcome: Some(Outcome::Refused(refusal)) }) =
        RegistryReply::decode(reply)
    {
        let RegistryRefusal { message, .. } = refusal;
        tracing::warn!(message, "a placement was refused");
    }
}
