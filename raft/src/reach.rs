//! Replaces a leader that can send but cannot be reached. Its heartbeats use connections that it
//! opened itself, so it stays leader, although no server can forward a write to it.
//!
//! So every server probes the leaders that it follows, and reports in its answers to their appends
//! if it cannot reach them. A leader that most of the other voters cannot reach transfers its
//! leadership to one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh::NodeId;

/// Probes in a row that must fail before a leader is told. A single one may be lost, and a busy
/// machine answers late.
const PROBES_BEFORE_COMPLAINT: u32 = 4;
/// How long a complaint counts unless it is repeated.
const FRESH: Duration = Duration::from_secs(3);

/// The members that report that they cannot reach this server, the leader of their group.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    last: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Complaints {
    pub(crate) fn note(&self, member: NodeId, complains: bool, now: Instant) {
        let mut last = self.lock();
        if complains {
            last.insert(member, now);
        } else {
            last.remove(&member);
        }
    }

    /// The members whose complaint still counts.
    pub(crate) fn current(&self, now: Instant) -> BTreeSet<NodeId> {
        let last = self.lock();
        let fresh = last.iter().filter(|(_, at)| now.duration_since(**at) <= FRESH);
        fresh.map(|(member, _)| *member).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The voter that takes over from a leader that most of the other voters cannot reach. `others` are
/// the other voters, each with its lag.
pub(crate) fn successor(
    others: &BTreeMap<NodeId, u64>,
    complaining: &BTreeSet<NodeId>,
) -> Option<NodeId> {
    let complaining = others.iter().filter(|(member, _)| complaining.contains(member));
    if complaining.clone().count() * 2 <= others.len() {
        return None;
    }
    complaining.min_by_key(|(_, lag)| **lag).map(|(member, _)| *member)
}

/// By leader: how many probes failed in a row.
#[derive(Debug, Default)]
pub(crate) struct FailedProbes(Mutex<BTreeMap<NodeId, u32>>);

impl FailedProbes {
    /// Whether enough probes have failed to tell the leader.
    pub(crate) fn is_unreachable(&self, leader: NodeId) -> bool {
        self.lock().get(&leader).is_some_and(|count| *count >= PROBES_BEFORE_COMPLAINT)
    }

    pub(crate) fn note(&self, reached: &BTreeMap<NodeId, bool>) {
        let mut counts = self.lock();
        counts.retain(|leader, _| reached.get(leader) == Some(&false));
        for (leader, _) in reached.iter().filter(|(_, reached)| !**reached) {
            let count = counts.entry(*leader).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
