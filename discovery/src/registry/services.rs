//! Services: created by their first instance, removed by an operator or after a long time without
//! instances.

use std::ops::RangeInclusive;

use proto::quorate::v1::{
    ConfigureService, ReapService, RegistryDone, RemoveService, registry_refusal::Reason,
};

use super::{
    Effects, Entry, Registry,
    key::RecordKey,
    record::{Instance, Service, ServiceOptions},
    refusal::Refusal,
};

/// Ports on a sidecar's loopback address, one per service. They lie below the range that Linux uses
/// for outgoing connections.
pub const SIDECAR_PORTS: RangeInclusive<u16> = 21_000..=32_767;

impl Registry {
    /// Replaces the options of a service.
    pub(super) fn configure_service(
        &mut self,
        command: ConfigureService,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let options = ServiceOptions::parse(command.options.unwrap_or_default())?;
        let Some(service) = self.services.get(&command.name) else {
            return Ok(RegistryDone::default());
        };
        let changed = service.options != options;
        if changed {
            self.put_service(Service { options, ..service.clone() }, effects);
        }
        Ok(RegistryDone { existed: true, changed, ..RegistryDone::default() })
    }

    /// Retires a service: its remaining instances are removed, but its port stays reserved for a
    /// while, since callers may still connect to it. An instance that registers brings the service
    /// back.
    pub(super) fn remove_service(
        &mut self,
        command: &RemoveService,
        entry: Entry,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let Some(service) = self.services.get(&command.name) else {
            return Ok(RegistryDone::default());
        };
        let service = service.clone();
        let instances: Vec<&Instance> = self.instances_of(&command.name).values().collect();
        if command.if_empty && !instances.is_empty() {
            return Ok(RegistryDone::default());
        }
        let live = instances.iter().filter(|it| it.is_live() && it.silent_since.is_none()).count();
        if live > 0 && !command.force {
            return Err(Refusal::new(
                Reason::Alive,
                format!("service {} has live instances: {live}", command.name),
            ));
        }
        let ids: Vec<String> = instances.iter().map(|it| it.id.clone()).collect();
        for id in ids {
            self.remove_instance(&command.name, &id, effects);
        }
        self.put_service(Service { retired_since: Some(entry.index), ..service }, effects);
        Ok(RegistryDone { existed: true, changed: true, ..RegistryDone::default() })
    }

    /// Deletes a retired service and frees its port, unless it has come back since.
    pub(super) fn reap_service(
        &mut self,
        command: &ReapService,
        effects: &mut Effects,
    ) -> RegistryDone {
        let since = self.retired.get(&command.name).and_then(|it| it.retired_since);
        if since != Some(command.retired_since_index) {
            return RegistryDone::default();
        }
        if let Some(service) = self.retired.remove(&command.name) {
            self.ports.remove(&service.sidecar_port);
        }
        effects.touched.insert(RecordKey::Service(command.name.clone()));
        RegistryDone { existed: true, changed: true, ..RegistryDone::default() }
    }

    pub(super) fn put_service(&mut self, service: Service, effects: &mut Effects) {
        let name = service.name.clone();
        effects.touched.insert(RecordKey::Service(name.clone()));
        self.ports.insert(service.sidecar_port);
        let (into, other) = match service.retired_since {
            None => (&mut self.services, &mut self.retired),
            Some(_) => (&mut self.retired, &mut self.services),
        };
        other.remove(&name);
        into.insert(name, service);
    }

    /// A port that no service has. Ports above the highest assigned one come first, so that a freed
    /// port is not reused soon.
    pub(super) fn free_port(&self) -> Option<u16> {
        let beyond = self.ports.last().map_or(*SIDECAR_PORTS.start(), |it| it.saturating_add(1));
        if SIDECAR_PORTS.contains(&beyond) {
            return Some(beyond);
        }
        SIDECAR_PORTS.into_iter().find(|it| !self.ports.contains(it))
    }

    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.get(name)
    }

    /// In the order of their names.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// Removed services whose port is still reserved.
    pub fn retired_services(&self) -> impl Iterator<Item = &Service> {
        self.retired.values()
    }

    pub fn retired_service(&self, name: &str) -> Option<&Service> {
        self.retired.get(name)
    }
}
