//! Instances: how they are registered, and how they end.

use std::collections::BTreeMap;

use proto::quorate::v1::{
    DeregisterInstance, DeregisterSilent, Health, ReapInstance, RegisterInstance, RegistryDone,
    SetInstanceHealth, registry_refusal::Reason,
};

use super::{
    Effects, Entry, Registry,
    key::RecordKey,
    record::{Grant, Instance, Reported},
    refusal::{Refusal, malformed},
};

impl Registry {
    /// Registers an instance, or registers it again.
    ///
    /// The reply contains the lease that holds it. `claim` decides which lease that is.
    pub(super) fn register_instance(
        &mut self,
        command: RegisterInstance,
        entry: Entry,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let wanted = self.resolve(command, entry.index)?;
        let current = self.instance(&wanted.service, &wanted.id);
        let changed = current.is_none_or(|it| !same_record(it, &wanted));
        let lease_id = wanted.grant.lease_id;
        self.ensure_service(&wanted, effects)?;
        if changed && let Some(asked) = &wanted.options {
            self.heed(&wanted.service, asked, effects);
        }
        self.put_instance(wanted, effects);
        Ok(RegistryDone { lease_id, changed, ..RegistryDone::default() })
    }

    /// The lease of this registration, if it is already recorded exactly so. Then it need not be
    /// proposed: renewing the lease is enough.
    pub fn unchanged_lease(&self, command: &RegisterInstance) -> Option<u64> {
        let wanted = self.resolve(command.clone(), 0).ok()?;
        let current = self.instance(&wanted.service, &wanted.id)?;
        same_record(current, &wanted).then_some(current.grant.lease_id)
    }

    /// The lease that holds the id of a registration and refuses it, if there is one.
    pub fn holder(&self, command: &RegisterInstance) -> Option<u64> {
        let instance = command.instance.as_ref()?;
        let live = self.instance(&instance.service, &instance.id).filter(|it| it.is_live())?;
        let refused = self.resolve(command.clone(), 0).err()?;
        (refused.reason == Reason::HeldByAnother).then_some(live.grant.lease_id)
    }

    /// Parses a registration and determines its lease.
    fn resolve(&self, command: RegisterInstance, index: u64) -> Result<Instance, Refusal> {
        let instance = command.instance.ok_or_else(|| malformed("no instance"))?;
        let live = self.instance(&instance.service, &instance.id).filter(|it| it.is_live());
        let is_own = |it: &&Instance| it.grant.lease_id == command.lease_id || command.lease_drawn;
        // A successor does not inherit the health of its predecessor.
        let health = live.filter(is_own).map_or(Health::Healthy, |it| it.health);
        let grant = Grant::parse(command.lease_id, command.ttl_ms, index)?;
        let parsed = Instance::parse(instance, grant, health)?;
        let mut wanted = Instance { start: command.start, ..parsed };
        if let Some(live) = live {
            wanted.grant.lease_id = claim(live, &wanted, command.lease_drawn)?;
        }
        Ok(wanted)
    }

    /// Removes an instance. If the command names a lease, the instance must belong to it, so that a
    /// process that ends removes only its own registration.
    pub(super) fn deregister_instance(
        &mut self,
        command: DeregisterInstance,
        effects: &mut Effects,
    ) -> RegistryDone {
        let current = self.instance(&command.service, &command.id);
        let is_holder = |it: &Instance| it.grant.lease_id == command.lease_id;
        if command.lease_id != 0 && !current.is_some_and(is_holder) {
            return RegistryDone::default();
        }
        let existed = self.remove_instance(&command.service, &command.id, effects);
        RegistryDone { existed, changed: existed, ..RegistryDone::default() }
    }

    /// Removes the instances that are silent or down; of one service or zone only, if named.
    pub(super) fn deregister_silent(
        &mut self,
        command: &DeregisterSilent,
        effects: &mut Effects,
    ) -> RegistryDone {
        let is_meant = |it: &&Instance| {
            (command.service.is_empty() || it.service == command.service)
                && (command.zone.is_empty() || it.locality.zone == command.zone)
                && (it.silent_since.is_some() || !it.is_live())
        };
        let gone: Vec<_> = self
            .instances()
            .filter(is_meant)
            .map(|it| (it.service.clone(), it.id.clone()))
            .collect();
        for (service, id) in &gone {
            self.remove_instance(service, id, effects);
        }
        let removed = u32::try_from(gone.len()).unwrap_or(u32::MAX);
        RegistryDone { removed, changed: removed > 0, ..RegistryDone::default() }
    }

    pub(super) fn set_instance_health(
        &mut self,
        command: SetInstanceHealth,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let health = command.health();
        let reason = Reported::parse(command.reason, command.since_unix_ms)?;
        if matches!(health, Health::Unspecified | Health::Down) {
            return Err(malformed(
                "an owner says healthy, unhealthy, draining or unknown; to end, deregister",
            ));
        }
        let Some(instance) = self.instance(&command.service, &command.id) else {
            return Err(Refusal::new(
                Reason::InstanceUnknown,
                format!("service {:?} has no instance {:?}", command.service, command.id),
            ));
        };
        let lease_id = command.lease_id;
        if !instance.is_live() || instance.grant.lease_id != lease_id {
            return Err(Refusal::new(
                Reason::LeaseUnknown,
                format!("instance {} is not held by this lease; register it again", instance.id),
            ));
        }
        let changed = instance.health != health || instance.reason != reason;
        if changed {
            let instance = Instance { health, reason, ..instance.clone() };
            self.put_instance(instance, effects);
        }
        Ok(RegistryDone { lease_id, changed, existed: true, ..RegistryDone::default() })
    }

    pub(super) fn down_instance(
        &mut self,
        service: &str,
        id: &str,
        entry: Entry,
        effects: &mut Effects,
    ) {
        if let Some(instance) = self.instance(service, id) {
            let instance = Instance {
                health: Health::Down,
                silent_since: None,
                down_since: Some(entry.index),
                ..instance.clone()
            };
            self.put_instance(instance, effects);
        }
    }

    /// Removes an instance that is down, if it has been down since the proposal.
    pub(super) fn reap_instance(
        &mut self,
        command: ReapInstance,
        effects: &mut Effects,
    ) -> RegistryDone {
        let down_since = self.instance(&command.service, &command.id).and_then(|it| it.down_since);
        if down_since != Some(command.down_since_index) {
            return RegistryDone::default();
        }
        let existed = self.remove_instance(&command.service, &command.id, effects);
        RegistryDone { existed, changed: existed, ..RegistryDone::default() }
    }

    /// Marks an instance's owner as silent, or removes the mark.
    pub(super) fn mark_instance(
        &mut self,
        service: &str,
        id: &str,
        silent_since: Option<u64>,
        effects: &mut Effects,
    ) {
        if let Some(instance) = self.instance(service, id)
            && instance.silent_since.is_some() != silent_since.is_some()
        {
            let instance = Instance { silent_since, ..instance.clone() };
            self.put_instance(instance, effects);
        }
    }

    pub(super) fn put_instance(&mut self, instance: Instance, effects: &mut Effects) {
        let key = RecordKey::of_instance(&instance);
        let before = self.instance(&instance.service, &instance.id).and_then(held);
        let after = held(&instance);
        self.update_holders(&key, before, after, effects);
        effects.touched.insert(key);
        let by_id = self.instances.entry(instance.service.clone()).or_default();
        by_id.insert(instance.id.clone(), instance);
    }

    pub(super) fn remove_instance(
        &mut self,
        service: &str,
        id: &str,
        effects: &mut Effects,
    ) -> bool {
        let Some(by_id) = self.instances.get_mut(service) else { return false };
        let Some(instance) = by_id.remove(id) else { return false };
        if by_id.is_empty() {
            self.instances.remove(service);
        }
        let key = RecordKey::of_instance(&instance);
        self.update_holders(&key, held(&instance), None, effects);
        effects.touched.insert(key);
        true
    }

    pub fn instance(&self, service: &str, id: &str) -> Option<&Instance> {
        self.instances.get(service)?.get(id)
    }

    /// The instances of a service by id, including those that are down.
    pub fn instances_of(&self, service: &str) -> &BTreeMap<String, Instance> {
        static NONE: BTreeMap<String, Instance> = BTreeMap::new();
        self.instances.get(service).unwrap_or(&NONE)
    }

    /// Every instance of every service.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().flat_map(|by_id| by_id.values())
    }
}

/// The lease under which `wanted` replaces `live`.
///
/// An owner is identified by its lease, or by the address where it listens. At the same address the
/// process that started later takes over, under its own lease, so that its predecessor, which may
/// still be deregistering, cannot remove the instance. An owner at another address is refused,
/// unless the current one is silent: a fleet that died and comes back at other addresses must be
/// able to register.
fn claim(live: &Instance, wanted: &Instance, lease_drawn: bool) -> Result<u64, Refusal> {
    let (held, own) = (live.grant.lease_id, wanted.grant.lease_id);
    if held == own || live.silent_since.is_some() {
        return Ok(own);
    }
    let refuse = |message| Err(Refusal::new(Reason::HeldByAnother, message));
    if live.address != wanted.address {
        return refuse(format!(
            "instance {} of {} is held by another process, at {}; choose another id, or wait \
             until its lease has ended",
            live.id, live.service, live.address
        ));
    }
    if lease_drawn {
        return Ok(held);
    }
    if wanted.start < live.start {
        return refuse(format!(
            "instance {} of {} is held by another process, which was started later, also at {}",
            live.id, live.service, live.address
        ));
    }
    Ok(own)
}

/// The lease of an instance; none if it is down.
fn held(instance: &Instance) -> Option<u64> {
    instance.is_live().then_some(instance.grant.lease_id)
}

/// Whether two records are equal except for the index of their registration.
fn same_record(current: &Instance, wanted: &Instance) -> bool {
    let mut current = current.clone();
    current.grant.granted_index = wanted.grant.granted_index;
    current == *wanted
}
