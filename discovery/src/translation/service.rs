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

/// An HTTP stream may be silent for so long: events that are seldom, answers that take their time.
const STREAM_IDLE: Duration = Duration::from_secs(60 * 60);

/// A TCP connection is tried at so many endpoints, of which some may be tried twice.
const TCP_ATTEMPTS: u32 = 8;

/// Everything of a service but its endpoints and its part of `ingress`. What a TCP service does not
/// have is removed, as the service may have spoken HTTP before.
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

/// What there was of a service that is no more.
pub(super) fn removal(name: &str) -> [ResourceChange; 5] {
    [
        ResourceChange::Remove(ResourceType::Cluster, name.into()),
        ResourceChange::Remove(ResourceType::Endpoints, name.into()),
        ResourceChange::Remove(ResourceType::Listener, name.into()),
        ResourceChange::Remove(ResourceType::Listener, sidecar_name(name).into()),
        ResourceChange::Remove(ResourceType::Route, name.into()),
    ]
}

/// The endpoints of a service; none, but still a resource, when it has no instance up.
pub(super) fn endpoints(registry: &Registry, service: &Service) -> Resource {
    let instances = registry.instances_of(&service.name).values();
    let silent = health_of_silent(service, instances.clone());
    let endpoints = instances.filter_map(|it| endpoint(it, silent)).collect();
    let assignment = build::load_assignment(&service.name, endpoints);
    Resource::new(ResourceType::Endpoints, service.name.as_str(), &assignment)
}

/// How those are served whose owners are silent, and who may yet be well: after the others.
///
/// Envoy sends to a degraded endpoint what the healthy ones cannot carry. A gRPC client leaves it
/// out altogether (gRFC A27), so for HTTP/2 that is right only while at least half are heard; it
/// skips by itself those to which it has no connection.
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

fn endpoint(instance: &Instance, silent: HealthStatus) -> Option<build::Endpoint<'_>> {
    let health = match instance.health {
        Health::Healthy | Health::Unknown if instance.silent_since.is_some() => silent,
        Health::Healthy => HealthStatus::Healthy,
        Health::Draining => HealthStatus::Draining,
        // Envoy sends traffic to those of whom nothing is known: rather a try than a refusal.
        Health::Unknown | Health::Unspecified => HealthStatus::Unknown,
        // Left out, not listed as unhealthy: when no other is left, Envoy sends to any that is
        // listed, and rather nobody answers than one who says that it cannot.
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

/// The virtual host of a service in the route of a front proxy, told apart by the name that the client
/// asked for; none if it does not speak HTTP.
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

/// Takes an instance out for a while that cannot be reached or answers as a broken gateway would.
/// Two failures do: with many instances each gets few requests, and whoever is out wrongly is back
/// soon. What an application says of itself by a plain 500 is not judged, and never more than half
/// of the instances are out.
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
        // Any host: who asks for this route by name has chosen already, and the authority of
        // `xds:///orders` is `orders`.
        virtual_hosts: vec![virtual_host(service, vec!["*".to_owned()])],
        ..RouteConfiguration::default()
    }
}

fn virtual_host(service: &Service, domains: Vec<String>) -> VirtualHost {
    let action = RouteAction {
        // Only silence ends a request, since streams and large answers take their time.
        timeout: build::duration(Duration::ZERO),
        idle_timeout: build::duration(STREAM_IDLE),
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
        // Of every route that has none of its own.
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
                // A database's connections rest overnight. Whoever is gone is found by keepalive.
                idle_timeout: build::duration(Duration::ZERO),
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
        // Whoever else has the port keeps it, and this sidecar says that it lacks it. Sharing it,
        // two sidecars of one host would take each other's calls.
        enable_reuse_port: Some(BoolValue { value: false }),
        ..Listener::default()
    }
}

fn sidecar_name(service: &str) -> String {
    format!("sidecar/{service}")
}
