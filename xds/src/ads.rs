//! Aggregated discovery (ADS), both variants, over gRPC.
//!
//! One task serves one stream: it passes requests and snapshots to a
//! [`Stream`](discovery::stream::Stream) and sends the responses of that machine to the client. A
//! task that was busy finds only the latest snapshot, never those in between, so nothing is queued
//! for a slow client.
//!
//! No client is taken back to a state before the one that it has seen. A client that holds
//! resources from another stream waits until a quorum, asked after this stream began, has confirmed
//! that this server has everything. Without a quorum the client is refused, unless this server has
//! all that the client holds and the client has found no quorum at other servers. An open stream
//! outlives a lost quorum for a while; then it is ended if its client may find a quorum at another
//! server.
//!
//! A client that does not answer a response is counted in the metrics and logged. If the unanswered
//! response holds back others, the stream is ended after a deadline, and the client comes back for
//! the latest state.
//!
//! The service is written by hand. The generated one would need each response as a struct of its
//! own; here the resources of a response are bytes that all streams share. The services of single
//! types (CDS, EDS, …) are not offered; they would be more paths to the same task.

use std::{
    convert::Infallible,
    fmt,
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mesh::node_hex;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Body as HttpBody, BoxFuture, Service, StdError, http},
    server::{Grpc, NamedService, StreamingService},
};
use tonic_prost::ProstCodec;
use tracing::Instrument;

pub(crate) use self::elsewhere::watch_other_servers;
use self::{
    conversation::{StreamIo, StreamTask},
    variant::{Delta, ProtocolVariant, Sotw},
};
use crate::{MESSAGE_LIMIT, shared::Shared};

mod conversation;
mod elsewhere;
mod mesh_check;
mod text;
mod variant;

/// Responses that the connection has not taken yet. One is enough: the next one is made from what
/// is the latest snapshot by then.
const RESPONSE_QUEUE: usize = 1;

/// How many streams get their first responses at the same time. More would not finish sooner, and
/// would keep the runtime from answering pings.
const FIRST_SYNCS: usize = 32;

const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
const STREAM_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The ADS gRPC service. Clones serve the same streams.
#[derive(Clone)]
pub struct AdsServer {
    streams: Arc<Streams>,
}

/// What all streams share.
struct Streams {
    /// Tells clients which server, and which build of it, answers.
    control_plane_id: String,
    shared: Arc<Shared>,
    first_syncs: Arc<Semaphore>,
}

impl AdsServer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let node_id = node_hex(shared.host.identity().node_id);
        let control_plane_id = format!("{node_id}/quorate-{}", shared.config.version);
        let first_syncs = Arc::new(Semaphore::new(FIRST_SYNCS));
        let streams = Streams { control_plane_id, shared, first_syncs };
        Self { streams: Arc::new(streams) }
    }
}

impl Streams {
    /// Starts the task of a stream, unless this server has not caught up: an empty response would
    /// tell the client to drop everything.
    fn open<V: ProtocolVariant>(
        &self,
        connection: Option<SocketAddr>,
        requests: Streaming<V::Request>,
    ) -> Result<ReceiverStream<Result<V::Response, Status>>, Status> {
        self.shared.admit_stream()?;
        let guard = self.shared.clients.open_stream(connection)?;
        let (responses, outgoing) = mpsc::channel(RESPONSE_QUEUE);
        let stream = guard.number;
        let io = StreamIo { requests, responses, first_syncs: Arc::clone(&self.first_syncs) };
        let conversation = StreamTask::<V>::new(
            self.control_plane_id.clone(),
            io,
            guard,
            Arc::clone(&self.shared),
        );
        let span =
            tracing::info_span!("ads", stream, variant = V::NAME, client = tracing::field::Empty,);
        self.shared.tasks.spawn(conversation.run().instrument(span));
        Ok(ReceiverStream::new(outgoing))
    }
}

/// One method of the service.
struct Method<V> {
    streams: Arc<Streams>,
    variant: PhantomData<V>,
}

impl<V: ProtocolVariant> StreamingService<V::Request> for Method<V> {
    type Response = V::Response;
    type ResponseStream = ReceiverStream<Result<V::Response, Status>>;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<V::Request>>) -> Self::Future {
        let opened = self.streams.open::<V>(request.remote_addr(), request.into_inner());
        Box::pin(std::future::ready(opened.map(Response::new)))
    }
}

fn answer<V, B>(
    streams: &Arc<Streams>,
    request: http::Request<B>,
) -> BoxFuture<http::Response<Body>, Infallible>
where
    V: ProtocolVariant,
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    let method = Method::<V> { streams: Arc::clone(streams), variant: PhantomData };
    Box::pin(async move {
        let codec = ProstCodec::<V::Response, V::Request>::default();
        let mut grpc = Grpc::new(codec)
            .apply_max_message_size_config(Some(MESSAGE_LIMIT), Some(MESSAGE_LIMIT));
        Ok(grpc.streaming(method, request).await)
    })
}

impl<B> Service<http::Request<B>> for AdsServer
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match request.uri().path() {
            STREAM_PATH => answer::<Sotw, B>(&self.streams, request),
            DELTA_PATH => answer::<Delta, B>(&self.streams, request),
            path => {
                let status = Status::unimplemented(format!("there is no method {path}"));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

impl NamedService for AdsServer {
    const NAME: &'static str = SERVICE;
}

impl fmt::Debug for AdsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdsServer")
            .field("control_plane_id", &self.streams.control_plane_id)
            .finish_non_exhaustive()
    }
}
