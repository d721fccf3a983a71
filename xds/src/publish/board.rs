//! The board: what this replica has applied, published for readers.
//!
//! One machine writes ([`Publisher`]), once per batch of commands and after their rows are written;
//! anyone reads ([`Board`]). A reader never sees half a batch, and never waits for longer than it
//! takes to apply one.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use discovery::{registry::Registry, snapshot::Snapshot};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::audience::{Audience, Seat};

/// The writing side.
#[derive(Debug)]
pub(crate) struct Publisher {
    registry: Arc<RwLock<Registry>>,
    audience: Arc<Audience>,
    topology: watch::Sender<u64>,
    applied: watch::Sender<u64>,
}

/// The reading side.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    registry: Arc<RwLock<Registry>>,
    audience: Arc<Audience>,
    topology: watch::Receiver<u64>,
    applied: watch::Receiver<u64>,
}

impl Publisher {
    pub(crate) fn new() -> (Self, Board) {
        let registry = Arc::new(RwLock::new(Registry::default()));
        let audience = Arc::new(Audience::new(Snapshot::empty()));
        let (topology, latest_topology) = watch::channel(0);
        let (applied, latest_applied) = watch::channel(0);
        let board = Board {
            registry: Arc::clone(&registry),
            audience: Arc::clone(&audience),
            topology: latest_topology,
            applied: latest_applied,
        };
        (Self { registry, audience, topology, applied }, board)
    }

    /// Changes the registry that readers see.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Registry)) {
        change(&mut self.registry.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Publishes a snapshot to the streams that it concerns.
    pub(crate) fn announce_snapshot(&self, snapshot: Snapshot) {
        self.audience.publish(snapshot);
    }

    /// Wakes the tasks that follow which servers, nodes and groups there are.
    pub(crate) fn announce_topology(&self, applied: u64) {
        self.topology.send_replace(applied);
    }

    /// Wakes the tasks that wait for a log index. It must come last, so that they find what they
    /// wait for.
    pub(crate) fn announce_applied(&self, applied: u64) {
        self.applied.send_replace(applied);
    }
}

impl Board {
    /// Reads the registry. The next batch waits until `read` returns, so it must be short.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Registry) -> T) -> T {
        read(&self.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place among those who are told of snapshots.
    pub(crate) fn join(&self) -> Seat {
        self.audience.join()
    }

    /// Calls every stream of discovery, because the server changes its ways.
    pub(crate) fn call_all(&self) {
        self.audience.call_all();
    }

    #[cfg(test)]
    pub(super) fn snapshot(&self) -> Snapshot {
        self.audience.latest()
    }

    /// The log index at which servers, nodes or groups last changed, to be followed. Instances
    /// come and go without it.
    pub(crate) fn topology(&self) -> watch::Receiver<u64> {
        self.topology.clone()
    }

    /// The log index that readers see.
    pub(crate) fn revision(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Waits until readers see what the command at a log index did.
    pub(crate) async fn wait_applied(&self, index: u64, patience: Duration) -> bool {
        let mut applied = self.applied.clone();
        let deadline = Instant::now() + patience;
        let reached = timeout_at(deadline, applied.wait_for(|it| *it >= index)).await;
        matches!(reached, Ok(Ok(_)))
    }
}
