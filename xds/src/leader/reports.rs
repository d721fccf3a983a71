//! What data nodes last said of their groups.
//!
//! Roles and lag are not replicated, only who leads is. Each server has the reports of the nodes
//! whose sessions it holds, and passes them on to the leader with the nodes' renewals. So the leader
//! has them all, and every server answers from what the leader has.
//!
//! A report goes with its session. How far the groups had come by it stays: it is wanted when the
//! nodes are gone, and come back with less.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use discovery::registry::Progress;
use mesh::GroupId;
use proto::quorate::v1::NodeStatus;
use tokio::time::Instant;

/// See the module. Clones share the reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Arc<Mutex<ReportTable>>);

#[derive(Debug, Default)]
struct ReportTable {
    /// By node.
    reports: BTreeMap<u64, Report>,
    progress: BTreeMap<GroupId, Progress>,
}

#[derive(Debug)]
struct Report {
    source: Source,
    status: NodeStatus,
    at: Instant,
}

/// How a report came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// By a session on this server: a node may have begun another before the end of one is noticed.
    Session(u64),
    /// From another server.
    Server,
}

/// How long a report counts that another server has passed on: nodes report every second or two.
const PASSED_ON: Duration = Duration::from_secs(15);

impl Reports {
    pub(crate) fn put(&self, node_id: u64, session: u64, status: NodeStatus) {
        self.lock().take(node_id, Source::Session(session), status);
    }

    /// Takes what another server passes on.
    pub(crate) fn put_passed_on(&self, node_id: u64, status: NodeStatus) {
        self.lock().take(node_id, Source::Server, status);
    }

    /// What a node last said.
    pub(crate) fn of(&self, node_id: u64) -> Option<NodeStatus> {
        self.lock().reports.get(&node_id).map(|it| it.status.clone())
    }

    /// Forgets what a session reported.
    pub(crate) fn forget(&self, node_id: u64, session: u64) {
        let reports = &mut self.lock().reports;
        if reports.get(&node_id).is_some_and(|it| it.source == Source::Session(session)) {
            reports.remove(&node_id);
        }
    }

    /// By node.
    pub(crate) fn all(&self) -> BTreeMap<u64, NodeStatus> {
        let reports = &mut self.lock().reports;
        reports.retain(|_, it| it.source != Source::Server || it.at.elapsed() < PASSED_ON);
        reports.iter().map(|(node_id, it)| (*node_id, it.status.clone())).collect()
    }

    /// How far a group had come by what its leaders said here.
    pub(crate) fn progress(&self, group: GroupId) -> Option<Progress> {
        self.lock().progress.get(&group).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, ReportTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReportTable {
    fn take(&mut self, node_id: u64, source: Source, status: NodeStatus) {
        for hosted in status.groups.iter().filter(|it| it.role == "leader") {
            let known = self.progress.entry(hosted.group).or_default();
            *known = known.after(Progress::reported(hosted));
        }
        self.reports.insert(node_id, Report { source, status, at: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use proto::quorate::v1::HostedGroup;

    use super::*;

    fn led(term: u64, index: u64) -> NodeStatus {
        let group = HostedGroup {
            group: 2,
            role: "leader".to_owned(),
            term,
            last_index: index,
            committed_index: index,
            ..HostedGroup::default()
        };
        NodeStatus { groups: vec![group] }
    }

    #[test]
    fn how_far_a_group_had_come_outlives_the_session_of_its_leader() {
        let reports = Reports::default();
        reports.put(7, 1, led(3, 50));
        reports.forget(7, 1);
        assert_eq!(reports.of(7), None);
        assert_eq!(reports.progress(2).unwrap().committed, 50);
        // One that was restored knows less, and reports it as a follower until somebody leads.
        reports.put(7, 2, NodeStatus::default());
        assert_eq!(reports.progress(2).unwrap().committed, 50);
        // Who leads with less does so since an operator accepted the loss.
        reports.put_passed_on(8, led(4, 20));
        assert_eq!(reports.progress(2).unwrap().committed, 20);
    }
}
