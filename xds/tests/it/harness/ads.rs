//! Raw ADS clients: they send what a test tells them to, and acknowledge what they receive.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::Node,
            endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
            listener::v3::Listener,
        },
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::rpc::Status as Rejection,
};
use prost::Message;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{ENDPOINTS, PATIENCE, QUIET, Server};

pub(crate) struct Delta {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

pub(crate) struct Sotw {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Delta {
    pub(crate) async fn open(server: &Server) -> Result<Self, Status> {
        Self::open_on(server.channel()).await
    }

    pub(crate) async fn open_on(channel: Channel) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(16);
        // Headers come back before the first request.
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?;
        Ok(Self { requests, responses: responses.into_inner() })
    }

    pub(crate) async fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// Subscribes to names of a type, with what the client has already.
    pub(crate) async fn subscribe(
        &self,
        type_url: &str,
        names: &[&str],
        has: BTreeMap<String, String>,
    ) {
        self.send(DeltaDiscoveryRequest {
            node: Some(Node { id: "test".to_owned(), ..Node::default() }),
            type_url: type_url.to_owned(),
            resource_names_subscribe: names.iter().map(|it| (*it).to_owned()).collect(),
            initial_resource_versions: has.into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    /// The next response, acknowledged.
    pub(crate) async fn receive(&mut self) -> DeltaDiscoveryResponse {
        let response = self.receive_raw().await.expect("the stream failed").expect("it ended");
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
        response
    }

    pub(crate) async fn receive_raw(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        timeout(PATIENCE, self.responses.message()).await.expect("no response in time")
    }

    /// Receives until the endpoints of a cluster are these.
    pub(crate) async fn receive_endpoints(&mut self, cluster: &str, wanted: &[&str]) {
        loop {
            let response = self.receive().await;
            let found = response.resources.iter().find(|it| it.name == cluster);
            if response.type_url == ENDPOINTS
                && let Some(resource) = found
                && addresses(&resource.resource.as_ref().unwrap().value) == wanted
            {
                return;
            }
        }
    }

    pub(crate) async fn assert_quiet(&mut self) {
        if let Ok(response) = timeout(QUIET, self.responses.message()).await {
            panic!("expected nothing, got {response:?}");
        }
    }
}

impl Sotw {
    pub(crate) async fn open(server: &Server) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(16);
        let mut client = AggregatedDiscoveryServiceClient::new(server.channel());
        let responses = client.stream_aggregated_resources(ReceiverStream::new(outgoing)).await?;
        Ok(Self { requests, responses: responses.into_inner() })
    }

    pub(crate) async fn send(&self, request: DiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn subscribe(&self, type_url: &str, names: &[&str]) {
        self.subscribe_holding(type_url, names, "").await;
    }

    /// Subscribes as a client that holds a version from another stream.
    pub(crate) async fn subscribe_holding(&self, type_url: &str, names: &[&str], version: &str) {
        self.send(DiscoveryRequest {
            node: Some(Node { id: "test".to_owned(), ..Node::default() }),
            type_url: type_url.to_owned(),
            resource_names: names.iter().map(|it| (*it).to_owned()).collect(),
            version_info: version.to_owned(),
            ..DiscoveryRequest::default()
        })
        .await;
    }

    /// The next response, acknowledged with these names.
    pub(crate) async fn receive(&mut self, names: &[&str]) -> DiscoveryResponse {
        let response = timeout(PATIENCE, self.responses.message()).await.expect("no response");
        let response = response.expect("the stream failed").expect("the stream ended");
        let ack = DiscoveryRequest {
            type_url: response.type_url.clone(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: names.iter().map(|it| (*it).to_owned()).collect(),
            ..DiscoveryRequest::default()
        };
        self.requests.send(ack).await.unwrap();
        response
    }

    /// The names of the listeners in the next response, which is rejected if one of these is in it.
    pub(crate) async fn receive_unless(&mut self, names: &[&str], bad: &[&str]) -> Vec<String> {
        let response = self.receive_raw().await.expect("the stream failed").expect("it ended");
        let listeners = response.resources.iter();
        let mut found: Vec<String> =
            listeners.map(|it| Listener::decode(&*it.value).expect("a listener").name).collect();
        found.sort();
        let culprits: Vec<&str> =
            bad.iter().copied().filter(|it| found.iter().any(|name| name == it)).collect();
        let error_detail = (!culprits.is_empty()).then(|| Rejection {
            code: 13,
            message: format!("{}: cannot bind", culprits.join(", ")),
            ..Rejection::default()
        });
        let answer = DiscoveryRequest {
            type_url: response.type_url,
            version_info: response.version_info,
            response_nonce: response.nonce,
            resource_names: names.iter().map(|it| (*it).to_owned()).collect(),
            error_detail,
            ..DiscoveryRequest::default()
        };
        self.requests.send(answer).await.unwrap();
        found
    }

    pub(crate) async fn receive_raw(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        timeout(PATIENCE, self.responses.message()).await.expect("no response in time")
    }

    pub(crate) async fn assert_quiet(&mut self) {
        if let Ok(response) = timeout(QUIET, self.responses.message()).await {
            panic!("expected nothing, got {response:?}");
        }
    }
}

/// The resources of a response with their versions, as a client names them on its next stream.
pub(crate) fn versions(response: &DeltaDiscoveryResponse) -> BTreeMap<String, String> {
    response.resources.iter().map(|it| (it.name.clone(), it.version.clone())).collect()
}

/// Where the endpoints of an encoded load assignment are.
pub(crate) fn addresses(assignment: &[u8]) -> Vec<String> {
    let assignment = ClusterLoadAssignment::decode(assignment).unwrap();
    let endpoints = assignment.endpoints.into_iter().flat_map(|it| it.lb_endpoints);
    let mut found: Vec<String> = endpoints
        .map(|it| {
            let Some(HostIdentifier::Endpoint(endpoint)) = it.host_identifier else {
                panic!("an endpoint without an address")
            };
            format!("{:?}", endpoint.address.unwrap().address.unwrap())
        })
        .map(|text| socket_address(&text))
        .collect();
    found.sort();
    found
}

/// Reads `address: "IP"` and `PortValue(N)` from the debug form, which spares the tests four
/// nested optional messages.
fn socket_address(text: &str) -> String {
    let part = |from: &str, to: char| {
        let rest = &text[text.find(from).expect(from) + from.len()..];
        rest[..rest.find(to).expect("an end")].to_owned()
    };
    format!("{}:{}", part("address: \"", '"'), part("PortValue(", ')'))
}
