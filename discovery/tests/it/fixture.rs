//! Small resources that carry a text, and decoders of responses.

use std::sync::Arc;

use discovery::resource::{Resource, ResourceType};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::Locality;
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

/// A resource as a client decodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub name: String,
    pub text: String,
}

/// A resource with this text. In a listener's text the words after the first are the routes that it
/// requests.
pub(crate) fn resource(kind: ResourceType, name: &str, text: &str) -> Resource {
    let (own, text) = (name.to_owned(), text.to_owned());
    let name: Arc<str> = name.into();
    match kind {
        ResourceType::Cluster => {
            let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
            let message = Cluster {
                name: own,
                alt_stat_name: text,
                cluster_discovery_type: Some(eds),
                ..Cluster::default()
            };
            Resource::new(kind, name, &message)
        }
        ResourceType::Endpoints => {
            let locality = Locality { zone: text, ..Locality::default() };
            let group =
                LocalityLbEndpoints { locality: Some(locality), ..LocalityLbEndpoints::default() };
            let message = ClusterLoadAssignment {
                cluster_name: own,
                endpoints: vec![group],
                policy: Some(Policy::default()),
                ..ClusterLoadAssignment::default()
            };
            Resource::new(kind, name, &message)
        }
        ResourceType::Listener => {
            let filters = text.split(' ').skip(1).map(connection_manager).collect();
            let chain = FilterChain { filters, ..FilterChain::default() };
            let message = Listener {
                name: own,
                stat_prefix: text,
                filter_chains: vec![chain],
                ..Listener::default()
            };
            Resource::new(kind, name, &message)
        }
        ResourceType::Route => {
            let host = VirtualHost { name: text, ..VirtualHost::default() };
            let message = RouteConfiguration {
                name: own,
                virtual_hosts: vec![host],
                ..RouteConfiguration::default()
            };
            Resource::new(kind, name, &message)
        }
    }
}

fn connection_manager(route: &str) -> Filter {
    let rds = Rds { route_config_name: route.to_owned(), ..Rds::default() };
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        ..HttpConnectionManager::default()
    };
    let config =
        Any { type_url: HttpConnectionManager::type_url(), value: manager.encode_to_vec() };
    Filter { config_type: Some(filter::ConfigType::TypedConfig(config)), ..Filter::default() }
}

pub(crate) fn read(any: &Any) -> Item {
    let kind = ResourceType::from_type_url(&any.type_url).expect("a known type");
    let body = &*any.value;
    match kind {
        ResourceType::Cluster => {
            let it = Cluster::decode(body).unwrap();
            Item { name: it.name, text: it.alt_stat_name }
        }
        ResourceType::Endpoints => {
            let it = ClusterLoadAssignment::decode(body).unwrap();
            let text = it.endpoints[0].locality.as_ref().unwrap().zone.clone();
            Item { name: it.cluster_name, text }
        }
        ResourceType::Listener => {
            let it = Listener::decode(body).unwrap();
            Item { name: it.name, text: it.stat_prefix }
        }
        ResourceType::Route => {
            let it = RouteConfiguration::decode(body).unwrap();
            Item { name: it.name, text: it.virtual_hosts[0].name.clone() }
        }
    }
}
