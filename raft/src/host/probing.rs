//! Probes the leaders that the groups of this server follow.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use futures::future;
use mesh::NodeId;
use tokio::time;

use super::Host;
use crate::group::Role;

/// Pause between two probes.
const PROBE_EVERY: Duration = Duration::from_secs(1);

impl Host {
    /// Probes each leader that a group of this server follows, again and again.
    pub(super) async fn probe_leaders(&self) -> Infallible {
        loop {
            time::sleep(PROBE_EVERY).await;
            let leaders: BTreeSet<NodeId> = self
                .groups()
                .iter()
                .map(|group| group.leadership())
                .filter(|(role, _)| matches!(role, Role::Follower | Role::Learner))
                .filter_map(|(_, leader)| leader)
                .collect();
            let asked = leaders.into_iter().map(async |leader| {
                let reached = self.mesh().reaches(leader).await;
                (leader, reached)
            });
            let reached = future::join_all(asked).await.into_iter().collect();
            self.failed_probes().note(&reached);
        }
    }
}
