//! What data nodes last said of their groups, on the server where they have their session.
//!
//! Roles and lag are not replicated, only who leads is. So a server knows them of the nodes whose
//! sessions it holds, and a leader's report tells the lag of its whole group.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::quorate::v1::NodeStatus;

/// See the module. Clones share the reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Arc<Mutex<BTreeMap<u64, Report>>>);

#[derive(Debug)]
struct Report {
    /// Which session it came by: a node may have begun another before the end of one is noticed.
    session: u64,
    status: NodeStatus,
}

impl Reports {
    pub(crate) fn put(&self, node_id: u64, session: u64, status: NodeStatus) {
        self.lock().insert(node_id, Report { session, status });
    }

    /// Forgets what a session reported.
    pub(crate) fn forget(&self, node_id: u64, session: u64) {
        let mut reports = self.lock();
        if reports.get(&node_id).is_some_and(|it| it.session == session) {
            reports.remove(&node_id);
        }
    }

    /// By node.
    pub(crate) fn all(&self) -> BTreeMap<u64, NodeStatus> {
        self.lock().iter().map(|(node_id, it)| (*node_id, it.status.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
