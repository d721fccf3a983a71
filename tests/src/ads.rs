//! A client of delta ADS that shows what a server sends, resource by resource.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::kv::channel;

pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// Requests under way; a test never has more.
const REQUEST_QUEUE: usize = 16;

/// What a client holds, by type and name: the version of each resource.
pub type Held = BTreeMap<String, BTreeMap<String, String>>;

/// One open stream.
#[derive(Debug)]
pub struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    pub held: Held,
}

/// The names in one response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub type_url: String,
    pub put: Vec<String>,
    pub removed: Vec<String>,
}

impl Client {
    /// Opens a stream and subscribes: `*` to clusters, the named ones to endpoints. What is `held`
    /// from another stream is told first.
    pub async fn open(server: SocketAddr, endpoints: &[&str], held: Held) -> Self {
        let (requests, rx) = mpsc::channel(REQUEST_QUEUE);
        let mut ads = AggregatedDiscoveryServiceClient::new(channel(server));
        let mut clusters = first(CLUSTER, &["*"], &held);
        clusters.node = Some(Node { id: "raw".to_owned(), ..Node::default() });
        requests.send(clusters).await.expect("the queue is open");
        requests.send(first(ENDPOINTS, endpoints, &held)).await.expect("the queue is open");
        let responses = ads
            .delta_aggregated_resources(ReceiverStream::new(rx))
            .await
            .expect("the server serves ADS")
            .into_inner();
        Self { requests, responses, held }
    }

    /// The next response, acknowledged and added to what is held; none if the server is silent.
    pub async fn next(&mut self, within: Duration) -> Option<Update> {
        let response = timeout(within, self.responses.message()).await.ok()?;
        let response = response.expect("the stream holds").expect("the stream stays open");
        let held = self.held.entry(response.type_url.clone()).or_default();
        let mut put = Vec::new();
        for resource in response.resources {
            put.push(resource.name.clone());
            held.insert(resource.name, resource.version);
        }
        for name in &response.removed_resources {
            held.remove(name);
        }
        let ack = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(ack).await.expect("the queue is open");
        let removed = response.removed_resources;
        Some(Update { type_url: response.type_url, put, removed })
    }
}

fn first(type_url: &str, names: &[&str], held: &Held) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        initial_resource_versions: held
            .get(type_url)
            .cloned()
            .unwrap_or_default()
            .into_iter()
            .collect(),
        ..DeltaDiscoveryRequest::default()
    }
}
