//! What data nodes last said of their groups.
//!
//! Roles and lag are not replicated, only who leads is. Each server has the reports of the nodes
//! whose sessions it holds, and passes them on to the leader with the nodes' renewals. So the leader
//! has them all, and every server answers from what the leader has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::quorate::v1::NodeStatus;
use tokio::time::Instant;

/// See the module. Clones share the reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Arc<Mutex<BTreeMap<u64, Report>>>);

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
        let (source, at) = (Source::Session(session), Instant::now());
        self.lock().insert(node_id, Report { source, status, at });
    }

    /// Takes what another server passes on.
    pub(crate) fn put_passed_on(&self, node_id: u64, status: NodeStatus) {
        let (source, at) = (Source::Server, Instant::now());
        self.lock().insert(node_id, Report { source, status, at });
    }

    /// What a node last said.
    pub(crate) fn of(&self, node_id: u64) -> Option<NodeStatus> {
        self.lock().get(&node_id).map(|it| it.status.clone())
    }

    /// Forgets what a session reported.
    pub(crate) fn forget(&self, node_id: u64, session: u64) {
        let mut reports = self.lock();
        if reports.get(&node_id).is_some_and(|it| it.source == Source::Session(session)) {
            reports.remove(&node_id);
        }
    }

    /// By node.
    pub(crate) fn all(&self) -> BTreeMap<u64, NodeStatus> {
        let mut reports = self.lock();
        reports.retain(|_, it| it.source != Source::Server || it.at.elapsed() < PASSED_ON);
        reports.iter().map(|(node_id, it)| (*node_id, it.status.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
