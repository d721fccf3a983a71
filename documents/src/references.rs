//! Which other resources a resource names.
//!
//! Only what this server is asked for counts: a configuration that a client reads from a file or
//! from another server is none of ours.

use prost_reflect::DynamicMessage;

use crate::{
    field::{choice, has, list, name, sub, text, texts},
    path::Path,
    types::type_url::{CLUSTER, ENDPOINT, EXTENSION, LOAD_ASSIGNMENT, ROUTE, SCOPED_ROUTE, SECRET},
    walk::walk,
};

/// One resource that another one names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub type_url: &'static str,
    pub name: String,
    /// Where it is named.
    pub field: String,
    pub line: Option<usize>,
    /// Whether the client has nothing to fall back on.
    pub is_required: bool,
}

/// Fields that hold the name of a resource, or several.
const NAMES: [(&str, &str, &str); 17] = [
    ("envoy.config.route.v3.RouteAction", "cluster", CLUSTER),
    ("envoy.config.route.v3.RouteAction.RequestMirrorPolicy", "cluster", CLUSTER),
    ("envoy.config.route.v3.WeightedCluster.ClusterWeight", "name", CLUSTER),
    ("envoy.config.route.v3.ScopedRouteConfiguration", "route_configuration_name", ROUTE),
    ("envoy.config.core.v3.GrpcService.EnvoyGrpc", "cluster_name", CLUSTER),
    ("envoy.config.core.v3.HttpUri", "cluster", CLUSTER),
    ("envoy.extensions.clusters.aggregate.v3.ClusterConfig", "clusters", CLUSTER),
    ("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster", CLUSTER),
    (
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight",
        "name",
        CLUSTER,
    ),
    ("envoy.extensions.filters.network.dubbo_proxy.v3.RouteAction", "cluster", CLUSTER),
    (
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy.PrefixRoutes.Route",
        "cluster",
        CLUSTER,
    ),
    (
        "envoy.extensions.filters.network.redis_proxy.v3.RedisProxy.PrefixRoutes.Route.RequestMirrorPolicy",
        "cluster",
        CLUSTER,
    ),
    ("envoy.extensions.filters.network.thrift_proxy.v3.RouteAction", "cluster", CLUSTER),
    (
        "envoy.extensions.filters.network.thrift_proxy.v3.RouteAction.RequestMirrorPolicy",
        "cluster",
        CLUSTER,
    ),
    (
        "envoy.extensions.filters.network.thrift_proxy.v3.WeightedCluster.ClusterWeight",
        "name",
        CLUSTER,
    ),
    ("envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig", "cluster", CLUSTER),
    ("envoy.extensions.filters.udp.udp_proxy.v3.Route", "cluster", CLUSTER),
];

/// A reference, with the way to the field that makes it.
pub(crate) struct Found {
    pub(crate) path: Path,
    pub(crate) type_url: &'static str,
    pub(crate) name: String,
    pub(crate) is_required: bool,
}

pub(crate) fn references(message: &DynamicMessage) -> Vec<Found> {
    let mut found = Vec::new();
    walk(message, &mut |path, message| {
        for (_, field, type_url) in NAMES.iter().filter(|(of, _, _)| *of == name(message)) {
            let mut names = texts(message, field);
            names.push(text(message, field));
            let names = names.into_iter().filter(|it| !it.is_empty());
            let path = path.field(field);
            found.extend(names.map(|name| required(path.clone(), type_url, name)));
        }
        found.extend(by_config_source(path, message));
    });
    found
}

/// References that come with a source of configuration, which may be another than this server.
fn by_config_source(path: &Path, message: &DynamicMessage) -> Option<Found> {
    match name(message).as_str() {
        "envoy.config.cluster.v3.Cluster" => load_assignment(path, message),
        "envoy.extensions.filters.network.http_connection_manager.v3.Rds" => {
            let name = text(message, "route_config_name");
            let is_ours = comes_from_here(message, "config_source") && !name.is_empty();
            is_ours.then(|| required(path.field("route_config_name"), ROUTE, name))
        }
        "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRds" => {
            let name = text(message, "srds_resources_locator");
            let is_ours = comes_from_here(message, "scoped_rds_config_source") && !name.is_empty();
            is_ours.then(|| required(path.field("srds_resources_locator"), SCOPED_ROUTE, name))
        }
        "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig" => {
            let name = text(message, "name");
            let is_ours = comes_from_here(message, "sds_config") && !name.is_empty();
            is_ours.then(|| required(path.field("name"), SECRET, name))
        }
        "envoy.config.endpoint.v3.LocalityLbEndpoints" => {
            let leds = sub(message, "leds_cluster_locality_config")?;
            let name = text(&leds, "leds_collection_name");
            let path = path.field("leds_cluster_locality_config").field("leds_collection_name");
            comes_from_here(&leds, "leds_config").then(|| required(path, ENDPOINT, name))
        }
        _ => {
            let discovery = sub(message, "config_discovery")?;
            let is_ours = comes_from_here(&discovery, "config_source");
            is_ours.then(|| Found {
                path: path.field("config_discovery"),
                type_url: EXTENSION,
                name: text(message, "name"),
                is_required: !has(&discovery, "default_config"),
            })
        }
    }
}

fn load_assignment(path: &Path, cluster: &DynamicMessage) -> Option<Found> {
    let eds = sub(cluster, "eds_cluster_config")?;
    if choice(cluster, "type") != "EDS" || !comes_from_here(&eds, "eds_config") {
        return None;
    }
    let service_name = text(&eds, "service_name");
    if service_name.is_empty() {
        let name = text(cluster, "name");
        return Some(required(path.field("name"), LOAD_ASSIGNMENT, name));
    }
    let path = path.field("eds_cluster_config").field("service_name");
    Some(required(path, LOAD_ASSIGNMENT, service_name))
}

fn required(path: Path, type_url: &'static str, name: String) -> Found {
    Found { path, type_url, name, is_required: true }
}

/// Whether a `ConfigSource` says the stream that brought it.
fn comes_from_here(message: &DynamicMessage, field: &str) -> bool {
    sub(message, field).is_some_and(|it| {
        let names_authority = !list(&it, "authorities").is_empty();
        has(&it, "ads") || has(&it, "self") || names_authority
    })
}

#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.iter().map(|(message, field, _)| (*message, *field))
}
