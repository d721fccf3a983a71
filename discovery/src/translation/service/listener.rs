//! The listeners of one service: for gRPC clients without a proxy, and on a sidecar's loopback.

use envoy_types::pb::envoy::{
    config::{
        accesslog::v3::AccessLog,
        listener::v3::{ApiListener, Filter, Listener, filter},
    },
    extensions::filters::network::{
        http_connection_manager::v3::HttpConnectionManager,
        tcp_proxy::v3::{TcpProxy, tcp_proxy},
    },
};

use super::super::{
    access_log, balancing,
    build::{any, duration, number},
    http, local,
};
use crate::registry::{Protocol, Service};

/// Attempts to connect a TCP connection. The same endpoint may be chosen twice.
const TCP_ATTEMPTS: u32 = 8;

pub(super) fn api_listener(name: &str) -> Listener {
    let manager = http::connection_manager(name, name);
    Listener {
        name: name.to_owned(),
        api_listener: Some(ApiListener { api_listener: Some(any(&manager)) }),
        ..Listener::default()
    }
}

pub(super) fn sidecar_listener(service: &Service) -> Listener {
    let name = service.name.as_str();
    let stat_prefix = format!("sidecar_{name}");
    let access_log = service.options.access_log.iter().map(access_log::of_service).collect();
    let filter = match service.protocol {
        Protocol::Http1 | Protocol::Http2 => http::filter(&HttpConnectionManager {
            access_log,
            ..http::open_connection_manager(&stat_prefix, name, name)
        }),
        Protocol::Tcp => tcp_filter(service, stat_prefix, access_log),
    };
    local::listener(sidecar_name(name), service.sidecar_port, filter)
}

fn tcp_filter(service: &Service, stat_prefix: String, access_log: Vec<AccessLog>) -> Filter {
    let options = &service.options;
    let life = options.limits.connection_duration.filter(|it| !it.is_zero());
    let proxy = TcpProxy {
        stat_prefix,
        access_log,
        max_connect_attempts: number(TCP_ATTEMPTS),
        // No limit by default: connections of a database may be idle overnight. Keepalive finds
        // dead ones.
        idle_timeout: duration(options.timeouts.stream_idle.unwrap_or_default()),
        max_downstream_connection_duration: life.and_then(duration),
        hash_policy: options.load_balancing.hash.iter().map(balancing::connection_hash).collect(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(service.name.clone())),
        ..TcpProxy::default()
    };
    Filter {
        name: "envoy.filters.network.tcp_proxy".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(any(&proxy))),
    }
}

pub(super) fn sidecar_name(service: &str) -> String {
    format!("sidecar/{service}")
}
