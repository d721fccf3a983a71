//! How Envoy reaches the endpoints of a cluster: which one it chooses, and when it gives one up.
//!
//! # Silence
//!
//! A host that loses its power or its network closes no connection. TCP would go on sending for a
//! quarter of an hour, so the kernel is told to give up after [`SILENCE`]: by its user timeout if
//! something was sent, by keepalive probes if an answer is awaited. This finds the silence of
//! HTTP/1, HTTP/2 and plain TCP alike. HTTP/2 pings would too, but gRPC servers take pings more
//! frequent than every five minutes for an attack and close the connection; only our own servers are
//! pinged.
//!
//! A process that hangs while its kernel answers is not found so, since nobody can tell it from one
//! that takes its time. Its health check does.
//!
//! # Choice
//!
//! Envoy takes the less busy of two endpoints drawn at random. Round robin would go through the
//! endpoints zone by zone, and when a zone is gone a retry would find the next dead neighbor. A
//! gRPC client that lacks the policy takes the next one, which is its own default.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster, LoadBalancingPolicy, OutlierDetection,
            UpstreamConnectionOptions,
            circuit_breakers::Thresholds,
            cluster::{ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig},
            load_balancing_policy::Policy,
        },
        core::v3::{
            BindConfig, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions,
            KeepaliveSettings, SocketOption, TcpKeepalive, TypedExtensionConfig,
            socket_option::{SocketState, Value},
        },
    },
    extensions::{
        load_balancing_policies::{
            least_request::v3::LeastRequest, round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
        upstreams::http::v3::{
            HttpProtocolOptions as UpstreamOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
        },
    },
    r#type::v3::Percent,
};
use prost::{Message, Name};

use super::build::{ads, any, duration, number};

/// Connections, requests and retries at once to one cluster. Envoy's own defaults (1024, and three
/// retries) would refuse requests in the moment of a failover; limits are the service's business.
const MOST: u32 = 1_000_000;

/// After this a connection whose other end does not answer is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// A connection on which nothing happens is probed after this, then every second.
const PROBE_AFTER_SECS: u32 = 5;
const PROBE_EVERY_SECS: u32 = 1;
const PROBES: u32 = 5;

/// An idle HTTP/1 connection is closed after this. Applications close theirs after two seconds
/// (gunicorn), five (Node.js, Apache, uvicorn) or more, and a request that crosses the close is lost.
const HTTP1_IDLE: Duration = Duration::from_millis(1500);

/// Numbers of Linux: the level of TCP, and its user timeout.
const IPPROTO_TCP: i64 = 6;
const TCP_USER_TIMEOUT: i64 = 18;

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
        load_balancing_policy: Some(load_balancing()),
        common_lb_config: Some(CommonLbConfig {
            // Endpoints that were ejected, or are draining, get traffic only when no other is left.
            // By default they would when half are.
            healthy_panic_threshold: Some(Percent { value: 1.0 }),
            // A change of health counts at once; by default a second one waits for up to a second,
            // in which requests go to a host that is known to be gone.
            update_merge_window: duration(Duration::ZERO),
            ..CommonLbConfig::default()
        }),
        upstream_connection_options: Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(TcpKeepalive {
                keepalive_probes: number(PROBES),
                keepalive_time: number(PROBE_AFTER_SECS),
                keepalive_interval: number(PROBE_EVERY_SECS),
            }),
            ..UpstreamConnectionOptions::default()
        }),
        upstream_bind_config: Some(BindConfig {
            socket_options: vec![user_timeout()],
            ..BindConfig::default()
        }),
        ..Cluster::default()
    }
}

/// Makes Envoy speak HTTP/1 to a cluster's endpoints, and close what is idle before they do.
pub(super) fn use_http1(cluster: &mut Cluster) {
    let common = HttpProtocolOptions {
        idle_timeout: duration(HTTP1_IDLE),
        ..HttpProtocolOptions::default()
    };
    let protocol = ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default());
    speak(cluster, protocol, Some(common));
}

/// Makes Envoy speak HTTP/2 to a cluster's endpoints from the first byte.
pub(super) fn use_http2(cluster: &mut Cluster, keepalive: Option<KeepaliveSettings>) {
    let http2 = Http2ProtocolOptions {
        connection_keepalive: keepalive,
        // A WebSocket travels over HTTP/2 as an extended CONNECT (RFC 8441).
        allow_connect: true,
        ..Http2ProtocolOptions::default()
    };
    speak(cluster, ProtocolConfig::Http2ProtocolOptions(http2), None);
}

fn speak(cluster: &mut Cluster, protocol: ProtocolConfig, common: Option<HttpProtocolOptions>) {
    let options = UpstreamOptions {
        common_http_protocol_options: common,
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig { protocol_config: Some(protocol) },
        )),
        ..UpstreamOptions::default()
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

fn load_balancing() -> LoadBalancingPolicy {
    let by_locality = WrrLocality {
        endpoint_picking_policy: Some(LoadBalancingPolicy {
            policies: vec![policy("round_robin", &RoundRobin::default())],
        }),
    };
    LoadBalancingPolicy {
        policies: vec![
            policy("least_request", &LeastRequest::default()),
            policy("wrr_locality", &by_locality),
        ],
    }
}

fn policy<M: Message + Name>(name: &str, config: &M) -> Policy {
    Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: format!("envoy.load_balancing_policies.{name}"),
            typed_config: Some(any(config)),
        }),
    }
}

fn user_timeout() -> SocketOption {
    let millis = i64::try_from(SILENCE.as_millis()).unwrap_or(i64::MAX);
    SocketOption {
        description: "TCP_USER_TIMEOUT".to_owned(),
        level: IPPROTO_TCP,
        name: TCP_USER_TIMEOUT,
        state: SocketState::StatePrebind.into(),
        value: Some(Value::IntValue(millis)),
        ..SocketOption::default()
    }
}
