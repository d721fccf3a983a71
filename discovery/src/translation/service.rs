//! The resources of a registered service.

use std::{net::SocketAddr, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, OutlierDetection},
            core::v3::HealthStatus,
            listener::v3::{ApiListener, Filter, FilterChain, Listener, filter},
            route::v3::{Route, RouteAction, RouteConfiguration, VirtualHost, route::Action},
        },
        extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy},
    },
    google::protobuf::BoolValue,
};
use proto::quorate::v1::Health;

use super::{build, cluster, http};
use crate::{
    registry::{Instance, Protocol, Registry, Service},
    resource::{Resource, ResourceChange, ResourceType},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an HTTP stream may be silent: long enough for rare events and slow responses.
/// A service may set another time.
const STREAM_IDLE: Duration = Duration::from_secs(60 * 60);

/// Attempts to connect a TCP connection. The same endpoint may be chosen twice.
const TCP_ATTEMPTS: u32 = 8;

/// All resources of a service except its endpoints and its part of `ingress`. Resources that a TCP
/// service does not have are removed, since the service may have been an HTTP service before.
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
            let route = Resource::new(ResourceType::Route, name, &route(service));
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

/// The virtual host of a service in the route of a front proxy. It is selected by the host name of
/// the request. None if the service does not speak HTTP.
pub(super) fn ingress_host(service: &Service) -> Option<VirtualHost> {
    let domains = vec![service.name.clone(), format!("{}:*", service.name)];
    (service.protocol != Protocol::Tcp).then(|| virtual_host(service, domains))
}

fn cluster_of(service: &Service) -> Cluster {
    let mut cluster = cluster::eds_cluster(&service.name, CONNECT_TIMEOUT);
    cluster.outlier_detection = Some(outlier_detection());
    match service.protocol {
        Protocol::Http1 => cluster::use_http1(&mut cluster),
        Protocol::Http2 => cluster::use_http2(&mut cluster, None),
        Protocol::Tcp => {}
    }
    cluster
}

/// Ejects an instance for a while if it cannot be reached or answers like a failing gateway. Two
/// failures suffice: with many instances each one gets few requests, and a wrongly ejected one is
/// back soon. A plain 500 of an application does not count, and at most half of the instances are
/// ejected.
fn outlier_detection() -> OutlierDetection {
    OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: build::number(2),
        consecutive_gateway_failure: build::number(5),
        enforcing_consecutive_gateway_failure: build::number(100),
        interval: build::duration(Duration::from_secs(1)),
        base_ejection_time: build::duration(Duration::from_secs(5)),
        max_ejection_time: build::duration(Duration::from_secs(30)),
        max_ejection_percent: build::number(50),
        ..cluster::no_outlier_detection()
    }
}

fn route(service: &Service) -> RouteConfiguration {
    RouteConfiguration {
        name: service.name.clone(),
        // Any host: a client that requests this route by name has already chosen the service, and
        // the authority of `xds:///orders` is `orders`.
        virtual_hosts: vec![virtual_host(service, vec!["*".to_owned()])],
        ..RouteConfiguration::default()
    }
}

fn virtual_host(service: &Service, domains: Vec<String>) -> VirtualHost {
    let action = RouteAction {
        // No time limit for a request, since streams and large responses take long. Only silence
        // ends it.
        timeout: build::duration(Duration::ZERO),
        idle_timeout: build::duration(service.options.stream_idle.unwrap_or(STREAM_IDLE)),
        max_stream_duration: (service.protocol == Protocol::Http2).then(http::client_deadline),
        ..http::to_cluster(&service.name)
    };
    let retried = RouteAction { retry_policy: Some(http::idempotent_retries()), ..action.clone() };
    let mut idempotent = Route {
        name: format!("{}/idempotent", service.name),
        ..http::route(Action::Route(retried))
    };
    http::only_idempotent(&mut idempotent);
    VirtualHost {
        name: service.name.clone(),
        domains,
        routes: vec![
            idempotent,
            Route { name: service.name.clone(), ..http::route(Action::Route(action)) },
        ],
        // For every route without a retry policy of its own.
        retry_policy: Some(http::safe_retries()),
        ..VirtualHost::default()
    }
}

fn api_listener(name: &str) -> Listener {
    let manager = http::connection_manager(name, name);
    Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(build::any(&manager)) }),
        ..Listener::default()
    }
}

fn sidecar_listener(service: &Service) -> Listener {
    let stat_prefix = format!("sidecar_{}", service.name);
    let filter = match service.protocol {
        Protocol::Http1 | Protocol::Http2 => Filter {
            name: "envoy.filters.network.http_connection_manager".to_owned(),
            config_type: Some(filter::ConfigType::TypedConfig(build::any(
                &http::open_connection_manager(&stat_prefix, &service.name),
            ))),
        },
        Protocol::Tcp => Filter {
            name: "envoy.filters.network.tcp_proxy".to_owned(),
            config_type: Some(filter::ConfigType::TypedConfig(build::any(&TcpProxy {
                stat_prefix,
                max_connect_attempts: build::number(TCP_ATTEMPTS),
                // No limit by default: connections of a database may be idle overnight. Keepalive
                // finds dead ones.
                idle_timeout: build::duration(service.options.stream_idle.unwrap_or_default()),
                cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(service.name.clone())),
                ..TcpProxy::default()
            }))),
        },
    };
    let address = SocketAddr::from(([127, 0, 0, 1], service.sidecar_port));
    Listener {
        name: sidecar_name(&service.name),
        address: Some(build::address(address)),
        filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
        // If another process has the port, Envoy rejects the listener. With a shared port, two
        // sidecars on one host would take each other's calls.
        enable_reuse_port: Some(BoolValue { value: false }),
        ..Listener::default()
    }
}

fn sidecar_name(service: &str) -> String {
    format!("sidecar/{service}")
}
