//! The brake on mass expiry.
//!
//! When many owners fall silent together, the likely cause is a fault between them and this server,
//! and taking them all out of service would make an outage of it. The latch counts who is missing:
//! leases whose owner is late, and those that ended within the last lease time. Beyond the limits
//! nothing ends until enough owners are heard again, or have deregistered, or have been silent for
//! so long that they are not what is happening now.
//!
//! Being late is told at half a lease's time. So when the first lease of a mass reaches its end, the
//! others, renewed up to a third of the time later, are counted already, and none is lost.

use std::collections::BTreeMap;

use super::Time;
use crate::registry::Locality;

/// More than this share of all leases, in percent, is a mass.
const OVERALL_PERCENT: usize = 15;
/// And more than this share of a zone's.
const ZONE_PERCENT: usize = 50;
/// Fewer than this are never a mass: one dead server out of three is just that.
const LEAST: usize = 3;

/// See the module.
#[derive(Debug, Default)]
pub struct Latch {
    frozen: Option<Frozen>,
    /// Leases that ended late: where, and until when they count as missing.
    ended: Vec<(Locality, Time)>,
}

/// Expiry is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    pub missing: usize,
    pub total: usize,
    /// The zone that lost too many, if not the whole did.
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

    /// A lease ended because its owner was missing; it counts until `until`.
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
