//! Services: created by their first instance or by an operator, removed by an operator or after a
//! long time without instances.
//!
//! Options come from the operator, or else from the instance that registered last. An operator's
//! word also keeps the service: it is not forgotten for want of instances.

use std::ops::RangeInclusive;

use proto::quorate::v1::{
    ConfigureService, ReapService, RegistryDone, RemoveService, registry_refusal::Reason,
};

use super::{
    Effects, Entry, Registry,
    key::RecordKey,
    name::check_name,
    record::{Instance, Protocol, Service},
    refusal::{Refusal, malformed},
};
use crate::options::ServiceOptions;

/// Ports on a sidecar's loopback address, one per service. They lie below the range that Linux uses
/// for outgoing connections.
pub const SIDECAR_PORTS: RangeInclusive<u16> = 21_000..=32_767;

impl Registry {
    /// Creates the instance's service if it is missing, and checks that it has the instance's
    /// protocol.
    pub(super) fn ensure_service(
        &mut self,
        instance: &Instance,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        match self.services.get(&instance.service) {
            Some(service) => {
                let service = service.clone();
                self.settle_protocol(service, instance.protocol, Some(&instance.id), effects)
            }
            None => self.create_service(&instance.service, instance.protocol, effects),
        }
    }

    /// Creates a service. One that was removed and comes back has kept its port and its options.
    fn create_service(
        &mut self,
        name: &str,
        protocol: Protocol,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let kept = self.retired.get(name);
        let Some(sidecar_port) = kept.map(|it| it.sidecar_port).or_else(|| self.free_port()) else {
            return Err(Refusal::new(
                Reason::Exhausted,
                format!(
                    "no sidecar port is left for service {name}; `quorate service remove` gives \
                     back those of services that are not needed"
                ),
            ));
        };
        let service = Service {
            name: name.to_owned(),
            protocol,
            sidecar_port,
            retired_since: None,
            options: kept.map(|it| it.options.clone()).unwrap_or_default(),
            configured: kept.is_some_and(|it| it.configured),
        };
        self.put_service(service, effects);
        Ok(())
    }

    /// Gives a service a protocol, unless a live instance other than `except` speaks another one.
    fn settle_protocol(
        &mut self,
        service: Service,
        protocol: Protocol,
        except: Option<&str>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if service.protocol == protocol {
            return Ok(());
        }
        let others = self.instances_of(&service.name);
        if others.values().any(|it| it.is_live() && Some(it.id.as_str()) != except) {
            return Err(malformed(format!(
                "service {} speaks {}: all instances of a service speak one protocol",
                service.name,
                service.protocol.as_str()
            )));
        }
        self.put_service(Service { protocol, ..service }, effects);
        Ok(())
    }

    /// Takes over what an instance asks of its service, unless somebody has configured that.
    pub(super) fn heed(&mut self, name: &str, asked: &ServiceOptions, effects: &mut Effects) {
        if let Some(service) = self.services.get(name)
            && !service.configured
            && service.options != *asked
        {
            let service = Service { options: asked.clone(), ..service.clone() };
            self.put_service(service, effects);
        }
    }

    /// Replaces the options of a service, which is created first if the command says so.
    pub(super) fn configure_service(
        &mut self,
        command: ConfigureService,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let ConfigureService { name, options, configured, create } = command;
        let options = match options {
            Some(options) => ServiceOptions::parse(options)?,
            None => self.asked_of(&name),
        };
        let known = self.services.get(&name).cloned();
        if !create.is_empty() {
            let protocol = Protocol::parse(&create)?;
            check_name("service", &name)?;
            match known {
                Some(service) => self.settle_protocol(service, protocol, None, effects)?,
                None => self.create_service(&name, protocol, effects)?,
            }
        }
        let Some(service) = self.services.get(&name) else {
            return Ok(RegistryDone::default());
        };
        if service.options != options || service.configured != configured {
            let service = Service { options, configured, ..service.clone() };
            self.put_service(service, effects);
        }
        let changed = !effects.touched.is_empty();
        Ok(RegistryDone { existed: true, changed, ..RegistryDone::default() })
    }

    /// What the instances of a service ask of it: the one is heard that registered last.
    fn asked_of(&self, name: &str) -> ServiceOptions {
        let asking = self.instances_of(name).values().filter(|it| it.options.is_some());
        let last = asking.max_by_key(|it| it.grant.granted_index);
        last.and_then(|it| it.options.as_deref()).cloned().unwrap_or_default()
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
        // It may have got an instance, or been configured, after the leader proposed this.
        if command.if_empty && (!instances.is_empty() || service.forgotten_after().is_none()) {
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
