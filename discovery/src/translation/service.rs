//! The resources of a registered service.

mod cluster;
mod listener;
mod route;

use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use proto::quorate::v1::Health;

pub(super) use self::route::shared_host;
use self::{
    cluster::cluster_of,
    listener::{api_listener, sidecar_listener, sidecar_name},
};
use super::build;
use crate::{
    registry::{Instance, Protocol, Registry, Service},
    resource::{Resource, ResourceChange, ResourceType},
};

/// All resources of a service except its endpoints and its host in the shared routes. Resources
/// that a TCP service does not have are removed, since the service may have been an HTTP service
/// before.
pub(super) fn resources(service: &Service) -> Vec<ResourceChange> {
    let name = service.name.as_str();
    let mut changes = vec![
        ResourceChange::Put(Resource::new(ResourceType::Cluster, name, &cluster_of(service))),
        ResourceChange::Put(Resource::new(
            ResourceType::Listener,
            sidecar_name(name),
            &sidecar_listener(service),
        )),
    ];
    match service.protocol {
        Protocol::Http1 | Protocol::Http2 => {
            let api = Resource::new(ResourceType::Listener, name, &api_listener(name));
            changes.push(ResourceChange::Put(api.not_in_wildcard()));
            let route = Resource::new(ResourceType::Route, name, &route::route(service));
            changes.push(ResourceChange::Put(route));
        }
        Protocol::Tcp => {
            changes.push(ResourceChange::Remove(ResourceType::Listener, name.into()));
            changes.push(ResourceChange::Remove(ResourceType::Route, name.into()));
        }
    }
    changes
}

/// The removal of all resources of a service.
pub(super) fn removal(name: &str) -> [ResourceChange; 5] {
    [
        ResourceChange::Remove(ResourceType::Cluster, name.into()),
        ResourceChange::Remove(ResourceType::Endpoints, name.into()),
        ResourceChange::Remove(ResourceType::Listener, name.into()),
        ResourceChange::Remove(ResourceType::Listener, sidecar_name(name).into()),
        ResourceChange::Remove(ResourceType::Route, name.into()),
    ]
}

/// The endpoints of a service. If it has no instance up, the resource is empty but exists.
pub(super) fn endpoints(registry: &Registry, service: &Service) -> Resource {
    let instances = registry.instances_of(&service.name).values();
    let silent = health_of_silent(service, instances.clone());
    let try_unhealthy = service.options.try_unhealthy;
    let endpoints = instances.filter_map(|it| endpoint(it, silent, try_unhealthy)).collect();
    let assignment = build::load_assignment(&service.name, endpoints);
    Resource::new(ResourceType::Endpoints, service.name.as_str(), &assignment)
}

/// The health status of instances whose owners are silent. They may be healthy, and are used after
/// the others.
///
/// Envoy sends to degraded endpoints what the healthy ones cannot carry. A gRPC client ignores
/// degraded endpoints (gRFC A27), so an HTTP/2 service has them only while at least half of its
/// instances are heard. A gRPC client skips endpoints that it has no connection to by itself.
fn health_of_silent<'a>(
    service: &Service,
    instances: impl Iterator<Item = &'a Instance>,
) -> HealthStatus {
    let (mut heard, mut silent) = (0, 0);
    for instance in instances.filter(|it| it.is_routable()) {
        match instance.silent_since {
            None => heard += 1,
            Some(_) => silent += 1,
        }
    }
    let enough = match service.protocol {
        Protocol::Http2 => heard >= silent,
        Protocol::Http1 | Protocol::Tcp => true,
    };
    if heard > 0 && enough { HealthStatus::Degraded } else { HealthStatus::Unknown }
}

fn endpoint(
    instance: &Instance,
    silent: HealthStatus,
    try_unhealthy: bool,
) -> Option<build::Endpoint<'_>> {
    let health = match instance.health {
        Health::Healthy | Health::Unknown if instance.silent_since.is_some() => silent,
        Health::Healthy => HealthStatus::Healthy,
        Health::Draining => HealthStatus::Draining,
        // Envoy sends traffic to endpoints of unknown health: an attempt is better than a refusal.
        Health::Unknown | Health::Unspecified => HealthStatus::Unknown,
        // Left out instead of being listed as unhealthy: if no other is left, Envoy would send
        // requests to any listed endpoint. A service may ask for that.
        Health::Unhealthy if try_unhealthy => HealthStatus::Unhealthy,
        Health::Unhealthy | Health::Down => return None,
    };
    Some(build::Endpoint {
        address: instance.address,
        locality: &instance.locality,
        priority: 0,
        weight: instance.weight,
        health,
        since: instance.grant.granted_index,
    })
}
