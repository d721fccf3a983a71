//! Instances and the services that they make.

use std::{collections::BTreeMap, ops::RangeInclusive};

use proto::quorate::v1::{
    DeregisterInstance, Health, ReapInstance, RegisterInstance, RegistryDone, SetInstanceHealth,
    registry_refusal::Reason,
};

use super::{
    Effects, Entry, Registry,
    key::RecordKey,
    record::{Grant, Instance, Service},
    refusal::{Refusal, malformed},
};

/// Ports on a sidecar's loopback, one per service: below those that Linux gives to outgoing
/// connections.
pub const SIDECAR_PORTS: RangeInclusive<u16> = 21_000..=32_767;

impl Registry {
    /// Registers an instance, or registers it again.
    ///
    /// The lease that holds is in the reply. It is the one in the command unless the instance is
    /// live under another: then its owner may have lost the reply, or have been started again, and
    /// is known by listening at the same address. Anybody else is refused.
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
        self.settle_service(&wanted, effects)?;
        self.put_instance(wanted, effects);
        Ok(RegistryDone { lease_id, changed, ..RegistryDone::default() })
    }

    /// The lease under which this registration already stands, word for word. It need not be
    /// proposed then: renewing the lease is enough.
    pub fn standing(&self, command: &RegisterInstance) -> Option<u64> {
        let wanted = self.resolve(command.clone(), 0).ok()?;
        let current = self.instance(&wanted.service, &wanted.id)?;
        same_record(current, &wanted).then_some(current.grant.lease_id)
    }

    /// Parses a registration and finds the lease it comes under.
    fn resolve(&self, command: RegisterInstance, index: u64) -> Result<Instance, Refusal> {
        let instance = command.instance.ok_or_else(|| malformed("no instance"))?;
        let live = self.instance(&instance.service, &instance.id).filter(|it| it.is_live());
        let health = live.map_or(Health::Healthy, |it| it.health);
        let grant = Grant::parse(command.lease_id, command.ttl_ms, index)?;
        let mut wanted = Instance::parse(instance, grant, health)?;
        if let Some(live) = live {
            if live.grant.lease_id != wanted.grant.lease_id && live.address != wanted.address {
                return Err(Refusal::new(
                    Reason::HeldByAnother,
                    format!(
                        "instance {} of {} is held by another process, at {}; choose another id, \
                         or wait until its lease has ended",
                        live.id, live.service, live.address
                    ),
                ));
            }
            wanted.grant.lease_id = live.grant.lease_id;
        }
        Ok(wanted)
    }

    /// Makes the instance's service exist and speak the instance's protocol.
    fn settle_service(
        &mut self,
        instance: &Instance,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let Some(service) = self.services.get(&instance.service) else {
            let Some(sidecar_port) = SIDECAR_PORTS.into_iter().find(|it| !self.ports.contains(it))
            else {
                return Err(Refusal::new(
                    Reason::Exhausted,
                    format!("no sidecar port is left for service {}", instance.service),
                ));
            };
            let name = instance.service.clone();
            self.put_service(Service { name, protocol: instance.protocol, sidecar_port }, effects);
            return Ok(());
        };
        if service.protocol == instance.protocol {
            return Ok(());
        }
        let others = self.instances_of(&instance.service);
        if others.values().any(|it| it.is_live() && it.id != instance.id) {
            return Err(malformed(format!(
                "service {} speaks {}: all instances of a service speak one protocol",
                service.name,
                service.protocol.as_str()
            )));
        }
        let settled = Service { protocol: instance.protocol, ..service.clone() };
        self.put_service(settled, effects);
        Ok(())
    }

    /// Removes an instance, unless the command names a lease and another one holds it: a process
    /// that ends takes along only what is its own.
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

    pub(super) fn set_instance_health(
        &mut self,
        command: SetInstanceHealth,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let health = command.health();
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
        let changed = instance.health != health;
        if changed {
            let instance = Instance { health, ..instance.clone() };
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
                down_since: Some(entry.index),
                ..instance.clone()
            };
            self.put_instance(instance, effects);
        }
    }

    /// Forgets an instance, if it has been down ever since it was found to be.
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

    pub(super) fn put_service(&mut self, service: Service, effects: &mut Effects) {
        effects.touched.insert(RecordKey::Service(service.name.clone()));
        self.ports.insert(service.sidecar_port);
        self.services.insert(service.name.clone(), service);
    }

    pub(super) fn put_instance(&mut self, instance: Instance, effects: &mut Effects) {
        let key = RecordKey::of_instance(&instance);
        let before = self.instance(&instance.service, &instance.id).and_then(held);
        let after = held(&instance);
        self.rehold(&key, before, after, effects);
        effects.touched.insert(key);
        let by_id = self.instances.entry(instance.service.clone()).or_default();
        by_id.insert(instance.id.clone(), instance);
    }

    fn remove_instance(&mut self, service: &str, id: &str, effects: &mut Effects) -> bool {
        let Some(by_id) = self.instances.get_mut(service) else { return false };
        let Some(instance) = by_id.remove(id) else { return false };
        if by_id.is_empty() {
            self.instances.remove(service);
        }
        let key = RecordKey::of_instance(&instance);
        self.rehold(&key, held(&instance), None, effects);
        effects.touched.insert(key);
        true
    }

    pub fn instance(&self, service: &str, id: &str) -> Option<&Instance> {
        self.instances.get(service)?.get(id)
    }

    /// Instances of a service by id, those that are down among them.
    pub fn instances_of(&self, service: &str) -> &BTreeMap<String, Instance> {
        static NONE: BTreeMap<String, Instance> = BTreeMap::new();
        self.instances.get(service).unwrap_or(&NONE)
    }

    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// In the order of their names.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// Every instance of every service.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().flat_map(|by_id| by_id.values())
    }
}

/// The lease that an instance lives by.
fn held(instance: &Instance) -> Option<u64> {
    instance.is_live().then_some(instance.grant.lease_id)
}

/// Whether two records are equal but for when they were registered.
fn same_record(current: &Instance, wanted: &Instance) -> bool {
    let mut current = current.clone();
    current.grant.granted_index = wanted.grant.granted_index;
    current == *wanted
}
