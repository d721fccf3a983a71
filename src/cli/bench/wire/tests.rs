use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
            },
            endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints},
        },
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            Resource as WireResource,
        },
    },
    google::protobuf::{Any, UInt32Value},
};
use prost::Message;

use super::*;

#[test]
fn responses_are_read_as_their_messages_are_written() {
    let cluster = cluster("orders", "");
    let delta = DeltaDiscoveryResponse {
        system_version_info: "7".to_owned(),
        resources: vec![WireResource {
            name: "orders".to_owned(),
            version: "3".to_owned(),
            resource: Some(any(Kind::Clusters, &cluster)),
            ..WireResource::default()
        }],
        removed_resources: vec!["old".to_owned()],
        type_url: Kind::Clusters.type_url().to_owned(),
        nonce: "n1".to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    let sotw = DiscoveryResponse {
        version_info: "7".to_owned(),
        resources: vec![any(Kind::Clusters, &cluster)],
        type_url: Kind::Clusters.type_url().to_owned(),
        nonce: "n1".to_owned(),
        ..DiscoveryResponse::default()
    };
    for (variant, message) in
        [(Variant::Delta, delta.encode_to_vec()), (Variant::Sotw, sotw.encode_to_vec())]
    {
        let response = Response::parse(variant, &message).unwrap();
        assert_eq!(response.kind, Some(Kind::Clusters));
        assert_eq!((response.version, response.nonce), (&b"7"[..], &b"n1"[..]));
        let names: Vec<_> = response.resources().map(|it| it.unwrap().name).collect();
        assert_eq!(names, [b"orders"]);
    }
}

#[test]
fn a_cluster_says_where_its_endpoints_come_from() {
    let of = |cluster: &Cluster| {
        let body = cluster.encode_to_vec();
        let name = Resource { name: cluster.name.as_bytes(), body: &body };
        name.assignment_name().unwrap().map(<[u8]>::to_vec)
    };
    assert_eq!(of(&cluster("orders", "")), Some(b"orders".to_vec()));
    assert_eq!(of(&cluster("orders", "orders/eds")), Some(b"orders/eds".to_vec()));
    assert_eq!(of(&Cluster { name: "static".to_owned(), ..Cluster::default() }), None);
}

#[test]
fn the_largest_weight_is_found_wherever_it_is() {
    let endpoint = |weight: u32| LbEndpoint {
        load_balancing_weight: (weight > 0).then_some(UInt32Value { value: weight }),
        ..LbEndpoint::default()
    };
    let locality = |weights: &[u32]| LocalityLbEndpoints {
        lb_endpoints: weights.iter().map(|weight| endpoint(*weight)).collect(),
        load_balancing_weight: Some(UInt32Value { value: 1000 }),
        ..LocalityLbEndpoints::default()
    };
    for (weights, largest) in
        [(&[&[1_u32, 1][..], &[1, 77]][..], 77), (&[&[128], &[]], 128), (&[&[0, 0]], 0), (&[], 0)]
    {
        let assignment = ClusterLoadAssignment {
            cluster_name: "orders".to_owned(),
            endpoints: weights.iter().map(|it| locality(it)).collect(),
            ..ClusterLoadAssignment::default()
        };
        let body = assignment.encode_to_vec();
        assert_eq!(Resource { name: b"orders", body: &body }.largest_weight(), Ok(largest));
    }
}

#[test]
fn requests_are_what_a_server_decodes() {
    let long = "x".repeat(300);
    let names = name_list([b"orders".as_slice(), long.as_bytes()].into_iter());
    let node = node("bench-1", "bench");
    let first = Request::first(Kind::Endpoints, &node, &names);
    let delta: DeltaDiscoveryRequest = decoded(&first, Variant::Delta);
    assert_eq!(delta.node.unwrap().id, "bench-1");
    assert_eq!(delta.type_url, Kind::Endpoints.type_url());
    assert_eq!(delta.resource_names_subscribe, ["orders", &long]);
    let sotw: DiscoveryRequest = decoded(&first, Variant::Sotw);
    assert_eq!(sotw.node.unwrap().cluster, "bench");
    assert_eq!(sotw.resource_names, ["orders", &long]);
}

#[test]
fn an_ack_repeats_what_its_variant_wants() {
    let names = name_list([b"orders".as_slice()].into_iter());
    let response = |variant| Response {
        variant,
        message: &[],
        kind: Some(Kind::Endpoints),
        version: b"7",
        nonce: b"n1",
    };
    let delta: DeltaDiscoveryRequest =
        decoded(&response(Variant::Delta).ack(Kind::Endpoints, &names), Variant::Delta);
    assert_eq!((delta.response_nonce.as_str(), delta.resource_names_subscribe.len()), ("n1", 0));
    let sotw: DiscoveryRequest =
        decoded(&response(Variant::Sotw).ack(Kind::Endpoints, &names), Variant::Sotw);
    assert_eq!((sotw.version_info.as_str(), sotw.response_nonce.as_str()), ("7", "n1"));
    assert_eq!(sotw.resource_names, ["orders"]);
}

#[test]
fn messages_are_put_together_wherever_they_are_cut() {
    let mut body = BytesMut::new();
    let expected: Vec<Vec<u8>> = vec![vec![1; 3], vec![], vec![2; 300]];
    for message in &expected {
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.put_slice(message);
    }
    for size in 1..=body.len() {
        let (mut messages, mut found) = (Messages::default(), Vec::new());
        for chunk in body.chunks(size) {
            let each = |message: &[u8]| {
                found.push(message.to_vec());
                Ok::<(), Malformed>(())
            };
            messages.push(chunk, each).unwrap();
        }
        assert_eq!(found, expected, "in chunks of {size}");
    }
}

#[test]
fn nonsense_is_refused() {
    let cut_off = [0x0a, 5, b'a'];
    assert!(Response::parse(Variant::Delta, &cut_off).is_err());
    assert!(Response::parse(Variant::Delta, &[0xff; 12]).is_err());
    let compressed = [1, 0, 0, 0, 0];
    let each = |_: &[u8]| Ok::<(), Malformed>(());
    assert_eq!(Messages::default().push(&compressed, each), Err(Malformed));
}

fn cluster(name: &str, service_name: &str) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            service_name: service_name.to_owned(),
            ..EdsClusterConfig::default()
        }),
        ..Cluster::default()
    }
}

fn any(kind: Kind, message: &impl Message) -> Any {
    Any { type_url: kind.type_url().to_owned(), value: message.encode_to_vec() }
}

fn decoded<M: Message + Default>(request: &Request<'_>, variant: Variant) -> M {
    let mut out = BytesMut::new();
    request.write(variant, &mut out);
    let mut messages = Messages::default();
    let mut found = None;
    let each = |message: &[u8]| {
        found = M::decode(message).ok();
        Ok::<(), Malformed>(())
    };
    messages.push(&out, each).unwrap();
    found.expect("one request, well formed")
}
