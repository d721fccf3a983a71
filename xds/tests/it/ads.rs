//! Streams of discovery.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::{
            cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient,
            discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
            endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient,
        },
    },
    google::{
        protobuf::{Struct, Value, value::Kind},
        rpc::Status as Rejection,
    },
};
use mesh::MeshId;
use proto::quorate::v1::DeregisterRequest;
use tokio_stream::StreamExt as _;
use tonic::Code;

use crate::harness::{
    CLUSTER, Delta, Disk, ENDPOINTS, LISTENER, Server, Sotw, eventually, instance, register,
    versions,
};

async fn deregister(server: &Server, service: &str, id: &str) {
    let request = DeregisterRequest {
        service: service.to_owned(),
        id: id.to_owned(),
        ..DeregisterRequest::default()
    };
    server.registry().deregister(request).await.unwrap();
}

#[tokio::test]
async fn a_delta_client_follows_instances_and_nothing_else() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    let mut stream = Delta::open(&server).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    let first = stream.receive().await;
    assert_eq!((first.type_url.as_str(), first.resources.len()), (CLUSTER, 0));
    assert!(first.control_plane.unwrap().identifier.ends_with("/quorate-test"));

    let request = register(instance("orders", "o1", "10.0.0.1:80"));
    registry.register(request.clone()).await.unwrap();
    let clusters = stream.receive().await;
    assert_eq!(clusters.resources[0].name, "orders");
    stream.subscribe(ENDPOINTS, &["orders"], BTreeMap::new()).await;
    stream.receive_endpoints("orders", &["10.0.0.1:80"]).await;

    registry.register(request).await.unwrap();
    stream.assert_quiet().await;
    registry.register(register(instance("orders", "o2", "10.0.0.2:80"))).await.unwrap();
    stream.receive_endpoints("orders", &["10.0.0.1:80", "10.0.0.2:80"]).await;
    deregister(&server, "orders", "o1").await;
    stream.receive_endpoints("orders", &["10.0.0.2:80"]).await;
    stream.assert_quiet().await;
}

#[tokio::test]
async fn a_state_of_the_world_client_follows_too() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut stream = Sotw::open(&server).await.unwrap();
    stream.subscribe(CLUSTER, &[]).await;
    assert_eq!(stream.receive(&[]).await.resources, []);

    let mut registry = server.registry();
    registry.register(register(instance("orders", "o1", "10.0.0.1:80"))).await.unwrap();
    let clusters = stream.receive(&[]).await;
    assert_eq!((clusters.type_url.as_str(), clusters.resources.len()), (CLUSTER, 1));
    stream.subscribe(ENDPOINTS, &["orders"]).await;
    let endpoints = stream.receive(&["orders"]).await;
    assert_eq!((endpoints.type_url.as_str(), endpoints.resources.len()), (ENDPOINTS, 1));
    stream.assert_quiet().await;
}

#[tokio::test]
async fn a_restart_keeps_everything_and_resends_nothing() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    let request = register(instance("orders", "o1", "10.0.0.1:80"));
    let lease_id = registry.register(request).await.unwrap().into_inner().lease_id;
    let mut stream = Delta::open(&server).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    let first = stream.receive().await;
    let has = versions(&first);
    assert_eq!(has.len(), 1);
    server.stop().await;
    while let Ok(Some(_)) = stream.receive_raw().await {}

    let server = Server::single(&disk).await;
    server.ready().await;
    let mut stream = Delta::open(&server).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], has).await;
    stream.subscribe(ENDPOINTS, &["orders"], BTreeMap::new()).await;
    // The client has the cluster, so the first resource that it is sent is the load assignment.
    let response = stream.receive().await;
    let names: Vec<_> = response.resources.iter().map(|it| it.name.as_str()).collect();
    if response.type_url == CLUSTER {
        assert!(names.is_empty() && response.removed_resources.is_empty(), "{response:?}");
        stream.receive_endpoints("orders", &["10.0.0.1:80"]).await;
    } else {
        assert_eq!(names, ["orders"]);
    }
    let renew =
        proto::quorate::v1::RenewRequest { lease_ids: vec![lease_id], ..Default::default() };
    let renewed = server.registry().renew(renew).await.unwrap().into_inner();
    assert!(renewed.unknown.is_empty());
}

#[tokio::test]
async fn streams_wait_for_a_mesh() {
    let disk = Disk::new();
    let server = Server::member(&disk, Vec::new()).await;
    let refused = Delta::open(&server).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_malformed_request_ends_only_its_stream() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut broken = Delta::open(&server).await.unwrap();
    let mut other = Delta::open(&server).await.unwrap();
    broken.send(DeltaDiscoveryRequest::default()).await;
    assert_eq!(broken.receive_raw().await.unwrap_err().code(), Code::InvalidArgument);
    other.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    other.receive().await;
}

/// D12: the addresses in an Envoy's bootstrap may by now be those of another mesh's servers.
#[tokio::test]
async fn a_client_of_another_mesh_is_refused_and_one_of_ours_or_of_none_is_served() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let (ours, theirs) = (server.mesh_id(), MeshId::generate().to_string());
    for mesh in [None, Some(&*ours)] {
        let (mut delta, mut sotw) = streams_of(&server, mesh).await;
        assert_eq!(delta.receive_raw().await.unwrap().unwrap().type_url, CLUSTER);
        assert_eq!(sotw.receive_raw().await.unwrap().unwrap().type_url, CLUSTER);
    }
    let (mut delta, mut sotw) = streams_of(&server, Some(&theirs)).await;
    let refusals = [delta.receive_raw().await.err(), sotw.receive_raw().await.err()];
    for refused in refusals {
        let refused = refused.unwrap();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let names_both = refused.message().contains(&ours) && refused.message().contains(&theirs);
        assert!(names_both, "{refused}");
    }
}

/// Asks for all clusters as a client whose bootstrap names a mesh, or none.
async fn streams_of(server: &Server, mesh: Option<&str>) -> (Delta, Sotw) {
    let of_one =
        |key: &str, kind| Struct { fields: [(key.to_owned(), Value { kind: Some(kind) })].into() };
    let metadata = mesh.map(|mesh| {
        let named = of_one("mesh", Kind::StringValue(mesh.to_owned()));
        of_one("quorate", Kind::StructValue(named))
    });
    let node = Some(Node { id: "test".to_owned(), metadata, ..Node::default() });
    let type_url = CLUSTER.to_owned();
    let delta = Delta::open(server).await.unwrap();
    delta
        .send(DeltaDiscoveryRequest {
            node: node.clone(),
            type_url: type_url.clone(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    let sotw = Sotw::open(server).await.unwrap();
    sotw.send(DiscoveryRequest { node, type_url, ..DiscoveryRequest::default() }).await;
    (delta, sotw)
}

#[tokio::test]
async fn a_client_that_asks_for_too_much_is_told_so() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut stream = Delta::open(&server).await.unwrap();
    let names: Vec<String> = (0..70_000).map(|it| it.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    stream.subscribe(ENDPOINTS, &names, BTreeMap::new()).await;
    let refused = stream.receive_raw().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("names"), "{refused}");
}

#[tokio::test]
async fn a_port_that_is_freed_brings_its_listener() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    for service in ["orders", "payments"] {
        registry.register(register(instance(service, "i1", "10.0.0.1:80"))).await.unwrap();
    }
    let mut stream = Sotw::open(&server).await.unwrap();
    stream.subscribe(LISTENER, &[]).await;
    let busy = "sidecar/payments";
    let names = stream.receive_unless(&[], &[busy]).await;
    assert_eq!(names, ["mesh/outbound", "sidecar/orders", busy]);
    let names = stream.receive_unless(&[], &[busy]).await;
    assert_eq!(names, ["mesh/outbound", "sidecar/orders"], "without it");
    // Other listeners still arrive. The busy one is sent again until its port is free.
    registry.register(register(instance("web", "i1", "10.0.0.2:80"))).await.unwrap();
    let mut rejections = 1;
    while rejections < 3 {
        let names = stream.receive_unless(&[], &[busy]).await;
        rejections += usize::from(names.iter().any(|it| it == busy));
    }
    loop {
        let names = stream.receive_unless(&[], &[]).await;
        if names.iter().any(|it| it == busy) {
            assert_eq!(names, ["mesh/outbound", "sidecar/orders", busy, "sidecar/web"]);
            break;
        }
    }
}

#[tokio::test]
async fn a_rejected_response_is_not_sent_again() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    registry.register(register(instance("orders", "o1", "10.0.0.1:80"))).await.unwrap();
    let mut stream = Delta::open(&server).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    let response = stream.receive_raw().await.unwrap().unwrap();
    let rejection = Rejection { code: 3, message: "no".to_owned(), ..Rejection::default() };
    stream
        .send(DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            error_detail: Some(rejection),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    stream.assert_quiet().await;
}

/// Finding D: a client that does not answer is sent nothing more, so its stream is of no use.
#[tokio::test]
async fn a_client_that_never_answers_is_let_go_and_one_that_answers_stays() {
    let disk = Disk::new();
    let server = Server::impatient(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    let mut answering = Delta::open(&server).await.unwrap();
    answering.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    answering.receive().await;
    let mut silent = Delta::open(&server).await.unwrap();
    silent.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    assert!(silent.receive_raw().await.unwrap().is_some());

    registry.register(register(instance("orders", "o1", "10.0.0.1:80"))).await.unwrap();
    assert_eq!(answering.receive().await.resources[0].name, "orders");
    let ended = silent.receive_raw().await.unwrap_err();
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended}");
    assert!(ended.message().contains("was not answered"), "{ended}");
    registry.register(register(instance("payments", "p1", "10.0.0.2:80"))).await.unwrap();
    assert_eq!(answering.receive().await.resources[0].name, "payments");
}

/// Finding D: what a client does not read stays in this server's memory.
#[tokio::test]
async fn a_client_that_never_reads_is_let_go_and_one_that_reads_stays() {
    // More responses than wait anywhere between the server and the client.
    const REQUESTS: usize = 50;
    let disk = Disk::new();
    let server = Server::impatient(&disk).await;
    server.ready().await;
    let mut reading = Delta::open(&server).await.unwrap();
    reading.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    reading.receive().await;
    let stuck = Delta::open_on(server.unread_channel()).await.unwrap();
    assert_eq!(server.disco.figures().xds_streams, 2);

    // In the delta variant a type that the server does not know is answered at once, each time.
    for _ in 0..REQUESTS {
        stuck.subscribe("type.googleapis.com/unknown", &["name"], BTreeMap::new()).await;
    }
    eventually("the stream is ended", || async {
        (server.disco.figures().xds_streams == 1).then_some(())
    })
    .await;
    let mut registry = server.registry();
    registry.register(register(instance("orders", "o1", "10.0.0.1:80"))).await.unwrap();
    assert_eq!(reading.receive().await.resources[0].name, "orders");
}

#[tokio::test]
async fn a_stop_ends_streams_after_what_they_were_owed() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut stream = Delta::open(&server).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    stream.receive().await;
    server.stop().await;
    assert!(matches!(stream.receive_raw().await, Ok(None)));
}

#[tokio::test]
async fn a_stream_that_was_sent_nothing_yet_is_sent_its_first_response_at_a_stop() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut stream = Delta::open(&server).await.unwrap();
    server.begin_stop();
    // From here on the server knows that it stops.
    eventually("new streams are refused", || async {
        Delta::open(&server).await.err().filter(|it| it.message().contains("stopping"))
    })
    .await;
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    assert_eq!(stream.receive_raw().await.unwrap().unwrap().type_url, CLUSTER);
    assert!(matches!(stream.receive_raw().await, Ok(None)));
    server.stop().await;
}

/// Rule 2: the type is implicit on the service of a type, and no other is served there.
#[tokio::test]
async fn each_type_has_a_service_of_its_own() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    registry.register(register(instance("orders", "o1", "10.0.0.1:80"))).await.unwrap();

    let mut clusters = ClusterDiscoveryServiceClient::new(server.channel());
    let request = DiscoveryRequest::default();
    let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
    let mut sotw = clusters.stream_clusters(requests).await.unwrap().into_inner();
    let response = sotw.message().await.unwrap().unwrap();
    assert_eq!(response.type_url, CLUSTER);
    assert!(response.resources.iter().any(|it| it.type_url == CLUSTER));

    let mut endpoints = EndpointDiscoveryServiceClient::new(server.channel());
    let request = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["orders".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
    let mut delta = endpoints.delta_endpoints(requests).await.unwrap().into_inner();
    let response = delta.message().await.unwrap().unwrap();
    assert_eq!((response.type_url.as_str(), response.resources.len()), (ENDPOINTS, 1));

    let other = DeltaDiscoveryRequest { type_url: CLUSTER.to_owned(), ..Default::default() };
    let requests = tokio_stream::iter([other]).chain(tokio_stream::pending());
    let mut refused = endpoints.delta_endpoints(requests).await.unwrap().into_inner();
    let status = refused.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("alone"), "{status}");

    let fetched = clusters.fetch_clusters(DiscoveryRequest::default()).await.unwrap_err();
    assert_eq!(fetched.code(), Code::Unimplemented, "{fetched}");
}
