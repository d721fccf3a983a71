use envoy_types::pb::envoy::config::cluster::v3::cluster::EdsClusterConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::Resource as Wrapper;
use envoy_types::pb::google::protobuf::Any;
use prost::Message;

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
        Resource::new(ResourceType::Cluster, "orders", cluster).awaits().map(ToString::to_string)
    };

    let plain = Cluster { cluster_discovery_type: eds.clone(), ..Cluster::default() };
    assert_eq!(awaits(&plain), Some("orders".to_owned()));

    let config = EdsClusterConfig { service_name: "pool".to_owned(), ..Default::default() };
    let named = Cluster { eds_cluster_config: Some(config), ..plain };
    assert_eq!(awaits(&named), Some("pool".to_owned()));

    assert_eq!(awaits(&Cluster::default()), None);
}

fn load_assignment(name: &str) -> ClusterLoadAssignment {
    ClusterLoadAssignment { cluster_name: name.to_owned(), ..ClusterLoadAssignment::default() }
}
