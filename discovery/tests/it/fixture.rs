//! Small resources that carry a text, and decoders of responses.

use discovery::resource::{Name as ResourceName, Resource, ResourceType};
use discovery::stream::{ProtocolVariant, Response};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, Locality, TypedExtensionConfig};
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::{
    RouteConfiguration, ScopedRouteConfiguration, VirtualHost,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    GenericSecret, Secret, secret,
};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Any, Struct, Value};
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
    let name: ResourceName = name.into();
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
        ResourceType::LocalityEndpoints => {
            let text = format!("{own} {text}");
            let host_identifier = Some(HostIdentifier::EndpointName(text));
            Resource::new(kind, name, &LbEndpoint { host_identifier, ..LbEndpoint::default() })
        }
        ResourceType::Secret => {
            let specifier = Some(Specifier::InlineString(text));
            let source = DataSource { specifier, ..DataSource::default() };
            let generic = GenericSecret { secret: Some(source), ..GenericSecret::default() };
            let r#type = Some(secret::Type::GenericSecret(generic));
            Resource::new(kind, name, &Secret { name: own, r#type })
        }
        ResourceType::Runtime => {
            let value = Value { kind: Some(Kind::StringValue(text)) };
            let layer = Some(Struct { fields: [("text".to_owned(), value)].into() });
            Resource::new(kind, name, &Runtime { name: own, layer })
        }
        ResourceType::ScopedRoute => {
            let message = ScopedRouteConfiguration {
                name: own,
                route_configuration_name: text,
                ..ScopedRouteConfiguration::default()
            };
            Resource::new(kind, name, &message)
        }
        ResourceType::VirtualHost => {
            let message = VirtualHost { name: own, domains: vec![text], ..VirtualHost::default() };
            Resource::new(kind, name, &message)
        }
        ResourceType::Extension => {
            let typed_config = Some(Any { type_url: text, ..Any::default() });
            Resource::new(kind, name, &TypedExtensionConfig { name: own, typed_config })
        }
    }
}

/// The response as a client of the delta variant decodes it.
pub(crate) fn delta_of(response: &Response) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse::decode(response.encode(ProtocolVariant::Delta)).expect("a response")
}

/// The response as a client of the state-of-the-world variant decodes it.
pub(crate) fn sotw_of(response: &Response) -> DiscoveryResponse {
    DiscoveryResponse::decode(response.encode(ProtocolVariant::Sotw)).expect("a response")
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
        ResourceType::LocalityEndpoints => {
            let Some(HostIdentifier::EndpointName(text)) =
                LbEndpoint::decode(body).unwrap().host_identifier
            else {
                panic!("not of this fixture");
            };
            let (name, text) = text.split_once(' ').unwrap();
            Item { name: name.to_owned(), text: text.to_owned() }
        }
        ResourceType::Secret => {
            let it = Secret::decode(body).unwrap();
            let Some(secret::Type::GenericSecret(generic)) = it.r#type else {
                panic!("not of this fixture");
            };
            let Some(Specifier::InlineString(text)) = generic.secret.unwrap().specifier else {
                panic!("not of this fixture");
            };
            Item { name: it.name, text }
        }
        ResourceType::Runtime => {
            let it = Runtime::decode(body).unwrap();
            let Some(Kind::StringValue(text)) = &it.layer.unwrap().fields["text"].kind else {
                panic!("not of this fixture");
            };
            Item { name: it.name, text: text.clone() }
        }
        ResourceType::ScopedRoute => {
            let it = ScopedRouteConfiguration::decode(body).unwrap();
            Item { name: it.name, text: it.route_configuration_name }
        }
        ResourceType::VirtualHost => {
            let it = VirtualHost::decode(body).unwrap();
            Item { name: it.name, text: it.domains[0].clone() }
        }
        ResourceType::Extension => {
            let it = TypedExtensionConfig::decode(body).unwrap();
            Item { name: it.name, text: it.typed_config.unwrap().type_url }
        }
    }
}
