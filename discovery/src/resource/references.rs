//! The resources that a cluster or a listener requests.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::google::protobuf::Any;
use prost::Name as _;

use super::{Name, ResourceType};

/// A resource that a client requests because of another one.
pub type Reference = (ResourceType, Name);

/// What the resource of this name and with this encoded message refers to.
pub(super) fn references_of(kind: ResourceType, name: &Name, body: &[u8]) -> Vec<Reference> {
    match kind {
        ResourceType::Cluster => load_assignment_of(name, body).into_iter().collect(),
        ResourceType::Listener => routes_of(body),
        ResourceType::Endpoints
        | ResourceType::LocalityEndpoints
        | ResourceType::Secret
        | ResourceType::Runtime
        | ResourceType::ScopedRoute
        | ResourceType::Route
        | ResourceType::VirtualHost
        | ResourceType::Extension => Vec::new(),
    }
}

/// The load assignment that a cluster requests: the service name of its EDS configuration, or else
/// its own name.
fn load_assignment_of(name: &Name, body: &[u8]) -> Option<Reference> {
    let cluster = <Cluster as prost::Message>::decode(body).ok()?;
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
    if cluster.cluster_discovery_type != Some(eds) {
        return None;
    }
    let name = match cluster.eds_cluster_config {
        Some(config) if !config.service_name.is_empty() => config.service_name.into(),
        _ => name.clone(),
    };
    Some((ResourceType::Endpoints, name))
}

/// The route configurations that the connection managers of a listener request.
fn routes_of(body: &[u8]) -> Vec<Reference> {
    let Ok(listener) = <Listener as prost::Message>::decode(body) else { return Vec::new() };
    let chains = listener.filter_chains.into_iter().chain(listener.default_filter_chain);
    let filters = chains.flat_map(|chain| chain.filters).filter_map(|it| match it.config_type {
        Some(filter::ConfigType::TypedConfig(config)) => Some(config),
        Some(filter::ConfigType::ConfigDiscovery(_)) | None => None,
    });
    let api = listener.api_listener.and_then(|it| it.api_listener);
    let mut routes: Vec<Reference> = filters.chain(api).filter_map(|it| route_of(&it)).collect();
    routes.sort();
    routes.dedup();
    routes
}

fn route_of(filter: &Any) -> Option<Reference> {
    if filter.type_url != HttpConnectionManager::type_url() {
        return None;
    }
    let manager = <HttpConnectionManager as prost::Message>::decode(&*filter.value).ok()?;
    match manager.route_specifier? {
        RouteSpecifier::Rds(rds) => Some((ResourceType::Route, rds.route_config_name.into())),
        RouteSpecifier::RouteConfig(_) | RouteSpecifier::ScopedRoutes(_) => None,
    }
}
