//! The leader's table of leases: when each one ends.
//!
//! The registry knows which leases exist. This table, in the memory of DISCO's leader only, knows
//! when they end. A renewal moves a deadline here and never enters the Raft log. When a deadline
//! passes, [`LeaseTable::due`] *proposes* an expiry; the caller confirms its leadership with a
//! quorum, then submits the command, and the registry ends the lease unless it was granted again
//! meanwhile.
//!
//! If this table errs, it must keep a lease too long, never end one too early:
//!
//! - A leader that was just elected has heard no owner yet. So every lease gets its full time
//!   again, and a different extra time, so that the leases do not all end at one moment.
//! - A process that was paused has heard no owner meanwhile. The table's own clock stops while the
//!   table is not called: a call that is late by more than [`TICK`] moves every deadline by the
//!   delay.
//! - If too many leases would end at once, the fault is more likely on this side of the network.
//!   Then the [`Latch`] is set, and holds them.
//! - Silence alone never removes more than half of a service at once, nor its last instance within
//!   an hour: see `floor`.
//!
//! A lease that runs out while the latch is set, or that the floor protects, does not end. The
//! registry marks its owner as *silent*: its instances are used only after all others, and another
//! owner may take over its registration. The next renewal ends the silence. If none comes within
//! the *patience*, the lease ends in the slow lane: longest silence first, a few leases per second,
//! and only while other owners are heard and the latch is not set.
//!
//! Owners that have announced that they stop are no sign of a fault. They are not counted, and
//! their leases end when they run out.
//!
//! The table is a pure machine: `now` is an argument.

mod floor;
mod follow;
mod latch;
mod proposal;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proto::quorate::v1::LeaseMark;

use self::floor::Floor;
pub use self::{
    latch::{Frozen, Latch},
    proposal::Proposal,
};
use crate::registry::{Grant, Locality, MAX_TTL, RecordKey, Registry};

/// Time on a monotonic clock, since a moment that is fixed while the process runs.
pub type Time = Duration;

/// Longest time between two calls of [`LeaseTable::due`].
pub const TICK: Duration = Duration::from_millis(500);

/// Default time that an owner may be silent before its lease ends in the slow lane.
pub const PATIENCE: Duration = Duration::from_secs(2 * 60);

/// How long an instance that is down stays listed, how long the last instance of a service stays
/// while it is silent, and how long a removed service keeps its port.
pub const HOLD: Duration = Duration::from_secs(60 * 60);

/// Pause between two rounds of the slow lane.
const LONG_SILENT_PAUSE: Duration = Duration::from_secs(1);

/// In one round of the slow lane, one in this many leases may end, but always at least one.
const LONG_SILENT_SHARE: usize = 200;

/// Marks in one command.
const MARKS: usize = 1_000;

/// Most renewals per second that the leader should receive. With more leases their time is
/// stretched.
const RENEWALS_PER_SEC: u64 = 1_000;

/// An owner renews when a third of the time has passed.
const RENEWALS_PER_TTL: u64 = 3;

/// A proposal that has had no effect after this time is made again.
const PROPOSAL_RETRY: Duration = Duration::from_secs(5);

/// The deadlines of all leases, in the memory of DISCO's leader.
#[derive(Debug)]
pub struct LeaseTable {
    patience: Duration,
    leases: BTreeMap<u64, Lease>,
    /// Deadlines of the leases whose owners are heard, in order.
    deadlines: BTreeSet<(Time, u64)>,
    /// Leases that the registry has marked as silent, by the log index of the mark.
    silent: BTreeSet<(u64, u64)>,
    /// Leases that were renewed while the registry still has them marked as silent.
    returned: BTreeSet<u64>,
    /// Leases whose expiry was proposed.
    ending: BTreeSet<u64>,
    /// When the next round of the slow lane may begin.
    long_silent_at: Time,
    /// Instances that are down, and until when they stay listed.
    down: BTreeMap<RecordKey, Down>,
    /// Services without instances.
    empty: BTreeMap<String, Empty>,
    /// Removed services, until their ports are free.
    retired: BTreeMap<String, Down>,
    latch: Latch,
    /// When the table was last called.
    seen: Time,
    /// The total time of pauses in which the table was not called. It is subtracted from the
    /// monotonic clock to give the clock that deadlines are on.
    paused: Duration,
}

#[derive(Debug)]
struct Lease {
    granted_index: u64,
    ttl: Duration,
    zone: Locality,
    /// When the lease ends, or when its expiry is proposed again.
    deadline: Time,
    /// When the owner counts as late: at half of the time. An owner that renews at a third is never
    /// late.
    late_at: Time,
    /// When this table last heard of its owner.
    heard_at: Option<Time>,
    /// Whether its owners have announced that they stop. Their silence is no sign of a fault.
    leaving: bool,
    silence: Silence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    No,
    /// The registry has marked the lease as silent.
    Noted {
        index: u64,
        since: Time,
    },
    /// The owner was heard again. The registry has not removed the mark yet.
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Down {
    /// Whether its owner had announced that it stops.
    had_left: bool,
    since_index: u64,
    since: Time,
    until: Time,
}

/// A service without instances.
#[derive(Clone, Copy, Debug)]
struct Empty {
    since: Time,
    /// How long it is kept, if not for ever. It may be configured meanwhile.
    hold: Option<Duration>,
    until: Option<Time>,
}

/// When the owner of a lease was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    pub ago: Duration,
    /// Time until the lease runs out.
    pub left: Duration,
}

impl LeaseTable {
    /// Renews a lease. Returns how long it lasts from now; none if there is no such lease, so that
    /// its owner must register again.
    pub fn renew(&mut self, lease_id: u64, now: Time) -> Option<Duration> {
        let clock = self.clock(now);
        let lease = self.leases.get_mut(&lease_id)?;
        if let Silence::Noted { index, .. } = lease.silence {
            lease.silence = Silence::Over;
            self.silent.remove(&(index, lease_id));
            self.returned.insert(lease_id);
        }
        let ttl = stretched(lease.ttl, self.leases.len());
        self.ending.remove(&lease_id);
        self.move_deadline(lease_id, clock + ttl, clock + ttl / 2);
        self.record_heard(lease_id, clock);
        Some(ttl)
    }

    /// How long a lease lasts from its grant.
    pub fn ttl(&self, lease_id: u64) -> Option<Duration> {
        self.leases.get(&lease_id).map(|lease| stretched(lease.ttl, self.leases.len()))
    }

    /// When the owner of a lease was last heard; none if this table never heard it.
    pub fn heard(&mut self, lease_id: u64, now: Time) -> Option<Heard> {
        let clock = self.clock(now);
        let lease = self.leases.get(&lease_id)?;
        let left = match lease.silence {
            Silence::Noted { .. } => Duration::ZERO,
            Silence::No | Silence::Over => lease.deadline.saturating_sub(clock),
        };
        Some(Heard { ago: clock.saturating_sub(lease.heard_at?), left })
    }

    /// The expiries, marks and removals that are due now.
    ///
    /// A lease stays in the table until the registry has ended it. Its expiry is proposed again if
    /// that takes long.
    pub fn due(&mut self, registry: &Registry, now: Time) -> Vec<Proposal> {
        let clock = self.clock(now);
        let mut proposals = self.expiries(registry, clock);
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
        let is_due = |it: &Empty| it.until.is_some_and(|until| until <= clock);
        for (name, it) in self.empty.iter_mut().filter(|(_, it)| is_due(it)) {
            it.until = Some(clock + PROPOSAL_RETRY);
            proposals.push(Proposal::RemoveService { name: name.clone() });
        }
        for (name, it) in self.retired.iter_mut().filter(|(_, it)| it.until <= clock) {
            it.until = clock + PROPOSAL_RETRY;
            let retired_since_index = it.since_index;
            proposals.push(Proposal::ReapService { name: name.clone(), retired_since_index });
        }
        proposals
    }

    /// The reason that expiry is held, if the latch is set.
    pub fn frozen(&self) -> Option<&Frozen> {
        self.latch.frozen()
    }

    /// Number of leases that the registry has marked as silent.
    pub fn silent(&self) -> usize {
        self.silent.len()
    }

    /// Leases in the table.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    fn expiries(&mut self, registry: &Registry, clock: Time) -> Vec<Proposal> {
        let overdue: Vec<u64> = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= clock)
            .map(|(_, lease_id)| *lease_id)
            .collect();
        let is_quiet = overdue.is_empty() && self.silent.is_empty() && self.returned.is_empty();
        if is_quiet && self.latch.frozen().is_none() {
            return Vec::new();
        }
        let held = self.check_latch(clock);
        let mut floor = self.floor(registry, clock);
        let mut proposals = Vec::with_capacity(overdue.len());
        let mut marks = Vec::new();
        for lease_id in overdue {
            let Some(lease) = self.leases.get_mut(&lease_id) else { continue };
            let (granted_index, late_at) = (lease.granted_index, lease.late_at);
            if lease.leaving || !held && floor.permits(lease_id) {
                floor.count_ending(lease_id);
                self.ending.insert(lease_id);
                proposals.push(Proposal::Expire { lease_id, granted_index });
            } else {
                lease.silence = Silence::No;
                self.returned.remove(&lease_id);
                marks.push(LeaseMark { lease_id, granted_index, silent: true });
            }
            self.move_deadline(lease_id, clock + PROPOSAL_RETRY, late_at);
        }
        marks.extend(self.heard_again_marks());
        proposals.extend(marks.chunks(MARKS).map(|it| Proposal::Mark(it.to_vec())));
        proposals.extend(self.expire_long_silent(&mut floor, clock));
        proposals
    }

    /// The marks of leases whose owners were heard again. They are proposed until the registry has
    /// them.
    fn heard_again_marks(&self) -> Vec<LeaseMark> {
        let leases = self.returned.iter().filter_map(|id| Some((*id, self.leases.get(id)?)));
        leases
            .map(|(lease_id, it)| LeaseMark {
                lease_id,
                granted_index: it.granted_index,
                silent: false,
            })
            .collect()
    }

    /// The slow lane: proposes to expire leases that have been silent for long, a few at a time.
    fn expire_long_silent(&mut self, floor: &mut Floor<'_>, clock: Time) -> Vec<Proposal> {
        let is_heard = |it: &Lease| !it.leaving && it.late_at > clock;
        let may_move = self.latch.frozen().is_none()
            && clock >= self.long_silent_at
            && self.leases.values().any(is_heard);
        let mut left = if may_move { (self.leases.len() / LONG_SILENT_SHARE).max(1) } else { 0 };
        let mut proposals = Vec::new();
        for (_, lease_id) in &self.silent {
            let Some(lease) = self.leases.get_mut(lease_id) else { continue };
            let Silence::Noted { since, .. } = lease.silence else { continue };
            if lease.deadline > clock {
                continue;
            }
            let is_long = |than: Duration| since + than <= clock;
            let is_due = left > 0
                && is_long(self.patience)
                && (floor.permits(*lease_id) || is_long(HOLD.max(self.patience)));
            if !lease.leaving && !is_due {
                continue;
            }
            if !lease.leaving {
                left -= 1;
                self.long_silent_at = clock + LONG_SILENT_PAUSE;
            }
            lease.deadline = clock + PROPOSAL_RETRY;
            floor.count_ending(*lease_id);
            self.ending.insert(*lease_id);
            let granted_index = lease.granted_index;
            proposals.push(Proposal::Expire { lease_id: *lease_id, granted_index });
        }
        proposals
    }

    /// Sets or lifts the latch. Leases that have been silent for long are not counted: they are no
    /// sign of a current fault.
    fn check_latch(&mut self, clock: Time) -> bool {
        let is_old = |it: &Lease| match it.silence {
            Silence::Noted { since, .. } => since + self.patience <= clock,
            Silence::No | Silence::Over => false,
        };
        let staying = self.leases.values().filter(|it| !it.leaving && !is_old(it));
        let zones = staying.map(|it| (&it.zone, it.late_at <= clock));
        self.latch.check(zones, clock).is_some()
    }

    fn floor<'a>(&self, registry: &'a Registry, clock: Time) -> Floor<'a> {
        let is_recent = |it: &Down| !it.had_left && it.since + self.patience > clock;
        let recent = self.down.iter().filter(|(_, it)| is_recent(it));
        let recent = recent.filter_map(|(key, _)| {
            if let RecordKey::Instance { service, .. } = key {
                Some(service.as_str())
            } else {
                None
            }
        });
        Floor::new(registry, self.ending.clone(), recent)
    }

    fn put(&mut self, grant: Grant, zone: Locality, from: Time, lasts: Duration) {
        let Grant { lease_id, ttl, granted_index } = grant;
        self.remove(lease_id);
        let (deadline, late_at) = (from + lasts, from + lasts / 2);
        let (leaving, silence) = (false, Silence::No);
        let lease =
            Lease { granted_index, ttl, zone, deadline, late_at, heard_at: None, leaving, silence };
        self.leases.insert(lease_id, lease);
        self.deadlines.insert((deadline, lease_id));
    }

    fn set_leaving(&mut self, lease_id: u64, leaving: bool) {
        if let Some(lease) = self.leases.get_mut(&lease_id) {
            lease.leaving = leaving;
        }
    }

    fn record_heard(&mut self, lease_id: u64, clock: Time) {
        if let Some(lease) = self.leases.get_mut(&lease_id) {
            lease.heard_at = Some(clock);
        }
    }

    fn forget(&mut self, lease_id: u64) {
        let Some(lease) = self.remove(lease_id) else { return };
        let clock = self.seen.saturating_sub(self.paused);
        let fell_silent = lease.late_at <= clock && !matches!(lease.silence, Silence::Noted { .. });
        if !lease.leaving && fell_silent {
            self.latch.ended(lease.zone, clock + lease.ttl);
        }
    }

    fn remove(&mut self, lease_id: u64) -> Option<Lease> {
        let lease = self.leases.remove(&lease_id)?;
        self.deadlines.remove(&(lease.deadline, lease_id));
        if let Silence::Noted { index, .. } = lease.silence {
            self.silent.remove(&(index, lease_id));
        }
        self.returned.remove(&lease_id);
        self.ending.remove(&lease_id);
        Some(lease)
    }

    fn move_deadline(&mut self, lease_id: u64, deadline: Time, late_at: Time) {
        if let Some(lease) = self.leases.get_mut(&lease_id) {
            self.deadlines.remove(&(lease.deadline, lease_id));
            self.deadlines.insert((deadline, lease_id));
            lease.deadline = deadline;
            lease.late_at = late_at;
        }
    }

    /// The table's own clock, without the pauses in which it was not called.
    fn clock(&mut self, now: Time) -> Time {
        let gap = now.saturating_sub(self.seen);
        if gap > 2 * TICK {
            self.paused += gap - TICK;
        }
        self.seen = self.seen.max(now);
        self.seen.saturating_sub(self.paused)
    }
}

impl Down {
    fn hold(since_index: u64, since: Time) -> Self {
        Self { had_left: false, since_index, since, until: since + HOLD }
    }
}

/// The time of a lease, stretched for the number of leases.
fn stretched(ttl: Duration, leases: usize) -> Duration {
    let leases = u64::try_from(leases).unwrap_or(u64::MAX);
    let least = leases.saturating_mul(RENEWALS_PER_TTL * 1_000) / RENEWALS_PER_SEC;
    ttl.max(Duration::from_millis(least)).min(MAX_TTL)
}

/// The extra time of a lease under a leader that was just elected: up to its own time, chosen by
/// its id, which is random.
fn spread(grant: Grant) -> Duration {
    const STEPS: u32 = 256;
    let step = u32::from(grant.lease_id.to_le_bytes()[0]);
    grant.ttl * step / STEPS
}
