//! The latch that holds expiry while too many owners are silent.
//!
//! If many owners fall silent together, the likely cause is a fault between them and this server.
//! Ending all their leases would turn the fault into an outage. The latch counts the missing
//! leases: those whose owner is late, and those that ended within the last lease time. Beyond the
//! limits no lease ends until enough owners are heard again, have deregistered, or have been silent
//! for longer than the patience.
//!
//! An owner counts as late at half of its lease's time. So when the first lease of a mass runs out,
//! the others, which were renewed up to a third of the time later, are already counted as late, and
//! none of them ends.

use std::collections::BTreeMap;

use super::Time;
use crate::registry::Locality;

/// Expiry is held if more than this share of all leases, in percent, is missing,
const OVERALL_PERCENT: usize = 15;
/// or more than this share of a zone's leases,
const ZONE_PERCENT: usize = 50;
/// but never if fewer than this are missing: one of three servers may simply be dead.
const LEAST: usize = 3;

/// Whether expiry is held, decided at each check.
#[derive(Debug, Default)]
pub struct Latch {
    frozen: Option<Frozen>,
    /// Leases that ended because their owner was late: their zone, and until when they count as
    /// missing.
    ended: Vec<(Locality, Time)>,
}

/// Why expiry is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    pub missing: usize,
    pub total: usize,
    /// The zone with too many missing leases; none if there are too many in all.
    pub zone: Option<Locality>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    missing: usize,
    total: usize,
}

impl Count {
    fn add(&mut self, missing: bool) {
        self.missing += usize::from(missing);
        self.total += 1;
    }

    fn exceeds(self, percent: usize) -> bool {
        self.missing >= LEAST && self.missing * 100 > self.total * percent
    }
}

impl Latch {
    pub fn frozen(&self) -> Option<&Frozen> {
        self.frozen.as_ref()
    }

    /// Counts a lease that ended because its owner was late as missing until `until`.
    pub(super) fn ended(&mut self, zone: Locality, until: Time) {
        self.ended.push((zone, until));
    }

    /// Sets or lifts the latch for these leases, each with whether its owner is late.
    pub(super) fn check<'a>(
        &mut self,
        leases: impl Iterator<Item = (&'a Locality, bool)>,
        clock: Time,
    ) -> Option<&Frozen> {
        self.ended.retain(|(_, until)| *until > clock);
        let mut overall = Count::default();
        let mut zones: BTreeMap<&Locality, Count> = BTreeMap::new();
        for (zone, missing) in leases {
            overall.add(missing);
            zones.entry(zone).or_default().add(missing);
        }
        for (zone, _) in &self.ended {
            overall.add(true);
            zones.entry(zone).or_default().add(true);
        }
        let zone = zones.iter().find(|(_, count)| count.exceeds(ZONE_PERCENT));
        self.frozen = if overall.exceeds(OVERALL_PERCENT) {
            Some(Frozen { missing: overall.missing, total: overall.total, zone: None })
        } else {
            zone.map(|(zone, count)| Frozen {
                missing: count.missing,
                total: count.total,
                zone: Some((*zone).clone()),
            })
        };
        self.frozen.as_ref()
    }
}
