//! How the table follows the registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Down, Empty, Latch, LeaseTable, Silence, Time, spread, stretched};
use crate::registry::{Grant, Outcome, RecordKey, Registry, Service};

impl LeaseTable {
    /// The table of a leader that was just elected.
    pub fn new(registry: &Registry, patience: Duration, now: Time) -> Self {
        let mut table = Self {
            patience,
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            silent: BTreeSet::new(),
            returned: BTreeSet::new(),
            ending: BTreeSet::new(),
            long_silent_at: now,
            down: BTreeMap::new(),
            empty: BTreeMap::new(),
            retired: BTreeMap::new(),
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
            // A lease that is marked as silent stays so until its owner is heard.
            if let Some(index) = registry.silent_since(grant.lease_id) {
                table.silence(grant.lease_id, index, now);
            }
        }
        let none = BTreeSet::new();
        for instance in registry.instances().filter(|it| !it.is_live()) {
            table.follow_instance(registry, &instance.service, &instance.id, &none, now);
        }
        for service in registry.services().chain(registry.retired_services()) {
            table.follow_service(registry, &service.name, now);
        }
        table
    }

    /// Updates the table after an applied command.
    pub fn follow(&mut self, registry: &Registry, outcome: &Outcome, now: Time) {
        let clock = self.clock(now);
        let mut left = BTreeSet::new();
        for lease_id in &outcome.leases {
            match registry.grant(*lease_id) {
                Some(grant) => {
                    let known = self.leases.get(lease_id).map(|it| it.granted_index);
                    if known != Some(grant.granted_index) {
                        let zone = registry.locality_of_lease(*lease_id);
                        let lasts = stretched(grant.ttl, self.leases.len());
                        self.put(grant, zone.cloned().unwrap_or_default(), clock, lasts);
                        self.record_heard(*lease_id, clock);
                    }
                    self.set_leaving(*lease_id, registry.is_leaving(*lease_id));
                    self.follow_silence(*lease_id, registry.silent_since(*lease_id), clock);
                }
                None => {
                    left.extend(
                        self.leases.get(lease_id).filter(|it| it.leaving).map(|_| *lease_id),
                    );
                    self.forget(*lease_id);
                }
            }
        }
        for key in &outcome.touched {
            match key {
                RecordKey::Instance { service, id } => {
                    self.follow_instance(registry, service, id, &left, clock);
                    self.follow_service(registry, service, clock);
                }
                RecordKey::Service(name) => self.follow_service(registry, name, clock),
                RecordKey::Server(_)
                | RecordKey::Node(_)
                | RecordKey::Group(_)
                | RecordKey::Resource(_) => {}
            }
        }
    }

    /// Updates the silence of a lease. `index` is the log index of the registry's mark, if there is
    /// one.
    fn follow_silence(&mut self, lease_id: u64, index: Option<u64>, clock: Time) {
        let Some(lease) = self.leases.get_mut(&lease_id) else { return };
        match (index, lease.silence) {
            (Some(_), Silence::No) if lease.late_at > clock => {
                // The owner was heard after the mark was proposed.
                lease.silence = Silence::Over;
                self.returned.insert(lease_id);
            }
            (Some(index), Silence::No) => self.silence(lease_id, index, clock),
            (None, Silence::Noted { index, .. }) => {
                self.silent.remove(&(index, lease_id));
                lease.silence = Silence::No;
                let lasts = stretched(lease.ttl, self.leases.len());
                self.move_deadline(lease_id, clock + lasts, clock + lasts / 2);
            }
            (None, Silence::Over) => {
                lease.silence = Silence::No;
                self.returned.remove(&lease_id);
            }
            (Some(_), Silence::Noted { .. } | Silence::Over) | (None, Silence::No) => {}
        }
    }

    fn silence(&mut self, lease_id: u64, index: u64, clock: Time) {
        let Some(lease) = self.leases.get_mut(&lease_id) else { return };
        self.deadlines.remove(&(lease.deadline, lease_id));
        lease.late_at = lease.late_at.min(clock);
        lease.deadline = lease.deadline.min(clock);
        lease.silence = Silence::Noted { index, since: lease.late_at };
        self.silent.insert((index, lease_id));
    }

    /// Its time begins when the last instance has gone, and not anew when it is configured.
    fn follow_empty(&mut self, registry: &Registry, name: &str, clock: Time) {
        let empty = registry.service(name).filter(|_| registry.instances_of(name).is_empty());
        let Some(hold) = empty.map(Service::forgotten_after) else {
            self.empty.remove(name);
            return;
        };
        let since = self.empty.get(name).map_or(clock, |it| it.since);
        if self.empty.get(name).is_none_or(|it| it.hold != hold) {
            let until = hold.map(|hold| since + hold);
            self.empty.insert(name.to_owned(), Empty { since, hold, until });
        }
    }

    /// `left` are leases that have just ended and whose owners had announced that they stop.
    fn follow_instance(
        &mut self,
        registry: &Registry,
        service: &str,
        id: &str,
        left: &BTreeSet<u64>,
        clock: Time,
    ) {
        let key = RecordKey::Instance { service: service.to_owned(), id: id.to_owned() };
        let down = registry.instance(service, id);
        match down.and_then(|it| Some((it.down_since?, it.grant.lease_id))) {
            Some((since_index, lease_id)) => {
                let known = self.down.get(&key).map(|it| it.since_index);
                if known != Some(since_index) {
                    let had_left = left.contains(&lease_id);
                    let down = Down { had_left, ..Down::hold(since_index, clock) };
                    self.down.insert(key, down);
                }
            }
            None => {
                self.down.remove(&key);
            }
        }
    }

    fn follow_service(&mut self, registry: &Registry, name: &str, clock: Time) {
        self.follow_empty(registry, name, clock);
        match registry.retired_service(name).and_then(|it| it.retired_since) {
            Some(since_index) => {
                let known = self.retired.get(name).map(|it| it.since_index);
                if known != Some(since_index) {
                    self.retired.insert(name.to_owned(), Down::hold(since_index, clock));
                }
            }
            None => {
                self.retired.remove(name);
            }
        }
    }
}
