//! Stopping without leaving: leaderships are handed over, then the groups are closed.
//!
//! Every wait is bounded. A node that cannot hand over stops all the same: the others elect.

use std::time::Duration;

use futures::future::join_all;
use mesh::NodeId;
use raft::{Group, Role};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::{
    chain,
    reconcile::{Outlook, successor},
};

/// How long a leadership may take to arrive at its successor.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// How long the groups may take to flush and close.
const CLOSE_WITHIN: Duration = Duration::from_secs(4);

/// Hands over every leadership, to the voter that lags least.
pub(crate) async fn hand_over(groups: &[Group], own_id: NodeId, outlook: &Outlook) {
    let leaving = groups.iter().map(async |group| {
        match timeout(HAND_OVER_WITHIN, hand_over_one(group, own_id, outlook)).await {
            Ok(()) => {}
            Err(_) => warn!(namespace = group.namespace(), "the leadership was not taken over"),
        }
    });
    join_all(leaving).await;
}

/// Closes every group.
pub(crate) async fn close(groups: &[Group]) {
    let closing = groups.iter().map(async |group| {
        if timeout(CLOSE_WITHIN, group.stop()).await.is_err() {
            warn!(namespace = group.namespace(), "did not close in time");
        }
    });
    join_all(closing).await;
}

async fn hand_over_one(group: &Group, own_id: NodeId, outlook: &Outlook) {
    let status = group.status();
    if status.role != Role::Leader {
        return;
    }
    let namespace = group.namespace();
    let advice = outlook.advice(group.id(), Instant::now());
    let Some(successor) = successor(&status, own_id, advice.as_ref()) else {
        debug!(namespace, "nobody to hand the leadership to");
        return;
    };
    if let Err(error) = group.transfer_leader(successor).await {
        warn!(namespace, error = %chain(&error), "cannot hand the leadership over");
        return;
    }
    let mut statuses = group.watch_status();
    // The watch ends with the group, and then there is nothing left to wait for.
    let _ = statuses.wait_for(|status| status.leader.is_some_and(|leader| leader != own_id)).await;
    info!(namespace, successor = %mesh::node_hex(successor), "handed the leadership over");
}
