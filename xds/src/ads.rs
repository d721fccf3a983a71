//! Aggregated discovery (ADS), both variants, over gRPC.
//!
//! One task serves one stream, that of its connection: it passes requests and snapshots to a
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
//! The service is written by hand, down to the frames of gRPC. The generated one would need each
//! response as a struct of its own and would copy it; here a response is bytes that streams share.
//! The services of single types (CDS, EDS, …) lead to the same streams.

use std::{fmt, sync::Arc, time::Duration};

use discovery::resource::ResourceType;
use mesh::{hangup::Line, node_hex};
use tokio::{sync::Semaphore, time::sleep};
use tonic::{Status, body::Body, codegen::http, service::RoutesBuilder};
use tracing::Instrument;

pub(crate) use self::elsewhere::watch_other_servers;
use self::{
    conversation::{Conversation, StreamIo},
    frames::Tails,
    outlet::{Outlet, StreamBody},
    requests::Requests,
    text::Untrusted,
    variant::ProtocolVariant,
};
use crate::shared::Shared;

mod alarm;
mod conversation;
mod elsewhere;
mod frames;
mod mesh_check;
mod methods;
mod outlet;
mod requests;
mod text;
mod variant;

/// How often streams are looked at whose client does not read.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many streams get their first responses at the same time. More would not finish sooner, and
/// would keep the runtime from answering pings.
const FIRST_SYNCS: usize = 32;

/// The gRPC services of discovery. Clones serve the same streams.
#[derive(Clone)]
pub(crate) struct AdsServer {
    streams: Arc<Streams>,
}

/// What all streams share.
struct Streams {
    /// Tells clients which server, and which build of it, answers.
    control_plane_id: Arc<str>,
    shared: Arc<Shared>,
    first_syncs: Arc<Semaphore>,
    tails: Arc<Tails>,
}

impl AdsServer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let node_id = node_hex(shared.host.identity().node_id);
        let control_plane_id = format!("{node_id}/quorate-{}", shared.config.version).into();
        let first_syncs = Arc::new(Semaphore::new(FIRST_SYNCS));
        let streams = Streams { control_plane_id, shared, first_syncs, tails: Arc::default() };
        Self { streams: Arc::new(streams) }
    }

    /// Adds the services of discovery: the aggregated one, and one for each type.
    pub(crate) fn add_services(&self, routes: &mut RoutesBuilder) {
        methods::add_services(self, routes);
    }

    /// Begins a stream, of one type alone if one is given.
    fn answer<V: ProtocolVariant>(
        &self,
        only: Option<ResourceType>,
        request: http::Request<Body>,
    ) -> http::Response<Body> {
        let (parts, body) = request.into_parts();
        let line = parts.extensions.get::<Line>().cloned().unwrap_or_default();
        match self.streams.open::<V>(only, line, body) {
            Ok(stream) => {
                let mut response = http::Response::new(Body::new(stream));
                let grpc = http::HeaderValue::from_static("application/grpc");
                response.headers_mut().insert(http::header::CONTENT_TYPE, grpc);
                response
            }
            Err(status) => status.into_http(),
        }
    }
}

impl Streams {
    /// Begins a stream, unless this server has not caught up: an empty response would tell the
    /// client to drop everything.
    fn open<V: ProtocolVariant>(
        &self,
        only: Option<ResourceType>,
        line: Line,
        body: Body,
    ) -> Result<StreamBody, Status> {
        let shared = &self.shared;
        shared.admit_stream()?;
        let guard = shared.clients.open_stream(line)?;
        let reading = guard.reading(shared.started());
        let outlet = Outlet::default();
        let io = StreamIo {
            only,
            requests: Requests::new(body),
            outlet: outlet.clone(),
            tails: Arc::clone(&self.tails),
            first_syncs: Arc::clone(&self.first_syncs),
        };
        let stream = guard.number;
        let span =
            tracing::info_span!("ads", stream, variant = V::NAME, client = tracing::field::Empty);
        let id = Arc::clone(&self.control_plane_id);
        let conversation = Conversation::<V>::new(id, io, guard, Arc::clone(shared));
        let running = shared.tasks.token();
        Ok(StreamBody::new(conversation.run().instrument(span), outlet, reading, running))
    }
}

/// Ends connections whose client does not read: what it was sent stays in this server's memory.
pub(crate) async fn watch_readers(shared: &Shared) {
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
        let patience = shared.config.stream_deadlines.read;
        for client in shared.clients.hang_up_unread(shared.now(), patience) {
            let client = Untrusted(&client);
            tracing::warn!(%client, "the client does not read; its connection is ended");
        }
    }
}

impl fmt::Debug for AdsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdsServer")
            .field("control_plane_id", &self.streams.control_plane_id)
            .finish_non_exhaustive()
    }
}
