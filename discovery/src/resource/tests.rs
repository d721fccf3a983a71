use envoy_types::pb::envoy::config::cluster::v3::cluster::EdsClusterConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::{ApiListener, Filter, FilterChain};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::Rds;
use envoy_types::pb::envoy::service::discovery::v3::Resource as Wrapper;
use prost::Message;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::google::protobuf::Any;
use prost::Name as _;

use super::*;

#[test]
fn a_type_is_found_by_its_url_and_no_other() {
    for kind in ResourceType::all() {
        assert_eq!(ResourceType::from_type_url(kind.type_url()), Some(kind));
    }
    assert_eq!(ResourceType::from_type_url(""), None);
    assert_eq!(ResourceType::from_type_url("type.googleapis.com/envoy.api.v2.Cluster"), None);
}

#[test]
fn what_is_used_is_removed_after_what_uses_it() {
    for kind in ResourceType::all() {
        let used_first = kind.retired_after().iter().all(|it| match kind.part() {
            Part::Used => it.part() == Part::User || it.index() < kind.index(),
            Part::User | Part::Apart => it.index() < kind.index(),
        });
        assert!(used_first, "{kind}");
    }
}

#[test]
fn types_are_in_make_before_break_order() {
    let all = ResourceType::all();
    assert!(all.is_sorted());
    for (index, kind) in all.into_iter().enumerate() {
        assert_eq!(kind.index(), index);
    }
}

#[test]
fn the_encoding_decodes_as_the_protocol_s_messages() {
    let message = load_assignment("orders");
    let resource = Resource::new(ResourceType::Endpoints, "orders", &message);

    let any = Any {
        type_url: ResourceType::Endpoints.type_url().to_owned(),
        value: message.encode_to_vec(),
    };
    assert_eq!(Any::decode(resource.any()).unwrap(), any);

    let wrapper = Wrapper::decode(resource.wrapped()).unwrap();
    assert_eq!(
        wrapper,
        Wrapper {
            name: "orders".to_owned(),
            version: resource.version().to_string(),
            resource: Some(any),
            ..Wrapper::default()
        }
    );
}

#[test]
fn equal_content_has_an_equal_version() {
    let one = Resource::new(ResourceType::Endpoints, "a", &load_assignment("a"));
    let same = Resource::new(ResourceType::Endpoints, "a", &load_assignment("a"));
    let other = Resource::new(ResourceType::Endpoints, "a", &load_assignment("b"));
    assert_eq!(one, same);
    assert_ne!(one.version(), other.version());
}

#[test]
fn a_version_survives_the_wire() {
    for hash in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
        let version = Version::new(hash);
        assert_eq!(Version::parse(&version.to_string()), Some(version));
    }
    for foreign in
        ["", "1", "+000000000000001", "0123456789ABCDEF", "0123456789abcdef0", "🦀🦀🦀🦀"]
    {
        assert_eq!(Version::parse(foreign), None, "{foreign}");
    }
}

#[test]
fn a_cluster_with_eds_awaits_its_load_assignment() {
    let eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
    let awaits = |cluster: &Cluster| {
        let cluster = Resource::new(ResourceType::Cluster, "orders", cluster);
        cluster.references().first().map(|(_, name)| name.to_string())
    };

    let plain = Cluster { cluster_discovery_type: eds.clone(), ..Cluster::default() };
    assert_eq!(awaits(&plain), Some("orders".to_owned()));

    let config = EdsClusterConfig { service_name: "pool".to_owned(), ..Default::default() };
    let named = Cluster { eds_cluster_config: Some(config), ..plain };
    assert_eq!(awaits(&named), Some("pool".to_owned()));

    assert_eq!(awaits(&Cluster::default()), None);
}

#[test]
fn a_listener_awaits_the_routes_of_its_connection_managers() {
    let manager = |route: &str| {
        let rds = Rds { route_config_name: route.to_owned(), ..Rds::default() };
        let manager = HttpConnectionManager {
            route_specifier: Some(RouteSpecifier::Rds(rds)),
            ..HttpConnectionManager::default()
        };
        Any { type_url: HttpConnectionManager::type_url(), value: manager.encode_to_vec() }
    };
    let chain = |config| {
        let config_type = Some(filter::ConfigType::TypedConfig(config));
        FilterChain {
            filters: vec![Filter { config_type, ..Filter::default() }],
            ..FilterChain::default()
        }
    };
    let listener = Listener {
        filter_chains: vec![chain(manager("b")), chain(Any::default()), chain(manager("b"))],
        default_filter_chain: Some(chain(manager("a"))),
        api_listener: Some(ApiListener { api_listener: Some(manager("c")) }),
        ..Listener::default()
    };
    let resource = Resource::new(ResourceType::Listener, "l", &listener);
    let routes = ["a", "b", "c"].map(|it| (ResourceType::Route, it.into()));
    assert_eq!(resource.references(), routes);
    let plain = Resource::new(ResourceType::Listener, "l", &Listener::default());
    assert_eq!(plain.references(), []);
}

/// In a rolling upgrade both builds serve the same clients. If they computed different versions for
/// the same message, every client that changes servers would receive and warm everything again. If
/// this test fails, the encoding has changed: restore it, or note the change in the changelog.
#[test]
fn versions_are_the_same_in_every_build() {
    let options = Any { type_url: "t".to_owned(), value: vec![1, 2, 3] };
    let cluster = Cluster {
        name: "orders".to_owned(),
        alt_stat_name: "o".to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            service_name: "pool".to_owned(),
            ..EdsClusterConfig::default()
        }),
        connect_timeout: Some(envoy_types::pb::google::protobuf::Duration {
            seconds: 1,
            nanos: 500_000_000,
        }),
        typed_extension_protocol_options: [("x".to_owned(), options)].into(),
        ..Cluster::default()
    };
    let listener = Listener {
        name: "l".to_owned(),
        stat_prefix: "s".to_owned(),
        filter_chains: vec![FilterChain { name: "f".to_owned(), ..FilterChain::default() }],
        ..Listener::default()
    };
    let resources = [
        Resource::new(ResourceType::Cluster, "orders", &cluster),
        Resource::new(ResourceType::Endpoints, "orders", &load_assignment("orders")),
        Resource::new(ResourceType::Listener, "l", &listener),
        Resource::new(ResourceType::Cluster, "empty", &Cluster::default()),
    ];
    let versions = resources.each_ref().map(|it| it.version().to_string());
    let pinned = ["62b3c3112d4ab2ac", "d828aa6d3f12969d", "64f75b569f83a2a8", "2d06800538d394c2"];
    assert_eq!(versions, pinned);
}

fn load_assignment(name: &str) -> ClusterLoadAssignment {
    ClusterLoadAssignment { cluster_name: name.to_owned(), ..ClusterLoadAssignment::default() }
}
