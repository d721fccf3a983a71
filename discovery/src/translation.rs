//! The translation of the registry to Envoy's resources.
//!
//! It depends on the records alone, so every replica makes the same resources, byte for byte. It is
//! incremental: only the resources that depend on the records that a command touched are made
//! again. A resource with unchanged content keeps its version, so no client is sent it.
//!
//! A service `orders` becomes
//!
//! | type | name | |
//! |---|---|---|
//! | cluster | `orders` | endpoints by EDS |
//! | endpoints | `orders` | its instances, grouped by locality, but for those that are down |
//! | route | `orders` | for any host; not for TCP |
//! | listener | `orders` | API listener for proxyless gRPC; not for TCP |
//! | listener | `sidecar/orders` | on the loopback, at the port the registry assigned |
//!
//! and, if it speaks HTTP, a virtual host of the route `ingress`, which a front proxy serves, and
//! of the route `mesh/outbound`, which the listener of that name serves on the loopback of every
//! sidecar. A data namespace `orders` becomes the clusters `kv/orders` and `kv/orders/leader` with
//! their endpoints, and a route of the virtual host in `ingress-kv`.
//!
//! Every resource name that is not the name of a service contains a `/` or is reserved, so no
//! service can replace another resource.
//!
//! Envoy refuses or ignores resources without a name, a stat prefix, a router's typed
//! configuration, a locality or a locality's weight, so all of these are set.

mod access_log;
mod balancing;
mod build;
mod cluster;
mod http;
mod local;
mod namespace;
mod service;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use self::shared::Shared;
pub use self::{
    access_log::{host_log, json_fields},
    http::{IDEMPOTENT_METHODS, NOT_DELIVERED_HEADER, NOT_WEBSOCKET},
    shared::OUTBOUND_PORT,
};
use crate::{
    registry::{Group, RecordKey, Registry},
    resource::ResourceChange,
};

/// The services and groups whose resources are made again. Sets, so that several touched records
/// make a resource only once.
#[derive(Debug, Default)]
struct Affected<'a> {
    /// Services as a whole, and only their endpoints.
    services: BTreeSet<&'a str>,
    instances: BTreeSet<&'a str>,
    /// Groups as a whole, and only their endpoints.
    groups: BTreeSet<u32>,
    replicas: BTreeSet<u32>,
}

/// Translates one registry, from one state of it to the next.
#[derive(Debug, Default)]
pub struct Translator {
    shared: Shared,
}

impl Translator {
    /// The changes that result from the touched records.
    ///
    /// Applied in order, they turn the snapshot of the registry before the command into that of the
    /// registry after it.
    pub fn translate(
        &mut self,
        registry: &Registry,
        touched: &BTreeSet<RecordKey>,
    ) -> Vec<ResourceChange> {
        let mut affected = Affected::default();
        for key in touched {
            match key {
                RecordKey::Service(name) => {
                    affected.services.insert(name);
                }
                RecordKey::Instance { service, .. } => {
                    affected.instances.insert(service);
                }
                RecordKey::Group(group) => {
                    affected.groups.insert(*group);
                }
                RecordKey::Node(node_id) => {
                    let hosted = registry.groups().filter(|it| it.has_replica(*node_id));
                    affected.replicas.extend(hosted.map(|it| it.group));
                }
                RecordKey::Server(_) | RecordKey::Resource(_) => {}
            }
        }
        self.changes(registry, &affected)
    }

    /// Every resource of the registry. An empty registry has what all services share, without
    /// hosts.
    pub fn translate_all(&mut self, registry: &Registry) -> Vec<ResourceChange> {
        self.shared = Shared::default();
        let affected = Affected {
            services: registry.services().map(|it| it.name.as_str()).collect(),
            groups: registry.groups().map(|it| it.group).collect(),
            ..Affected::default()
        };
        let mut all = self.changes(registry, &affected);
        if affected.services.is_empty() {
            all.extend(self.shared.resources());
        }
        if affected.groups.is_empty() {
            all.push(ResourceChange::Put(namespace::ingress(registry)));
        }
        all
    }

    fn changes(&mut self, registry: &Registry, affected: &Affected<'_>) -> Vec<ResourceChange> {
        let mut changes = Vec::new();
        for name in affected.services.union(&affected.instances) {
            let Some(it) = registry.service(name) else {
                changes.extend(service::removal(name));
                continue;
            };
            if affected.services.contains(name) {
                changes.extend(service::resources(it));
            }
            changes.push(ResourceChange::Put(service::endpoints(registry, it)));
        }
        let groups: Vec<&Group> = affected
            .groups
            .union(&affected.replicas)
            .filter_map(|it| registry.group(*it))
            .collect();
        for group in groups {
            if affected.groups.contains(&group.group) {
                changes.extend(namespace::clusters(group).map(ResourceChange::Put));
            }
            changes.extend(namespace::endpoints(registry, group).map(ResourceChange::Put));
        }
        if !affected.services.is_empty() {
            for name in &affected.services {
                self.shared.renew(registry, name);
            }
            changes.extend(self.shared.resources());
        }
        if !affected.groups.is_empty() {
            changes.push(ResourceChange::Put(namespace::ingress(registry)));
        }
        changes
    }
}
