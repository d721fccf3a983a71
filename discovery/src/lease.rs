//! Who still renews: the leader's count of the seconds.
//!
//! The registry knows which leases hold; this table, in the memory of DISCO's leader only, knows
//! until when. Renewals move a deadline here and never enter the Raft log. When a deadline passes,
//! [`LeaseTable::due`] *proposes* an expiry; the caller confirms its leadership with a quorum, then
//! submits the command, and the registry ends the lease if nobody registered it again meanwhile.
//!
//! Errors of this table must be on the side of keeping:
//!
//! - A leader that was just elected has heard of nobody, so every lease gets its full time again,
//!   and more, spread out, so that not all end at one moment.
//! - A process that was paused has heard of nobody either. The table's own clock stands still while
//!   it is not called: a call that comes late by more than [`TICK`] moves every deadline by as much.
//! - When too many would end at once, the fault is more likely on this side of the network: the
//!   [`Latch`] holds all expiries, and tells, until they are back. Owners who have said that they
//!   stop do not count, and their leases end in their time.
//!
//! The table is a pure machine: `now` is an argument.

mod latch;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proto::quorate::v1::{ExpireLease, ReapInstance, RegistryCommand, registry_command::Command};

pub use self::latch::{Frozen, Latch};
use crate::registry::{Grant, Locality, MAX_TTL, Outcome, RecordKey, Registry};

/// Time since a moment that is fixed while the process runs, from a monotonic clock.
pub type Time = Duration;

/// How often [`LeaseTable::due`] is called at the least.
pub const TICK: Duration = Duration::from_millis(500);

/// How long an instance that is down stays listed before it is forgotten.
pub const HOLD: Duration = Duration::from_secs(60 * 60);

/// Renewals per second that the leader wants to see at the most. With more leases than that allows,
/// their time is stretched.
const RENEWALS_PER_SEC: u64 = 1_000;

/// An owner renews at a third of the time.
const RENEWALS_PER_TTL: u64 = 3;

/// A proposal that has not shown effect after this time is made again.
const PROPOSAL_RETRY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct LeaseTable {
    leases: BTreeMap<u64, Lease>,
    /// Deadlines of all leases, in order.
    deadlines: BTreeSet<(Time, u64)>,
    /// Instances that are down, until they are to be forgotten.
    down: BTreeMap<RecordKey, Down>,
    latch: Latch,
    /// When the table was last called.
    seen: Time,
    /// How long the table was not called when it should have been. Every deadline is on the clock
    /// that this is subtracted from.
    paused: Duration,
}

#[derive(Debug)]
struct Lease {
    granted_index: u64,
    ttl: Duration,
    zone: Locality,
    /// When the lease ends, or is next proposed to.
    deadline: Time,
    /// When half the time has passed without a renewal, which an owner who keeps to the third
    /// does not let happen.
    late_at: Time,
    /// Whether its owners have said that they stop. Their silence is no sign of a fault.
    leaving: bool,
}

#[derive(Debug)]
struct Down {
    since_index: u64,
    until: Time,
}

/// What the leader should submit, once it has confirmed that it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    Expire { lease_id: u64, granted_index: u64 },
    Reap { service: String, id: String, down_since_index: u64 },
}

impl Proposal {
    /// The command to submit in the term in which leadership was confirmed *after* this was
    /// proposed.
    pub fn into_command(self, term: u64) -> RegistryCommand {
        let command = match self {
            Self::Expire { lease_id, granted_index } => {
                Command::ExpireLease(ExpireLease { lease_id, granted_index, term })
            }
            Self::Reap { service, id, down_since_index } => {
                Command::ReapInstance(ReapInstance { service, id, down_since_index })
            }
        };
        RegistryCommand { command: Some(command) }
    }
}

impl LeaseTable {
    /// The table of a leader that was just elected.
    pub fn new(registry: &Registry, now: Time) -> Self {
        let mut table = Self {
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            down: BTreeMap::new(),
            latch: Latch::default(),
            seen: now,
            paused: Duration::ZERO,
        };
        let grants: Vec<Grant> = registry.grants().collect();
        for grant in &grants {
            let zone = registry.locality_of_lease(grant.lease_id).cloned().unwrap_or_default();
            let lasts = stretched(grant.ttl, grants.len());
            table.put(*grant, zone, now + spread(*grant), lasts);
            table.set_leaving(grant.lease_id, registry.is_leaving(grant.lease_id));
        }
        for instance in registry.instances().filter(|it| !it.is_live()) {
            table.follow_instance(registry, &instance.service, &instance.id, now);
        }
        table
    }

    /// Takes note of an applied command.
    pub fn follow(&mut self, registry: &Registry, outcome: &Outcome, now: Time) {
        let clock = self.clock(now);
        for lease_id in &outcome.leases {
            match registry.grant(*lease_id) {
                Some(grant) => {
                    let known = self.leases.get(lease_id).map(|it| it.granted_index);
                    if known != Some(grant.granted_index) {
                        let zone = registry.locality_of_lease(*lease_id);
                        let lasts = stretched(grant.ttl, self.leases.len());
                        self.put(grant, zone.cloned().unwrap_or_default(), clock, lasts);
                    }
                    self.set_leaving(*lease_id, registry.is_leaving(*lease_id));
                }
                None => self.forget(*lease_id),
            }
        }
        for key in &outcome.touched {
            if let RecordKey::Instance { service, id } = key {
                self.follow_instance(registry, service, id, clock);
            }
        }
    }

    /// Renews a lease. Returns how long it lasts from now, or nothing if there is no such lease and
    /// its owner must register again.
    pub fn renew(&mut self, lease_id: u64, now: Time) -> Option<Duration> {
        let clock = self.clock(now);
        let lease = self.leases.get(&lease_id)?;
        let ttl = stretched(lease.ttl, self.leases.len());
        self.move_deadline(lease_id, clock + ttl, clock + ttl / 2);
        Some(ttl)
    }

    /// How long a lease lasts that was just granted.
    pub fn ttl(&self, lease_id: u64) -> Option<Duration> {
        self.leases.get(&lease_id).map(|lease| stretched(lease.ttl, self.leases.len()))
    }

    /// What should end by now.
    ///
    /// While the latch holds, only what its owners have announced. A lease stays in the table until the registry has ended it, and
    /// is proposed again if that takes long.
    pub fn due(&mut self, now: Time) -> Vec<Proposal> {
        let clock = self.clock(now);
        let mut proposals = self.expiries(clock);
        for (key, down) in &mut self.down {
            if down.until <= clock
                && let RecordKey::Instance { service, id } = key
            {
                down.until = clock + PROPOSAL_RETRY;
                proposals.push(Proposal::Reap {
                    service: service.clone(),
                    id: id.clone(),
                    down_since_index: down.since_index,
                });
            }
        }
        proposals
    }

    /// When [`LeaseTable::due`] must be called next. Nothing to wait for while it is empty.
    pub fn next_deadline(&self) -> Option<Time> {
        let tick = self.seen + TICK;
        let expiry = self.deadlines.first().map(|(deadline, _)| *deadline + self.paused);
        // What the latch holds stays overdue, and is not what to wake up for.
        let expiry = if self.frozen().is_some() { expiry.map(|_| tick) } else { expiry };
        let reap = self.down.values().map(|it| it.until + self.paused).min();
        expiry.into_iter().chain(reap).min().map(|next| next.min(tick))
    }

    /// Whether expiry is held, and why.
    pub fn frozen(&self) -> Option<&Frozen> {
        self.latch.frozen()
    }

    /// Leases in the table.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    fn expiries(&mut self, clock: Time) -> Vec<Proposal> {
        let overdue: Vec<u64> = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= clock)
            .map(|(_, lease_id)| *lease_id)
            .collect();
        if overdue.is_empty() && self.latch.frozen().is_none() {
            return Vec::new();
        }
        let staying = self.leases.values().filter(|it| !it.leaving);
        let zones = staying.map(|it| (&it.zone, it.late_at <= clock));
        let held = self.latch.check(zones, clock).is_some();
        let mut proposals = Vec::with_capacity(overdue.len());
        for lease_id in overdue {
            let Some(lease) = self.leases.get(&lease_id) else { continue };
            if held && !lease.leaving {
                continue;
            }
            let (granted_index, late_at) = (lease.granted_index, lease.late_at);
            self.move_deadline(lease_id, clock + PROPOSAL_RETRY, late_at);
            proposals.push(Proposal::Expire { lease_id, granted_index });
        }
        proposals
    }

    fn put(&mut self, grant: Grant, zone: Locality, from: Time, lasts: Duration) {
        let Grant { lease_id, ttl, granted_index } = grant;
        if let Some(lease) = self.leases.remove(&lease_id) {
            self.deadlines.remove(&(lease.deadline, lease_id));
        }
        let (deadline, late_at) = (from + lasts, from + lasts / 2);
        let lease = Lease { granted_index, ttl, zone, deadline, late_at, leaving: false };
        self.leases.insert(lease_id, lease);
        self.deadlines.insert((deadline, lease_id));
    }

    fn set_leaving(&mut self, lease_id: u64, leaving: bool) {
        if let Some(lease) = self.leases.get_mut(&lease_id) {
            lease.leaving = leaving;
        }
    }

    fn forget(&mut self, lease_id: u64) {
        if let Some(lease) = self.leases.remove(&lease_id) {
            self.deadlines.remove(&(lease.deadline, lease_id));
            if !lease.leaving && lease.late_at <= self.seen.saturating_sub(self.paused) {
                self.latch.ended(lease.zone, self.seen.saturating_sub(self.paused) + lease.ttl);
            }
        }
    }

    fn follow_instance(&mut self, registry: &Registry, service: &str, id: &str, clock: Time) {
        let key = RecordKey::Instance { service: service.to_owned(), id: id.to_owned() };
        match registry.instance(service, id).and_then(|it| it.down_since) {
            Some(since_index) => {
                let known = self.down.get(&key).map(|it| it.since_index);
                if known != Some(since_index) {
                    self.down.insert(key, Down { since_index, until: clock + HOLD });
                }
            }
            None => {
                self.down.remove(&key);
            }
        }
    }

    fn move_deadline(&mut self, lease_id: u64, deadline: Time, late_at: Time) {
        if let Some(lease) = self.leases.get_mut(&lease_id) {
            self.deadlines.remove(&(lease.deadline, lease_id));
            self.deadlines.insert((deadline, lease_id));
            lease.deadline = deadline;
            lease.late_at = late_at;
        }
    }

    /// The table's own time, which stood still while the table was not called.
    fn clock(&mut self, now: Time) -> Time {
        let gap = now.saturating_sub(self.seen);
        if gap > 2 * TICK {
            self.paused += gap - TICK;
        }
        self.seen = self.seen.max(now);
        self.seen.saturating_sub(self.paused)
    }
}

/// A lease's time when there are so many leases.
fn stretched(ttl: Duration, leases: usize) -> Duration {
    let leases = u64::try_from(leases).unwrap_or(u64::MAX);
    let least = leases.saturating_mul(RENEWALS_PER_TTL * 1_000) / RENEWALS_PER_SEC;
    ttl.max(Duration::from_millis(least)).min(MAX_TTL)
}

/// How much longer than its time a lease lasts under a leader that was just elected: up to twice as
/// long, by its id, which is random.
fn spread(grant: Grant) -> Duration {
    const STEPS: u32 = 256;
    let step = u32::from(grant.lease_id.to_le_bytes()[0]);
    grant.ttl * step / STEPS
}
