//! What data nodes last said of their groups.
//!
//! Who leads a group is replicated; roles and lag are not. Each server has the reports of the nodes
//! whose sessions it holds, and passes them on to the leader with the nodes' renewals. So the
//! leader has all reports, and every server answers from those of the leader.
//!
//! A report is removed with its session. How far the groups had come by it is kept: it is needed
//! when nodes come back with less than they had acknowledged.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use discovery::registry::Progress;
use mesh::GroupId;
use proto::quorate::v1::{HostedGroup, NodeStatus};
use raft::Role;
use tokio::time::Instant;

/// The latest reports of data nodes. Clones share them.
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
    /// By the session of this number on this server. A node may begin a session before the end of
    /// its last one is noticed.
    Session(u64),
    /// By another server, which passed it on.
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

    /// Removes the report of a session, unless a later session has replaced it.
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

    /// How far a group had come by the reports of its leaders.
    pub(crate) fn progress(&self, group: GroupId) -> Option<Progress> {
        self.lock().progress.get(&group).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, ReportTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReportTable {
    fn take(&mut self, node_id: u64, source: Source, status: NodeStatus) {
        for hosted in status.groups.iter().filter(|it| leads(it)) {
            let known = self.progress.entry(hosted.group).or_default();
            *known = known.after(Progress::reported(hosted));
        }
        self.reports.insert(node_id, Report { source, status, at: Instant::now() });
    }
}

/// Whether a node reports that it leads a group.
pub(crate) fn leads(hosted: &HostedGroup) -> bool {
    hosted.role == Role::Leader.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn led(term: u64, index: u64) -> NodeStatus {
        let group = HostedGroup {
            group: 2,
            role: Role::Leader.as_str().to_owned(),
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
        // A node that was restored knows less, but it reports as a follower until a leader is
        // elected.
        reports.put(7, 2, NodeStatus::default());
        assert_eq!(reports.progress(2).unwrap().committed, 50);
        // A leader that has less leads because an operator has accepted the loss.
        reports.put_passed_on(8, led(4, 20));
        assert_eq!(reports.progress(2).unwrap().committed, 20);
    }
}
