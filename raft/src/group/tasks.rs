//! The background tasks of a group: its status, its log's length, its level, and handing over.

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use mesh::{GroupId, NodeId, node_hex};
use openraft::{async_runtime::watch::WatchReceiver as _, errors::Fatal};
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{GroupFailure, Raft, Role, status, status::Status, with_metrics};
use crate::{
    level::{self, Announced},
    quorum::Contacts,
    reach::{self, Complaints},
    state::Published,
    timing::Timing,
    types::{Command, LogId},
};

/// How often the age of the last quorum is checked. No event announces it.
const QUORUM_POLL: Duration = Duration::from_millis(100);

/// How often a leader checks whether all voters know a higher level than the group's.
const LEVEL_POLL: Duration = Duration::from_millis(500);

/// Least pause between two checks of the log's length.
const SNAPSHOT_POLL: Duration = Duration::from_millis(500);

/// How often a leader checks whether the members can reach it.
const COMPLAINTS_POLL: Duration = Duration::from_secs(1);
/// Pause after a handover, which may fail.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(5);

/// Reports a task that ends or panics although its group is not being stopped. Without the report
/// the group would seem to work.
pub(super) struct TaskGuard {
    pub(super) group: GroupId,
    /// What the task does.
    pub(super) task: &'static str,
    pub(super) stopping: CancellationToken,
    pub(super) failures: mpsc::Sender<(GroupId, GroupFailure)>,
}

impl TaskGuard {
    pub(super) async fn guard(self, task: impl Future<Output = ()>) {
        task.await;
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        if !self.stopping.is_cancelled() {
            let reason = GroupFailure::Broken(format!("the task that {} ended", self.task));
            // The host ends at the first report; more of them may be dropped.
            let _ = self.failures.try_send((self.group, reason));
        }
    }
}

pub(super) struct MetricsWatch {
    pub(super) id: GroupId,
    pub(super) raft: Raft,
    pub(super) contacts: Contacts,
    pub(super) published: Arc<Published>,
    pub(super) status: watch::Sender<Status>,
    pub(super) failures: mpsc::Sender<(GroupId, GroupFailure)>,
}

/// Publishes the group's status until the group stops. Reports the reason if the group failed.
pub(super) async fn watch_metrics(watched: MetricsWatch) {
    let MetricsWatch { id, raft, contacts, published, status: told, failures } = watched;
    let mut changes = raft.metrics();
    loop {
        let current = changes.borrow_and_update().clone();
        let now = status::of(&current, &contacts);
        told.send_if_modified(|last| {
            let changed = last.without_ages() != now.without_ages();
            *last = now;
            changed
        });
        if let Err(fatal) = &current.running_state {
            match fatal {
                Fatal::Stopped => {}
                Fatal::StorageError(_) | Fatal::Panicked => {
                    tracing::error!(group = id, error = %fatal, "the group has failed");
                    let failed = match published.outdated.get() {
                        Some(outdated) => GroupFailure::Outdated(outdated.clone()),
                        None => GroupFailure::Broken(fatal.to_string()),
                    };
                    // The host ends at the first report; more of them may be dropped.
                    let _ = failures.try_send((id, failed));
                }
            }
            return;
        }
        if let Ok(Err(_)) = time::timeout(QUORUM_POLL, changes.changed()).await {
            return;
        }
    }
}

/// Raises the group's level on its leader, once every voter knows a higher one: see [`level`].
pub(super) struct LevelRaiser {
    pub(super) id: GroupId,
    pub(super) node_id: NodeId,
    pub(super) raft: Raft,
    pub(super) contacts: Contacts,
    pub(super) published: Arc<Published>,
    /// The highest level that this server knows.
    pub(super) known: u32,
}

impl LevelRaiser {
    pub(super) async fn run(self) {
        loop {
            time::sleep(LEVEL_POLL).await;
            let Some(level) = self.next_level() else { continue };
            tracing::info!(group = self.id, level, "all voters know more: raising the level");
            if let Err(error) = self.raft.client_write(Command::RaiseLevel(level)).await {
                // This task, or that of the next leader, tries again.
                tracing::debug!(group = self.id, %error, "the level is not raised yet");
            }
        }
    }

    fn next_level(&self) -> Option<u32> {
        let current = self.published.level.load(Ordering::Relaxed);
        if self.known <= current {
            return None;
        }
        let announced = self.contacts.levels();
        with_metrics(&self.raft, |metrics| {
            if status::role(metrics) != Role::Leader {
                return None;
            }
            let membership = metrics.membership_config.membership();
            let members = membership.nodes().map(|(id, _)| Announced {
                voter: membership.voter_ids().any(|voter| voter == *id),
                level: match *id == self.node_id {
                    true => Some(self.known),
                    false => announced.get(id).copied(),
                },
            });
            level::next_level(current, members)
        })
    }
}

/// Transfers the leadership when most of the other voters say that they cannot reach this server.
pub(super) async fn hand_over_when_unreachable(
    id: GroupId,
    own_id: NodeId,
    raft: Raft,
    contacts: Contacts,
    complaints: Arc<Complaints>,
) {
    loop {
        time::sleep(COMPLAINTS_POLL).await;
        let complaining = complaints.current(Instant::now());
        if complaining.is_empty() {
            continue;
        }
        let status = with_metrics(&raft, |metrics| status::of(metrics, &contacts));
        if status.role != Role::Leader {
            continue;
        }
        let others = status.members.iter().filter(|it| it.voter && it.node_id != own_id);
        let others = others.map(|it| (it.node_id, it.lag.unwrap_or(u64::MAX))).collect();
        let Some(to) = reach::successor(&others, &complaining) else { continue };
        tracing::warn!(
            group = id,
            to = node_hex(to),
            "most members cannot reach this server where it advertises itself: it hands over"
        );
        // An error means that the group has failed, which is reported elsewhere.
        let _ = raft.trigger().transfer_leader(to).await;
        time::sleep(HAND_OVER_PAUSE).await;
    }
}

/// Triggers a Raft snapshot whenever the log since the last one is long enough. A snapshot costs a
/// flush. Afterwards the log before it is purged, except for what is kept for members that were
/// briefly away.
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
