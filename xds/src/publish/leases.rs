//! Leases on this server: the table while it leads, and nothing while it does not.
//!
//! The table is in the leader's memory only. It is filled from the registry when a leader is
//! elected, every lease with its full time, and follows what the machine publishes. Time is this
//! process's monotonic clock.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use discovery::{
    lease::{Frozen, Heard, LeaseTable, Proposal, Time},
    registry::{DEFAULT_TTL, Outcome, Registry},
};
use tokio::time::Instant;

use super::board::Board;

/// The leases of this server. Clones share the table.
#[derive(Clone)]
pub(crate) struct Leases {
    started: Instant,
    /// How long an owner may be silent while expiry is held back before its lease ends all the
    /// same, in the slow lane.
    patience: Duration,
    state: Arc<Mutex<LeaderLeases>>,
}

#[derive(Debug, Default)]
struct LeaderLeases {
    /// Present while this server leads.
    table: Option<LeaseTable>,
    /// Leases that were renewed since the last round of proposals was made: they must not be
    /// expired by that round.
    heard: BTreeSet<u64>,
}

/// What came of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Renewed {
    /// Leases that have ended: their owners must register again.
    pub(crate) unknown: Vec<u64>,
    /// The shortest time that any of the others lasts from now.
    pub(crate) ttl: Duration,
    /// Whether the leader has counted the renewal. If not, this server knows of no leader that
    /// could end the lease; but another server may.
    pub(crate) counted: bool,
}

impl Leases {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { started: Instant::now(), patience, state: Arc::default() }
    }

    /// Begins to count every lease of the registry, with its full time.
    pub(crate) fn lead(&self, board: &Board) {
        let mut state = self.lock();
        // The registry is read under the lock, so that every later change reaches the table through
        // `follow`.
        state.table = Some(board.read(|registry| self.table(registry)));
        state.heard.clear();
    }

    /// Stops counting, since this server no longer leads.
    pub(crate) fn resign(&self) {
        self.lock().table = None;
    }

    /// Whether this server counts leases, which only the leader does.
    pub(crate) fn leads(&self) -> bool {
        self.lock().table.is_some()
    }

    /// Applies what was published to the table.
    pub(crate) fn follow(&self, registry: &Registry, outcome: &Outcome) {
        if let Some(table) = &mut self.lock().table {
            table.follow(registry, outcome, self.now());
        }
    }

    /// Counts every lease anew, after the registry was replaced.
    pub(crate) fn reload(&self, registry: &Registry) {
        if let Some(table) = &mut self.lock().table {
            *table = self.table(registry);
        }
    }

    /// Renews leases, if this server leads.
    pub(crate) fn renew(&self, lease_ids: &[u64]) -> Option<Renewed> {
        let now = self.now();
        let mut state = self.lock();
        let LeaderLeases { table, heard } = &mut *state;
        let table = table.as_mut()?;
        let mut unknown = Vec::new();
        let mut shortest = None;
        for lease_id in lease_ids {
            match table.renew(*lease_id, now) {
                Some(ttl) => {
                    heard.insert(*lease_id);
                    shortest = Some(shortest.map_or(ttl, |it: Duration| it.min(ttl)));
                }
                None => unknown.push(*lease_id),
            }
        }
        Some(Renewed { unknown, ttl: shortest.unwrap_or(DEFAULT_TTL), counted: true })
    }

    /// How long a lease lasts, if this server leads.
    pub(crate) fn ttl(&self, lease_id: u64) -> Option<Duration> {
        self.lock().table.as_ref()?.ttl(lease_id)
    }

    /// When the owner of a lease was last heard, if this server leads and has heard it.
    pub(crate) fn heard(&self, lease_id: u64) -> Option<Heard> {
        let now = self.now();
        self.lock().table.as_mut()?.heard(lease_id, now)
    }

    /// What is to be proposed now: expiries, and marks of silent owners.
    pub(crate) fn due(&self, board: &Board) -> Vec<Proposal> {
        let now = self.now();
        let mut state = self.lock();
        state.heard.clear();
        let Some(table) = &mut state.table else { return Vec::new() };
        board.read(|registry| table.due(registry, now))
    }

    /// Whether a lease was renewed since the last call of [`Leases::due`].
    pub(crate) fn was_heard(&self, lease_id: u64) -> bool {
        self.lock().heard.contains(&lease_id)
    }

    /// What holds expiry back, if this server leads and too many owners fell silent at once.
    pub(crate) fn frozen(&self) -> Option<Frozen> {
        self.lock().table.as_ref()?.frozen().cloned()
    }

    /// How many leases have a silent owner; zero unless this server leads.
    pub(crate) fn silent(&self) -> usize {
        self.lock().table.as_ref().map_or(0, LeaseTable::silent)
    }

    fn table(&self, registry: &Registry) -> LeaseTable {
        LeaseTable::new(registry, self.patience, self.now())
    }

    fn now(&self) -> Time {
        self.started.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, LeaderLeases> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases").finish_non_exhaustive()
    }
}
