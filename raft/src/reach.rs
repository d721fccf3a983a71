//! A leader that sends and is not reached: its heartbeats go out on connections that it made, so it
//! keeps its place, while nobody can forward a write to it.
//!
//! So every server looks whether it reaches the leaders that it follows, and says in its answers to
//! their appends if it does not. A leader that most of the other voters cannot reach hands over to
//! one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh::NodeId;

/// Looks in a row that must fail: one may be lost, and a busy machine answers late.
const PROBES_BEFORE_COMPLAINT: u32 = 4;
/// How long a complaint counts that is not repeated.
const FRESH: Duration = Duration::from_secs(3);

/// Which members complain that they cannot reach this server, as the leader of a group.
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

    /// Those who complain now.
    pub(crate) fn current(&self, now: Instant) -> BTreeSet<NodeId> {
        let last = self.lock();
        let fresh = last.iter().filter(|(_, at)| now.duration_since(**at) <= FRESH);
        fresh.map(|(member, _)| *member).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Instant>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a leader hands over to, if most of the other voters cannot reach it. `others` are those
/// voters, with the entries that each lacks.
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

/// How often in a row each leader was not reached.
#[derive(Debug, Default)]
pub(crate) struct FailedProbes(Mutex<BTreeMap<NodeId, u32>>);

impl FailedProbes {
    /// Whether a leader is to be told that it is not reached.
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
