//! Parts that the resources share.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster, OutlierDetection,
                circuit_breakers::Thresholds,
                cluster::{ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig},
            },
            core::v3::{
                self as base, AggregatedConfigSource, ApiVersion, ConfigSource, HealthStatus,
                Http2ProtocolOptions, KeepaliveSettings, SocketAddress, address,
                config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
            },
            endpoint::v3::{
                self as endpoint, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints,
                lb_endpoint::HostIdentifier,
            },
            route::v3::{
                RetryPolicy, Route, RouteAction, RouteMatch,
                retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate},
                route, route_action, route_match,
            },
        },
        extensions::{
            filters::{
                http::router::v3::Router,
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, Rds, http_connection_manager, http_filter,
                },
            },
            retry::host::previous_hosts::v3::PreviousHostsPredicate,
            upstreams::http::v3::{HttpProtocolOptions, http_protocol_options},
        },
        r#type::v3::Percent,
    },
    google::protobuf::{self, Any, UInt32Value},
};
use prost::{Message, Name};

use crate::registry::Locality;

/// Connections, requests and retries at once to one cluster. Envoy's own defaults (1024, and three
/// retries) would refuse requests in the moment of a failover; limits are the service's business.
const MOST: u32 = 1_000_000;

/// One endpoint, before it is put beside those of its locality.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint<'a> {
    pub(super) address: SocketAddr,
    pub(super) locality: &'a Locality,
    pub(super) priority: u32,
    pub(super) weight: u32,
    pub(super) health: HealthStatus,
    /// When it was registered. Of two at one address the later is there; the other has gone, and
    /// its lease not ended yet.
    pub(super) since: u64,
}

/// Endpoints by priority and locality, in an order that depends on nothing but them.
///
/// A locality weighs what its endpoints that may get traffic weigh together, so that each endpoint
/// gets its share of the whole, whether the client balances localities first (gRPC) or not (Envoy).
pub(super) fn load_assignment(name: &str, endpoints: Vec<Endpoint<'_>>) -> ClusterLoadAssignment {
    let mut by_address: BTreeMap<SocketAddr, Endpoint<'_>> = BTreeMap::new();
    for endpoint in endpoints {
        let known = by_address.entry(endpoint.address).or_insert(endpoint);
        if known.since < endpoint.since {
            *known = endpoint;
        }
    }
    let mut groups: BTreeMap<(u32, &Locality), Vec<Endpoint<'_>>> = BTreeMap::new();
    for endpoint in by_address.into_values() {
        groups.entry((endpoint.priority, endpoint.locality)).or_default().push(endpoint);
    }
    let endpoints = groups.into_iter().map(|((priority, locality), endpoints)| {
        let routable =
            |it: &&Endpoint<'_>| matches!(it.health, HealthStatus::Healthy | HealthStatus::Unknown);
        let weight: u32 = endpoints.iter().filter(routable).map(|it| it.weight).sum();
        LocalityLbEndpoints {
            locality: Some(base::Locality {
                region: locality.region.clone(),
                zone: locality.zone.clone(),
                sub_zone: String::new(),
            }),
            lb_endpoints: endpoints.iter().map(lb_endpoint).collect(),
            load_balancing_weight: number(weight.max(1)),
            priority,
            ..LocalityLbEndpoints::default()
        }
    });
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: endpoints.collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(it: &Endpoint<'_>) -> LbEndpoint {
    LbEndpoint {
        health_status: it.health.into(),
        load_balancing_weight: number(it.weight),
        host_identifier: Some(HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address(it.address)),
            ..endpoint::Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}

/// A cluster whose endpoints come over the same stream.
pub(super) fn eds_cluster(name: &str, connect_timeout: Duration) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            ..EdsClusterConfig::default()
        }),
        connect_timeout: duration(connect_timeout),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_connections: number(MOST),
                max_pending_requests: number(MOST),
                max_requests: number(MOST),
                max_retries: number(MOST),
                ..Thresholds::default()
            }],
            ..CircuitBreakers::default()
        }),
        common_lb_config: Some(CommonLbConfig {
            // Hosts known to be unhealthy or draining get traffic only when no other is left; by
            // default they would when half are.
            healthy_panic_threshold: Some(Percent { value: 1.0 }),
            // A change of health counts at once; by default a second one waits for up to a second,
            // in which requests go to a host that is known to be gone.
            update_merge_window: duration(Duration::ZERO),
            ..CommonLbConfig::default()
        }),
        ..Cluster::default()
    }
}

/// Makes Envoy speak HTTP/2 to a cluster's endpoints from the first byte.
pub(super) fn speak_http2(cluster: &mut Cluster, keepalive: Option<KeepaliveSettings>) {
    use http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
    };
    let http2 =
        Http2ProtocolOptions { connection_keepalive: keepalive, ..Http2ProtocolOptions::default() };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)),
            },
        )),
        ..HttpProtocolOptions::default()
    };
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned();
    cluster.typed_extension_protocol_options.insert(name, any(&options));
}

/// Outlier detection with every detector off that is on by default.
pub(super) fn no_outlier_detection() -> OutlierDetection {
    OutlierDetection {
        enforcing_consecutive_5xx: number(0),
        enforcing_success_rate: number(0),
        enforcing_local_origin_success_rate: number(0),
        ..OutlierDetection::default()
    }
}

/// A connection manager whose route comes over the same stream.
pub(super) fn connection_manager(stat_prefix: &str, route: &str) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: route.to_owned(),
        })),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    }
}

/// Retries what was surely not carried out: the connection was not made, the stream was refused, or
/// it was reset before the request had been sent.
pub(super) fn safe_retries() -> RetryPolicy {
    RetryPolicy {
        retry_on: "connect-failure,refused-stream,reset-before-request".to_owned(),
        num_retries: number(2),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
                &PreviousHostsPredicate::default(),
            ))),
        }],
        host_selection_retry_max_attempts: 5,
        retry_back_off: Some(RetryBackOff {
            base_interval: duration(Duration::from_millis(10)),
            max_interval: duration(Duration::from_millis(100)),
        }),
        ..RetryPolicy::default()
    }
}

/// Lets a gRPC client's own deadline end its call.
pub(super) fn as_the_client_asks() -> route_action::MaxStreamDuration {
    route_action::MaxStreamDuration {
        grpc_timeout_header_max: duration(Duration::ZERO),
        ..route_action::MaxStreamDuration::default()
    }
}

pub(super) fn to_cluster(name: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(name.to_owned())),
        ..RouteAction::default()
    }
}

/// A route for every path.
pub(super) fn route(action: RouteAction) -> Route {
    Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    }
}

pub(super) fn address(socket: SocketAddr) -> base::Address {
    base::Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(socket.port().into())),
            ..SocketAddress::default()
        })),
    }
}

pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(super) fn duration(of: Duration) -> Option<protobuf::Duration> {
    Some(protobuf::Duration {
        seconds: i64::try_from(of.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(of.subsec_nanos()).unwrap_or(0),
    })
}

fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}
