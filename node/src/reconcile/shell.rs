//! The reconciler of one group: looks, takes one step, looks again.

#[cfg(test)]
mod tests;

use std::time::Duration;

use raft::{ChangeError, Group, Role, Status};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, info, warn};

use super::{Advice, Step, Topology, next_step};

/// How long a leader waits before it looks again. A learner that has caught up waits this long for
/// its promotion; a failed step is not repeated sooner.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a step that was taken may need to show in the group's status.
const SETTLE: Duration = Duration::from_millis(100);

/// Keeps the membership of one group as DISCO advises, while this node leads it.
#[derive(Debug)]
pub(crate) struct Reconciler {
    group: Group,
    topology: watch::Receiver<Topology>,
    replace_after: Duration,
    /// The term in which this node leads, and when this reconciler first saw it lead.
    leading_since: Option<(u64, Instant)>,
}

impl Reconciler {
    pub(crate) fn new(
        group: Group,
        topology: watch::Receiver<Topology>,
        replace_after: Duration,
    ) -> Self {
        Self { group, topology, replace_after, leading_since: None }
    }

    /// Reconciles until it is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let pause = if self.reconcile_once().await { SETTLE } else { LOOK_EVERY };
            // Changed advice is acted on at once. If its publisher is gone, the periodic look
            // remains.
            tokio::select! {
                Ok(()) = self.topology.changed() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Takes the next step, if there is one. Returns whether it was taken.
    async fn reconcile_once(&mut self) -> bool {
        let status = self.group.status();
        if status.role != Role::Leader {
            self.leading_since = None;
            return false;
        }
        let advice = self.advice(&status);
        let Some(step) = next_step(&status, advice.as_ref(), self.replace_after) else {
            return false;
        };
        let namespace = self.group.namespace();
        match self.propose(step.clone(), status.membership_log_id).await {
            Ok(()) => {
                info!(namespace, %step, "membership changed");
                true
            }
            Err(error) => {
                warn!(namespace, %step, error = %crate::chain(&error), "membership did not change");
                false
            }
        }
    }

    /// What DISCO advises, corrected by what this leader has heard from the members.
    fn advice(&mut self, status: &Status) -> Option<Advice> {
        let term = status.term;
        let now = Instant::now();
        let since = match self.leading_since {
            Some((led, since)) if led == term => since,
            Some(_) | None => now,
        };
        self.leading_since = Some((term, since));
        let advice = self.topology.borrow_and_update().advice(self.group.id(), now)?;
        let leading_for = now.saturating_duration_since(since);
        let heard = status.members.iter().filter_map(|it| Some((it.node_id, it.heard?))).collect();
        Some(advice.capped_by_silence(&heard, leading_for))
    }

    async fn propose(&self, step: Step, looked_at: Option<(u64, u64)>) -> Result<(), ChangeError> {
        debug!(namespace = self.group.namespace(), ?step, "changing the membership");
        match step {
            Step::AddLearner(member) => self.group.add_learner(member, looked_at).await,
            Step::SetVoters { voters, .. } => self.group.change_voters(voters, looked_at).await,
            Step::Remove(node_id) => self.group.remove_member(node_id, looked_at).await,
        }
    }
}
