//! The changes that are made, and when each reached whom.
//!
//! The names that change do so in turn: change `k` is the change number `k / M` of the name `k % M`,
//! of M names. A change that the command makes itself is known by the weight of an endpoint, its
//! *stamp*. So an arrival is counted for the change that it shows, also if the next one of the same
//! name is on its way already, and for those that it overtook. What another program changes has no
//! stamp; then whatever arrives counts for the latest change.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

#[cfg(test)]
mod tests;

/// Weights from 2 to 128 tell changes apart; an endpoint that never changed has the weight 1.
const STAMPS: u32 = 127;
const FIRST_STAMP: u32 = 2;

/// Stands for a change that has not begun.
const NOT_BEGUN: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Ledger {
    stamped: bool,
    slots: Vec<Slot>,
    names: Vec<Name>,
    /// How long each arrival took, in microseconds.
    arrivals: Mutex<Vec<u32>>,
}

/// One change. Times are microseconds since the start of the load.
#[derive(Debug)]
struct Slot {
    begun: AtomicU64,
    arrived: AtomicU32,
    last: AtomicU64,
}

/// One name that changes.
#[derive(Debug, Default)]
struct Name {
    /// How many of its changes have begun.
    begun: AtomicU32,
    /// How many clients want it and are there.
    watchers: AtomicU32,
}

/// What one client has seen: of each name, how many of its changes.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<u32, u32>);

/// What came of the changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Of each change that reached all who want it, how long the last one took.
    pub(super) to_last: Vec<Duration>,
    /// Of every arrival, how long it took.
    pub(super) arrivals: Vec<Duration>,
    /// Changes that did not reach everybody.
    pub(super) incomplete: u32,
}

impl Ledger {
    /// Room for `changes` of `names`. Whether the changes are `stamped`, see above.
    pub(super) fn new(changes: u32, names: u32, stamped: bool) -> Self {
        let slot = |_| Slot {
            begun: AtomicU64::new(NOT_BEGUN),
            arrived: AtomicU32::default(),
            last: AtomicU64::default(),
        };
        Self {
            stamped,
            slots: (0..changes).map(slot).collect(),
            names: (0..names).map(|_| Name::default()).collect(),
            arrivals: Mutex::default(),
        }
    }

    pub(super) fn changes(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn names(&self) -> u32 {
        u32::try_from(self.names.len()).unwrap_or(u32::MAX)
    }

    /// A client that wants these names is there.
    pub(super) fn watch(&self, names: &[u32]) {
        for name in names.iter().filter_map(|name| self.names.get(*name as usize)) {
            name.watchers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client that wanted these names is gone.
    pub(super) fn leave(&self, names: &[u32]) {
        for name in names.iter().filter_map(|name| self.names.get(*name as usize)) {
            name.watchers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Begins a change. The changes of one name begin in their order. Returns the stamp.
    pub(super) fn begin(&self, change: u32, now: u64) -> u32 {
        let (number, name) = (change / self.names(), change % self.names());
        self.slots[change as usize].begun.store(now, Ordering::Relaxed);
        // Whoever sees the count sees when the change began.
        self.names[name as usize].begun.store(number + 1, Ordering::Release);
        FIRST_STAMP + number % STAMPS
    }

    /// A client has got a name with a stamp. Returns whether a change has reached all with this.
    pub(super) fn arrive(&self, name: u32, stamp: u32, seen: &mut Seen, now: u64) -> bool {
        let Some(count) = self.shown(name, stamp) else { return false };
        let had = seen.0.entry(name).or_default();
        let mut is_last = false;
        let mut took = Vec::new();
        for number in *had..count {
            let change = number * self.names() + name;
            let Some(slot) = self.slots.get(change as usize) else { break };
            let begun = slot.begun.load(Ordering::Relaxed);
            took.push(u32::try_from(now.saturating_sub(begun)).unwrap_or(u32::MAX));
            slot.last.fetch_max(now, Ordering::Relaxed);
            slot.arrived.fetch_add(1, Ordering::Relaxed);
            is_last |= self.reached(change);
        }
        *had = count.max(*had);
        if !took.is_empty() {
            self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).append(&mut took);
        }
        is_last
    }

    /// How many changes of a name a client has that sees this stamp; none if it is not one of ours.
    fn shown(&self, name: u32, stamp: u32) -> Option<u32> {
        let begun = self.names.get(name as usize)?.begun.load(Ordering::Acquire);
        if !self.stamped {
            return Some(begun);
        }
        let residue = stamp.checked_sub(FIRST_STAMP)?;
        let latest = begun.checked_sub(1)?;
        let back = (latest % STAMPS + STAMPS).checked_sub(residue)? % STAMPS;
        Some(latest.checked_sub(back)? + 1)
    }

    /// Whether everybody who wants a change has it.
    pub(super) fn reached(&self, change: u32) -> bool {
        let name = &self.names[(change % self.names()) as usize];
        let arrived = self.slots[change as usize].arrived.load(Ordering::Relaxed);
        arrived >= name.watchers.load(Ordering::Relaxed)
    }

    /// Changes that were begun and have not reached everybody.
    pub(super) fn open(&self) -> u32 {
        let open =
            (0..self.changes()).filter(|change| self.is_begun(*change) && !self.reached(*change));
        u32::try_from(open.count()).unwrap_or(u32::MAX)
    }

    pub(super) fn outcome(&self) -> Outcome {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = (0..self.changes()).filter(|it| self.is_begun(*it) && self.reached(*it));
        let to_last = reached.filter_map(|change| {
            let slot = &self.slots[change as usize];
            // Nobody was there to get it.
            let nobody = slot.arrived.load(Ordering::Relaxed) == 0;
            let took = slot
                .last
                .load(Ordering::Relaxed)
                .saturating_sub(slot.begun.load(Ordering::Relaxed));
            (!nobody).then(|| Duration::from_micros(took))
        });
        Outcome {
            to_last: to_last.collect(),
            arrivals: arrivals.iter().map(|it| Duration::from_micros(u64::from(*it))).collect(),
            incomplete: self.open(),
        }
    }

    fn is_begun(&self, change: u32) -> bool {
        self.slots[change as usize].begun.load(Ordering::Relaxed) != NOT_BEGUN
    }
}
