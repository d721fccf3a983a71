use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::{cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment},
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            Resource,
        },
    },
    google::protobuf::Any,
};
use prost::Message;

use super::*;
use crate::cli::bench::{
    interest::{Wish, share_out},
    wire::{Messages, node},
};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

#[test]
fn a_client_asks_for_endpoints_once_it_has_the_clusters() {
    let mut client = client(Variant::Delta, &["a", "b"], None);
    let first: DeltaDiscoveryRequest = only(&client.first_request(&node("bench-1", "")));
    assert_eq!(first.node.unwrap().id, "bench-1");
    assert_eq!((first.type_url.as_str(), first.resource_names_subscribe), (CLUSTER, star()));

    let (heard, sent) = receive(&mut client, &delta(CLUSTER, &["a"], "1"));
    assert_eq!(heard, Heard::Response);
    assert_eq!(sent, [(CLUSTER.to_owned(), "1".to_owned(), vec![])]);
    let (heard, sent) = receive(&mut client, &delta(CLUSTER, &["b"], "2"));
    assert_eq!(heard, Heard::Response);
    let endpoints = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(
        sent,
        [
            (CLUSTER.to_owned(), "2".to_owned(), vec![]),
            (ENDPOINTS.to_owned(), String::new(), endpoints)
        ]
    );
    let (heard, _) = receive(&mut client, &delta(ENDPOINTS, &["b"], "3"));
    assert_eq!(heard, Heard::Response);
    // Sent twice is not two.
    let (heard, _) = receive(&mut client, &delta(ENDPOINTS, &["b"], "4"));
    assert_eq!(heard, Heard::Response);
    let (heard, sent) = receive(&mut client, &delta(ENDPOINTS, &["a"], "5"));
    assert_eq!(heard, Heard::Synced);
    assert_eq!(sent, [(ENDPOINTS.to_owned(), "5".to_owned(), vec![])]);
}

#[test]
fn a_state_of_the_world_client_repeats_its_names() {
    let mut client = client(Variant::Sotw, &["a", "b"], None);
    let first: DiscoveryRequest = only(&client.first_request(&node("bench-1", "")));
    assert_eq!((first.type_url.as_str(), first.resource_names.len()), (CLUSTER, 0));

    let mut out = BytesMut::new();
    client.receive(&sotw(CLUSTER, &["a", "b"], "7", "n1"), &mut out, |_, _| {}).unwrap();
    let sent: Vec<DiscoveryRequest> = all(&out);
    assert_eq!((sent[0].version_info.as_str(), sent[0].response_nonce.as_str()), ("7", "n1"));
    assert_eq!(sent[1].resource_names, ["a", "b"]);
    let mut out = BytesMut::new();
    let heard = client.receive(&sotw(ENDPOINTS, &["a", "b"], "8", "n2"), &mut out, |_, _| {});
    assert_eq!(heard, Ok(Heard::Synced));
    let sent: Vec<DiscoveryRequest> = all(&out);
    assert_eq!(
        (sent[0].version_info.as_str(), &sent[0].resource_names[..]),
        ("8", &["a".to_owned(), "b".to_owned()][..])
    );
}

#[test]
fn a_synced_client_tells_which_change_came() {
    let mut client = client(Variant::Delta, &["a", "b"], Some(&["b"]));
    receive(&mut client, &delta(CLUSTER, &["a", "b"], "1"));
    receive(&mut client, &delta(ENDPOINTS, &["a", "b"], "2"));
    let mut told = Vec::new();
    for (kind, names) in [(ENDPOINTS, &["a"][..]), (CLUSTER, &["b"]), (ENDPOINTS, &["a", "b"])] {
        let message = delta(kind, names, "3");
        let touched = |order, weight| told.push((order, weight));
        client.receive(&message, &mut BytesMut::new(), touched).unwrap();
    }
    assert_eq!(told, [(0, 0)]);
}

#[test]
fn a_type_that_nobody_asked_for_is_not_answered() {
    let mut client = client(Variant::Delta, &["a"], None);
    let (heard, sent) = receive(&mut client, &delta("type.googleapis.com/other", &["a"], "1"));
    assert_eq!((heard, sent.len()), (Heard::Response, 0));
}

fn client(variant: Variant, names: &[&str], changing: Option<&[&str]>) -> Client {
    let pairs: BTreeMap<Bytes, Bytes> = names
        .iter()
        .map(|name| (Bytes::from(name.to_string()), Bytes::from(name.to_string())))
        .collect();
    let names = Names::new(pairs);
    let wish = Wish { clients: 1, ..Wish::default() };
    let interest = share_out(&names, &wish).remove(0);
    let watched = match changing {
        Some(changing) => {
            let position = |name: &&str| names.assignment(name.as_bytes()).unwrap();
            Watched::Names(changing.iter().map(position).zip(0..).collect())
        }
        None => Watched::Anything,
    };
    Client::new(Arc::new(Common { variant, names, watched }), interest)
}

/// What the client made of a response, and its requests: type, nonce and names.
fn receive(client: &mut Client, message: &[u8]) -> (Heard, Vec<(String, String, Vec<String>)>) {
    let mut out = BytesMut::new();
    let heard = client.receive(message, &mut out, |_, _| {}).unwrap();
    let requests: Vec<DeltaDiscoveryRequest> = all(&out);
    let told =
        |it: DeltaDiscoveryRequest| (it.type_url, it.response_nonce, it.resource_names_subscribe);
    (heard, requests.into_iter().map(told).collect())
}

fn delta(type_url: &str, names: &[&str], nonce: &str) -> Vec<u8> {
    let resource = |name: &&str| Resource {
        name: name.to_string(),
        resource: Some(body(type_url, name)),
        ..Resource::default()
    };
    let message = DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        resources: names.iter().map(resource).collect(),
        ..DeltaDiscoveryResponse::default()
    };
    message.encode_to_vec()
}

fn sotw(type_url: &str, names: &[&str], version: &str, nonce: &str) -> Vec<u8> {
    let message = DiscoveryResponse {
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        version_info: version.to_owned(),
        resources: names.iter().map(|name| body(type_url, name)).collect(),
        ..DiscoveryResponse::default()
    };
    message.encode_to_vec()
}

fn body(type_url: &str, name: &str) -> Any {
    let name = name.to_owned();
    let value = match type_url {
        CLUSTER => Cluster { name, ..Cluster::default() }.encode_to_vec(),
        _ => ClusterLoadAssignment { cluster_name: name, ..Default::default() }.encode_to_vec(),
    };
    Any { type_url: type_url.to_owned(), value }
}

fn all<M: Message + Default>(out: &[u8]) -> Vec<M> {
    let mut found = Vec::new();
    let each = |message: &[u8]| {
        found.push(M::decode(message).unwrap());
        Ok::<(), Malformed>(())
    };
    Messages::default().push(out, each).unwrap();
    found
}

fn only<M: Message + Default>(out: &[u8]) -> M {
    let mut all = all(out);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn star() -> Vec<String> {
    vec!["*".to_owned()]
}
