use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use envoy_types::pb::envoy::config::core::v3::{BuildVersion, Locality};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::r#type::v3::SemanticVersion;
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::*;
use crate::resource::{Resource, ResourceChange};

const MIB: usize = 1 << 20;

const AT: Time = Duration::from_secs(100);

#[test]
fn equal_responses_have_an_equal_tail() {
    let snapshot = snapshot([endpoints("a", 10), endpoints("b", 10)]);
    let response = |names: &[&str], variant| {
        let mut stream = Stream::new(variant, "replica");
        // Another nonce: the tail is the same all the same.
        stream.nonces = names.len() as u64 * 1_000;
        ask(&mut stream, names, "", &snapshot).remove(0)
    };
    for variant in [ProtocolVariant::Delta, ProtocolVariant::Sotw] {
        let hash = |names: &[&str]| response(names, variant).tail_hash(variant);
        assert_eq!(hash(&["a", "b"]), hash(&["b", "a", "b"]));
        assert_ne!(hash(&["a", "b"]), hash(&["a"]));
    }
    let [delta, sotw] = [ProtocolVariant::Delta, ProtocolVariant::Sotw]
        .map(|it| response(&["a", "b"], it).tail_hash(it));
    assert_ne!(delta, sotw);
    let missing = |name| response(&[name], ProtocolVariant::Delta);
    assert_ne!(
        missing("x").tail_hash(ProtocolVariant::Delta),
        missing("y").tail_hash(ProtocolVariant::Delta)
    );
}

#[test]
fn messages_are_those_of_the_protocol() {
    let snapshot = snapshot([endpoints("a", 10)]);
    let resource = snapshot.get(ResourceType::Endpoints, "a").unwrap();
    let mut stream = Stream::new(ProtocolVariant::Delta, "replica");
    let response =
        stream.handle_delta(subscribe(&["a", "gone"]), &told(&snapshot), AT).unwrap().remove(0);

    let encoded = response.encode(ProtocolVariant::Delta);
    let length = response.head_len() + response.tail_len(ProtocolVariant::Delta);
    assert_eq!(encoded.len(), length);
    let delta = DeltaDiscoveryResponse::decode(encoded).unwrap();
    assert_eq!(delta.type_url, ResourceType::Endpoints.type_url());
    assert_eq!(delta.nonce, "1");
    assert_eq!(delta.removed_resources, ["gone"]);
    assert_eq!(delta.control_plane.unwrap().identifier, "replica");
    assert_eq!(
        delta.system_version_info,
        snapshot.type_version(ResourceType::Endpoints).to_string()
    );
    assert_eq!(delta.resources[0].name, "a");
    assert_eq!(delta.resources[0].version, resource.version().to_string());

    let encoded = response.encode(ProtocolVariant::Sotw);
    let length = response.head_len() + response.tail_len(ProtocolVariant::Sotw);
    assert_eq!(encoded.len(), length);
    let sotw = DiscoveryResponse::decode(encoded).unwrap();
    assert_eq!(sotw.type_url, ResourceType::Endpoints.type_url());
    assert_eq!(sotw.nonce, "1");
    assert_eq!(sotw.control_plane.unwrap().identifier, "replica");
    assert_eq!(sotw.version_info, snapshot.type_version(ResourceType::Endpoints).to_string());
    assert_eq!(sotw.resources[0].encode_to_vec(), resource.any());
}

#[test]
fn large_responses_are_split_and_sent_one_by_one() {
    let names = ["a", "b", "c", "d", "e", "huge"];
    let mut resources: Vec<Resource> = names[..5].iter().map(|it| endpoints(it, MIB)).collect();
    resources.push(endpoints("huge", 5 * MIB));
    let snapshot = snapshot(resources);

    for variant in [ProtocolVariant::Delta, ProtocolVariant::Sotw] {
        let mut stream = Stream::new(variant, "replica");
        let mut got: Vec<Vec<String>> = Vec::new();
        let mut nonce = String::new();
        loop {
            let mut responses = ask(&mut stream, &names, &nonce, &snapshot);
            let Some(response) = responses.pop() else {
                break;
            };
            assert_eq!(responses, [], "one response at a time");
            let message_size = response.encode(ProtocolVariant::Delta).len();
            assert!(response.resources.len() == 1 || message_size < 4 * MIB);
            got.push(response.resources.iter().map(|it| it.name().to_string()).collect());
            nonce = response.nonce;
        }
        assert_eq!(got, [vec!["a", "b"], vec!["c", "d"], vec!["e"], vec!["huge"]]);
    }
}

#[test]
fn a_full_set_is_never_split() {
    let resources = ["a", "b", "c", "d"].map(|name| {
        let message = Cluster { alt_stat_name: "x".repeat(MIB), ..Cluster::default() };
        Resource::new(ResourceType::Cluster, name, &message)
    });
    let snapshot = snapshot(resources);
    let mut stream = Stream::new(ProtocolVariant::Sotw, "replica");
    let request = DiscoveryRequest {
        type_url: ResourceType::Cluster.type_url().to_owned(),
        ..DiscoveryRequest::default()
    };
    let responses = stream.handle_sotw(request.into(), &told(&snapshot), AT).unwrap();
    assert_eq!(responses[0].resources.len(), 4);
}

#[test]
fn an_answer_is_to_the_revision_that_was_sent() {
    let kind = ResourceType::Endpoints;
    let first = snapshot([endpoints("a", 1)]);
    let mut stream = Stream::new(ProtocolVariant::Delta, "replica");
    stream.handle_delta(subscribe(&["a"]), &told(&first), AT).unwrap();
    assert_eq!(stream.unanswered_since(), Some((kind, AT)));
    assert!(!stream.is_owed(kind));
    stream.handle_delta(answer("1", None), &told(&first), AT).unwrap();
    assert_eq!(stream.unanswered_since(), None);
    assert_eq!(stream.receipt(), Some(&Receipt::Acked { kind, revision: 1 }));

    let second = first.with_changes(7, [ResourceChange::Put(endpoints("a", 2))]);
    stream.snapshot_changed(&after(&first, &second), AT);
    stream.handle_delta(answer("2", Some("too long")), &told(&second), AT).unwrap();
    let names = vec!["a".into()];
    let reason = "too long".to_owned();
    assert_eq!(stream.receipt(), Some(&Receipt::Nacked { kind, revision: 7, names, reason }));
    let (kind, name, why) = stream.quarantined().next().unwrap();
    assert_eq!((kind, &**name, &*why.reason), (ResourceType::Endpoints, "a", "too long"));
}

#[test]
fn a_client_that_does_not_answer_is_owed_what_comes() {
    let kind = ResourceType::Endpoints;
    let first = snapshot([endpoints("a", 1)]);
    let mut stream = Stream::new(ProtocolVariant::Delta, "replica");
    stream.handle_delta(subscribe(&["a"]), &told(&first), AT).unwrap();
    let second = first.with_changes(7, [ResourceChange::Put(endpoints("a", 2))]);
    assert_eq!(stream.snapshot_changed(&after(&first, &second), AT), []);
    assert!(stream.is_owed(kind));
    assert_eq!(stream.next_deadline(), Some(AT + PATIENCE));
    assert_eq!(stream.tick(AT + PATIENCE), []);
    assert_eq!(stream.next_deadline(), None, "there is nothing to wait for");
}

#[test]
fn names_have_limits() {
    let snapshot = Snapshot::empty();
    let many: Vec<String> = (0..=MOST_NAMES).map(|it| it.to_string()).collect();
    let long = "x".repeat(LONGEST_NAME + 1);
    let mut delta = Stream::new(ProtocolVariant::Delta, "replica");
    let mut request = subscribe(&[]);
    request.resource_names_subscribe = many[..MOST_NAMES].to_vec();
    delta.handle_delta(request, &told(&snapshot), AT).unwrap();
    let another = delta.handle_delta(subscribe(&["another"]), &told(&snapshot), AT);
    assert_eq!(another, Err(Violation::TooManyNames));
    assert_eq!(
        delta.handle_delta(subscribe(&[&long]), &told(&snapshot), AT),
        Err(Violation::LongName)
    );
    let mut claims = subscribe(&[]);
    claims.initial_resource_versions = many.iter().map(|it| (it.clone(), String::new())).collect();
    let mut delta = Stream::new(ProtocolVariant::Delta, "replica");
    assert_eq!(delta.handle_delta(claims, &told(&snapshot), AT), Err(Violation::TooManyNames));

    let mut sotw = Stream::new(ProtocolVariant::Sotw, "replica");
    let request = DiscoveryRequest {
        type_url: ResourceType::Endpoints.type_url().to_owned(),
        resource_names: many,
        ..DiscoveryRequest::default()
    };
    assert_eq!(
        sotw.handle_sotw(request.into(), &told(&snapshot), AT),
        Err(Violation::TooManyNames)
    );
}

#[test]
fn a_stream_speaks_one_variant() {
    let snapshot = Snapshot::empty();
    let mut delta = Stream::new(ProtocolVariant::Delta, "replica");
    let mut sotw = Stream::new(ProtocolVariant::Sotw, "replica");
    assert_eq!(
        delta.handle_sotw(DiscoveryRequest::default().into(), &told(&snapshot), AT),
        Err(Violation::OtherVariant)
    );
    assert_eq!(
        sotw.handle_delta(subscribe(&[]), &told(&snapshot), AT),
        Err(Violation::OtherVariant)
    );
}

#[test]
fn a_client_is_described_by_its_node() {
    let version = SemanticVersion { major_number: 1, minor_number: 40, patch: 0 };
    let build = BuildVersion { version: Some(version), metadata: None };
    let node = Node {
        id: "front".to_owned(),
        cluster: "edge".to_owned(),
        locality: Some(Locality { zone: "z1".to_owned(), ..Locality::default() }),
        user_agent_name: "envoy".to_owned(),
        user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
        client_features: vec!["xds.config.resource-in-sotw".to_owned()],
        ..Node::default()
    };
    let request = DeltaDiscoveryRequest { node: Some(node), ..subscribe(&[]) };
    let mut stream = Stream::new(ProtocolVariant::Delta, "replica");
    assert_eq!(stream.client(), None);
    stream.handle_delta(request, &told(&Snapshot::empty()), AT).unwrap();
    assert_eq!(
        stream.client(),
        Some(&Client {
            id: "front".to_owned(),
            cluster: "edge".to_owned(),
            user_agent: "envoy 1.40.0".to_owned(),
            zone: "z1".to_owned(),
            features: vec!["xds.config.resource-in-sotw".to_owned()],
        })
    );
}

fn ask(stream: &mut Stream, names: &[&str], nonce: &str, snapshot: &Snapshot) -> Vec<Response> {
    let responses = match stream.variant() {
        ProtocolVariant::Delta if nonce.is_empty() => {
            stream.handle_delta(subscribe(names), &told(snapshot), AT)
        }
        ProtocolVariant::Delta => stream.handle_delta(answer(nonce, None), &told(snapshot), AT),
        ProtocolVariant::Sotw => stream.handle_sotw(
            DiscoveryRequest {
                type_url: ResourceType::Endpoints.type_url().to_owned(),
                resource_names: names.iter().map(ToString::to_string).collect(),
                response_nonce: nonce.to_owned(),
                ..DiscoveryRequest::default()
            }
            .into(),
            &told(snapshot),
            AT,
        ),
    };
    responses.unwrap()
}

/// A snapshot without a change that concerns the client.
fn told(snapshot: &Snapshot) -> Latest {
    Latest { snapshot: snapshot.clone(), since: None }
}

fn after(earlier: &Snapshot, snapshot: &Snapshot) -> Latest {
    Latest { snapshot: snapshot.clone(), since: Some(earlier.clone()) }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: ResourceType::Endpoints.type_url().to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn answer(nonce: &str, error: Option<&str>) -> DeltaDiscoveryRequest {
    let error_detail = error.map(|it| Status { message: it.to_owned(), ..Status::default() });
    DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), error_detail, ..subscribe(&[]) }
}

fn snapshot(resources: impl IntoIterator<Item = Resource>) -> Snapshot {
    Snapshot::empty().with_changes(1, resources.into_iter().map(ResourceChange::Put))
}

fn endpoints(name: &str, size: usize) -> Resource {
    let message = ClusterLoadAssignment {
        cluster_name: "x".repeat(size),
        ..ClusterLoadAssignment::default()
    };
    Resource::new(ResourceType::Endpoints, name, &message)
}
