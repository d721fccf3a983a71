//! The minimum of instances that a service keeps when owners are silent.
//!
//! Of the instances that recently took traffic, at least half stay, and at least one. An instance
//! that went down longer ago than the patience of the [table](super) is not counted.

use std::collections::{BTreeMap, BTreeSet};

use crate::registry::{Instance, Registry};

/// Counts the instances of each service while expiries are chosen.
#[derive(Debug)]
pub(super) struct Floor<'a> {
    registry: &'a Registry,
    /// Leases whose expiry was proposed before.
    ending: BTreeSet<u64>,
    /// By service: how many instances went down recently.
    down: BTreeMap<String, usize>,
    counts: BTreeMap<&'a str, Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    staying: usize,
    gone: usize,
}

impl<'a> Floor<'a> {
    /// `down` names the service of each instance that went down recently.
    pub(super) fn new<'b>(
        registry: &'a Registry,
        ending: BTreeSet<u64>,
        down: impl Iterator<Item = &'b str>,
    ) -> Self {
        let mut by_service: BTreeMap<String, usize> = BTreeMap::new();
        for service in down {
            *by_service.entry(service.to_owned()).or_default() += 1;
        }
        Self { registry, ending, down: by_service, counts: BTreeMap::new() }
    }

    /// Whether a lease may end because its owner is silent.
    pub(super) fn permits(&mut self, lease_id: u64) -> bool {
        routable(self.registry, lease_id).all(|instance| {
            let Count { staying, gone } = self.count(&instance.service);
            2 * staying.saturating_sub(1) >= staying + gone
        })
    }

    /// Counts a lease among those that end.
    pub(super) fn count_ending(&mut self, lease_id: u64) {
        for instance in routable(self.registry, lease_id) {
            let Count { staying, gone } = self.count(&instance.service);
            let count = Count { staying: staying.saturating_sub(1), gone: gone + 1 };
            self.counts.insert(&instance.service, count);
        }
    }

    fn count(&mut self, service: &'a str) -> Count {
        if let Some(count) = self.counts.get(service) {
            return *count;
        }
        let live = self.registry.instances_of(service).values().filter(|it| it.is_live());
        let live = live.filter(|it| it.is_routable());
        let (ending, staying): (Vec<&Instance>, Vec<&Instance>) =
            live.partition(|it| self.ending.contains(&it.grant.lease_id));
        let gone = ending.len() + self.down.get(service).copied().unwrap_or(0);
        let count = Count { staying: staying.len(), gone };
        self.counts.insert(service, count);
        count
    }
}

/// The instances of a lease that take traffic.
fn routable(registry: &Registry, lease_id: u64) -> impl Iterator<Item = &Instance> {
    registry.instances_of_lease(lease_id).filter(|it| it.is_live() && it.is_routable())
}
