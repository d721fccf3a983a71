//! What runs beside a group: telling its status, and bounding its log.

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh::GroupId;
use openraft::{async_runtime::watch::WatchReceiver as _, errors::Fatal};
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{status, status::Status, with_metrics};
use crate::{
    state::Published,
    timing::Timing,
    types::{LogId, Raft},
};

/// How often at most the log's length is looked at.
const SNAPSHOT_POLL: Duration = Duration::from_millis(500);

/// Reports a task that ends, or panics, although its group is not being stopped: without it the
/// group would seem to live on.
pub(super) struct Alarm {
    pub(super) group: GroupId,
    /// What the task does.
    pub(super) task: &'static str,
    pub(super) stopping: CancellationToken,
    pub(super) failures: mpsc::Sender<(GroupId, String)>,
}

impl Alarm {
    pub(super) async fn guard(self, task: impl Future<Output = ()>) {
        task.await;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.stopping.is_cancelled() {
            let reason = format!("the task that {} ended", self.task);
            // The host ends at the first report; more of them may be dropped.
            let _ = self.failures.try_send((self.group, reason));
        }
    }
}

pub(super) struct Watched {
    pub(super) id: GroupId,
    pub(super) raft: Raft,
    pub(super) status: watch::Sender<Status>,
    pub(super) failures: mpsc::Sender<(GroupId, String)>,
}

/// Tells the group's status until it stops, and reports why if it was not asked to.
pub(super) async fn watch_metrics(watched: Watched) {
    let Watched { id, raft, status: told, failures } = watched;
    let mut changes = raft.metrics();
    loop {
        let current = changes.borrow_and_update().clone();
        let now = status::from_metrics(&current);
        told.send_if_modified(|last| {
            let age = last.quorum_age;
            last.quorum_age = now.quorum_age;
            let changed = *last != now;
            if changed {
                *last = now;
            } else {
                last.quorum_age = age;
            }
            changed
        });
        if let Err(fatal) = &current.running_state {
            match fatal {
                Fatal::Stopped => {}
                Fatal::StorageError(_) | Fatal::Panicked => {
                    tracing::error!(group = id, error = %fatal, "the group has failed");
                    // The host ends at the first report; more of them may be dropped.
                    let _ = failures.try_send((id, fatal.to_string()));
                }
            }
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Has a Raft snapshot reported whenever the log since the last one is long enough. It costs a
/// flush; the log before it is then purged, up to what is kept for members that were away.
pub(super) async fn report_snapshots(
    id: GroupId,
    raft: Raft,
    published: Arc<Published>,
    timing: Timing,
) {
    let mut applied = published.applied.subscribe();
    let mut bytes_then = 0;
    while applied.changed().await.is_ok() {
        applied.borrow_and_update();
        let (last, reported) = with_metrics(&raft, |metrics| {
            let index = |id: &Option<LogId>| id.map_or(0, |id| id.index);
            (index(&metrics.last_applied), index(&metrics.snapshot))
        });
        let bytes = published.applied_bytes.load(Ordering::Relaxed);
        if last.saturating_sub(reported) >= timing.snapshot_entries
            || bytes - bytes_then >= timing.snapshot_bytes
        {
            tracing::debug!(group = id, last, reported, "reporting a Raft snapshot");
            // An error means that the group has failed, which is reported elsewhere.
            let _ = raft.trigger().snapshot().await;
            bytes_then = bytes;
        }
        time::sleep(SNAPSHOT_POLL).await;
    }
}
