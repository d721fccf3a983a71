//! How a node that stops hands its leaderships over. It stays a member, and its groups run on until
//! the last call here has ended.
//!
//! Every wait is bounded. A node that cannot hand a leadership over stops all the same, and the
//! other members elect a leader.

use std::time::Duration;

use futures::future::join_all;
use mesh::NodeId;
use raft::{Group, Role};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::{
    chain,
    reconcile::{Topology, successor},
};

/// How long a leadership may take to arrive at its successor.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);

/// Pause before a successor is looked for again: under load the others are a moment behind.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Hands over every leadership, to the voter that lags least.
pub(crate) async fn hand_over(groups: &[Group], own_id: NodeId, topology: &Topology) {
    let leaving = groups.iter().map(async |group| {
        match timeout(HAND_OVER_WITHIN, hand_over_one(group, own_id, topology)).await {
            Ok(()) => {}
            Err(_) => warn!(namespace = group.namespace(), "the leadership was not taken over"),
        }
    });
    join_all(leaving).await;
}

async fn hand_over_one(group: &Group, own_id: NodeId, topology: &Topology) {
    let namespace = group.namespace();
    loop {
        let status = group.status();
        if status.role != Role::Leader {
            return;
        }
        if !status.members.iter().any(|it| it.voter && it.node_id != own_id && it.is_heard) {
            debug!(namespace, "nobody to hand the leadership to");
            return;
        }
        let advice = topology.advice(group.id(), Instant::now());
        let Some(successor) = successor(&status, own_id, advice.as_ref()) else {
            sleep(LOOK_AGAIN).await;
            continue;
        };
        if let Err(error) = group.transfer_leader(successor).await {
            warn!(namespace, error = %chain(&error), "cannot hand the leadership over");
            return;
        }
        let mut statuses = group.watch_status();
        // The watch fails only when the group has stopped, and then there is nothing to wait for.
        let taken = |leader: Option<NodeId>| leader.is_some_and(|leader| leader != own_id);
        let _ = statuses.wait_for(|status| taken(status.leader)).await;
        info!(namespace, successor = %mesh::node_hex(successor), "handed the leadership over");
        return;
    }
}
