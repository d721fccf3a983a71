//! How Envoy uses the endpoints of a cluster: which one it chooses, and when it stops using one.
//!
//! # Silence
//!
//! A host that loses its power or its network closes no connection. TCP would retransmit for a
//! quarter of an hour, so the kernel is told to give up after [`SILENCE`]: by the user timeout if
//! sent data is not acknowledged, by keepalive probes if the connection only waits for a response.
//! This works for HTTP/1, HTTP/2 and plain TCP alike. HTTP/2 pings would work too, but gRPC servers
//! treat pings more frequent than every five minutes as an attack and close the connection. So only
//! our own servers are pinged.
//!
//! A process that hangs while its kernel still answers is not detected this way, since it looks
//! like a slow one. Its health check detects it.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster, OutlierDetection, UpstreamConnectionOptions,
            circuit_breakers::Thresholds,
            cluster::{ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig},
        },
        core::v3::{
            BindConfig, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions,
            KeepaliveSettings, SocketOption, TcpKeepalive,
            socket_option::{SocketState, Value},
        },
    },
    extensions::upstreams::http::v3::{
        HttpProtocolOptions as UpstreamOptions,
        http_protocol_options::{
            ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
        },
    },
    r#type::v3::Percent,
};

use super::{
    balancing,
    build::{ads, any, duration, number},
};

/// Most connections, requests and retries at once to one cluster, unless its service says
/// otherwise. Envoy's defaults (1024, and three retries) would refuse requests during a failover.
const MOST: u32 = 1_000_000;

/// A connection whose other end does not answer is closed after this time.
const SILENCE: Duration = Duration::from_secs(10);

/// An idle connection is probed after this time, and then every second.
const PROBE_AFTER_SECS: u32 = 5;
const PROBE_EVERY_SECS: u32 = 1;
const PROBES: u32 = 5;

/// An idle HTTP/1 connection is closed after this time, before the application closes it: after two
/// seconds (gunicorn), five (Node.js, Apache, uvicorn) or more. A request that is sent while the
/// application closes the connection is lost.
const HTTP1_IDLE: Duration = Duration::from_millis(1500);

/// Socket option numbers of Linux: the level of TCP, and its user timeout.
const IPPROTO_TCP: i64 = 6;
const TCP_USER_TIMEOUT: i64 = 18;

/// A cluster whose endpoints come over the same ADS stream.
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
            thresholds: vec![no_limits()],
            ..CircuitBreakers::default()
        }),
        load_balancing_policy: Some(balancing::least_request(None)),
        common_lb_config: Some(CommonLbConfig {
            // Ejected or draining endpoints get traffic only if no other endpoint is left. By
            // default they would already if fewer than half are left.
            healthy_panic_threshold: Some(Percent { value: 1.0 }),
            // A change of health takes effect at once. By default Envoy merges updates for up to a
            // second, and meanwhile sends requests to hosts that it knows to be gone.
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

pub(super) fn no_limits() -> Thresholds {
    Thresholds {
        max_connections: number(MOST),
        max_pending_requests: number(MOST),
        max_requests: number(MOST),
        max_retries: number(MOST),
        ..Thresholds::default()
    }
}

/// Makes Envoy use HTTP/1 to a cluster's endpoints, and close idle connections before they do.
/// `limits` are those of one connection.
pub(super) fn use_http1(cluster: &mut Cluster, limits: HttpProtocolOptions) {
    let common = HttpProtocolOptions { idle_timeout: duration(HTTP1_IDLE), ..limits };
    let protocol = ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default());
    speak(cluster, protocol, Some(common));
}

/// Makes Envoy use HTTP/2 to a cluster's endpoints from the first byte.
/// `limits` are those of one connection.
pub(super) fn use_http2(
    cluster: &mut Cluster,
    keepalive: Option<KeepaliveSettings>,
    limits: HttpProtocolOptions,
) {
    let http2 = Http2ProtocolOptions {
        connection_keepalive: keepalive,
        // A WebSocket over HTTP/2 is an extended CONNECT (RFC 8441).
        allow_connect: true,
        ..Http2ProtocolOptions::default()
    };
    let common = (limits != HttpProtocolOptions::default()).then_some(limits);
    speak(cluster, ProtocolConfig::Http2ProtocolOptions(http2), common);
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

/// Outlier detection with every default detector disabled.
pub(super) fn no_outlier_detection() -> OutlierDetection {
    OutlierDetection {
        enforcing_consecutive_5xx: number(0),
        enforcing_success_rate: number(0),
        enforcing_local_origin_success_rate: number(0),
        ..OutlierDetection::default()
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
