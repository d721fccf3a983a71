//! A leader that stops hands its leadership over first, so that no election is needed.

use std::time::Duration;

use mesh::{NodeId, node_hex};
use tokio::time;

use super::{Group, Role, Status};

/// How many entries a member may miss and count as caught up: what a group commits in a moment.
pub const CAUGHT_UP_LAG: u64 = 256;

/// Pause before a successor is looked for again: under load the others are a moment behind.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Group {
    /// Hands the leadership over, if this server has it, to the voter that lags least of those that
    /// `may_lead`. Returns once it is taken over, if there is nobody to hand it to, or after
    /// `patience`; then the other members elect a leader.
    pub async fn hand_over(&self, patience: Duration, may_lead: impl Fn(NodeId) -> bool) {
        let namespace = self.namespace();
        if time::timeout(patience, self.hand_over_to_any(may_lead)).await.is_err() {
            tracing::warn!(namespace, "the leadership was not taken over");
        }
    }

    async fn hand_over_to_any(&self, may_lead: impl Fn(NodeId) -> bool) {
        let (namespace, own_id) = (self.namespace(), self.inner.node_id);
        loop {
            let status = self.status();
            if status.role != Role::Leader {
                return;
            }
            if !status.members.iter().any(|it| it.voter && it.node_id != own_id && it.is_heard) {
                tracing::debug!(namespace, "nobody to hand the leadership to");
                return;
            }
            let Some(successor) = successor(&status, own_id, &may_lead) else {
                time::sleep(LOOK_AGAIN).await;
                continue;
            };
            if let Err(error) = self.transfer_leader(successor).await {
                tracing::warn!(namespace, %error, "cannot hand the leadership over");
                return;
            }
            let mut statuses = self.watch_status();
            // The watch fails only when the group has stopped, and then there is nothing to wait for.
            let taken = |leader: Option<NodeId>| leader.is_some_and(|leader| leader != own_id);
            let _ = statuses.wait_for(|status| taken(status.leader)).await;
            tracing::info!(namespace, successor = %node_hex(successor), "handed the leadership over");
            return;
        }
    }
}

/// The voter that a stopping leader hands over to: heard, and with the least to catch up on.
fn successor(status: &Status, own_id: NodeId, may_lead: impl Fn(NodeId) -> bool) -> Option<NodeId> {
    let others = status.members.iter().filter(|it| it.voter && it.node_id != own_id && it.is_heard);
    others
        .filter(|it| may_lead(it.node_id))
        .filter_map(|it| it.lag.map(|lag| (lag, it.node_id)))
        .filter(|(lag, _)| *lag <= CAUGHT_UP_LAG)
        .min()
        .map(|(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{group::MemberStatus, quorum::Quorum};

    /// Server 1 leads.
    fn leader<const N: usize>(members: [MemberStatus; N]) -> Status {
        Status {
            role: Role::Leader,
            term: 1,
            voted_for: 1,
            leader: Some(1),
            last_index: 0,
            committed: 0,
            applied: 0,
            purged: 0,
            members: members.to_vec(),
            membership_log_id: None,
            joint: false,
            quorum: Quorum::Held,
            quorum_age: None,
            without_quorum: Duration::ZERO,
            doubt: None,
        }
    }

    fn voter(node_id: NodeId, lag: u64) -> MemberStatus {
        let lag = (node_id != 1).then_some(lag);
        MemberStatus { node_id, store_id: 0, voter: true, lag, heard: None, is_heard: true }
    }

    fn any(_: NodeId) -> bool {
        true
    }

    #[test]
    fn the_voter_that_lags_least_takes_over() {
        let learner = MemberStatus { voter: false, ..voter(4, 0) };
        let status = leader([voter(1, 0), voter(2, 7), voter(3, 2), learner]);
        assert_eq!(successor(&status, 1, any), Some(3));
        assert_eq!(successor(&status, 1, |id| id != 3), Some(2));
    }

    #[test]
    fn nobody_that_is_behind_takes_over() {
        assert_eq!(successor(&leader([voter(1, 0), voter(2, CAUGHT_UP_LAG + 1)]), 1, any), None);
        assert_eq!(successor(&leader([voter(1, 0)]), 1, any), None);
    }

    #[test]
    fn nobody_that_is_silent_takes_over() {
        let silent = MemberStatus { is_heard: false, ..voter(2, 0) };
        assert_eq!(successor(&leader([voter(1, 0), silent]), 1, any), None);
        assert_eq!(successor(&leader([voter(1, 0), silent, voter(3, 9)]), 1, any), Some(3));
    }
}
