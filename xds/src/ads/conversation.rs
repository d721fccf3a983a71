//! The task of one stream.

use std::{fmt, sync::Arc, time::Duration};

use discovery::{
    snapshot::Snapshot,
    stream::{Receipt, Response, Stream},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::variant::Variant;

/// How long a client may leave a response untaken. One that takes longer is stuck: its stream is
/// closed, and it gets the latest state when it comes back. Long enough for the largest response
/// on a slow line.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// How long a stop waits for the first request of a stream that was sent nothing yet. A client whose
/// stream ends before that counts it as a failed connection (gRFC A57).
const FIRST_RESPONSE_GRACE: Duration = Duration::from_millis(500);

/// How long the reason for the end of a stream may wait for room behind the response before it.
const LAST_WORD_DEADLINE: Duration = Duration::from_secs(1);

/// One ADS stream and its connection.
pub(super) struct Conversation<V: Variant> {
    stream: Stream,
    requests: Streaming<V::Request>,
    responses: mpsc::Sender<Result<V::Response, Status>>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    stopping: CancellationToken,
    /// What a client is told that holds something already; none if there was a quorum when the
    /// stream began.
    stale: Option<Status>,
    sent_any: bool,
    /// When the stream ends at the latest, once the server stops.
    stop_by: Option<Instant>,
}

/// Why a stream ended.
enum End {
    /// The client is done with it, or gone.
    Closed,
    /// The client does not read.
    Stuck,
    /// The server stops.
    Stopping,
    /// The client broke the protocol, or the connection failed.
    Failed(Status),
}

impl<V: Variant> Conversation<V> {
    pub(super) fn new(
        control_plane_id: String,
        requests: Streaming<V::Request>,
        responses: mpsc::Sender<Result<V::Response, Status>>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        stopping: CancellationToken,
        stale: Option<Status>,
    ) -> Self {
        let stream = Stream::new(V::VARIANT, control_plane_id);
        let (sent_any, stop_by) = (false, None);
        Self { stream, requests, responses, snapshots, stopping, stale, sent_any, stop_by }
    }

    pub(super) async fn run(mut self) {
        let end = loop {
            let step = self.step().await;
            let sent = match step {
                Ok(responses) => self.send(responses).await,
                Err(end) => Err(end),
            };
            if let Err(end) = sent {
                break end;
            }
        };
        tracing::debug!(%end, "the stream ended");
        if let End::Failed(status) = end {
            // Nobody may be left to read it.
            let _ = timeout(LAST_WORD_DEADLINE, self.responses.send(Err(status))).await;
        }
    }

    /// Waits for something to happen and asks the machine what to say to it.
    async fn step(&mut self) -> Result<Vec<Response>, End> {
        let stopping = self.stop_by.is_some();
        if stopping && self.sent_any {
            return Err(End::Stopping);
        }
        tokio::select! {
            // A stop comes last: what the client is owed is sent before.
            biased;
            () = self.responses.closed() => Err(End::Closed),
            request = self.requests.message() => match request {
                Ok(Some(request)) => self.take(request),
                Ok(None) => Err(End::Closed),
                Err(status) => Err(End::Failed(blame(status))),
            },
            changed = self.snapshots.changed() => match changed {
                Ok(()) => {
                    let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
                    Ok(self.stream.snapshot_changed(&snapshot))
                }
                Err(_) => Err(End::Stopping),
            },
            () = self.stopping.cancelled(), if !stopping => {
                self.stop_by = Some(Instant::now() + FIRST_RESPONSE_GRACE);
                Ok(Vec::new())
            }
            () = sleep_until(self.stop_by.unwrap_or_else(Instant::now)), if stopping => {
                Err(End::Stopping)
            }
        }
    }

    fn take(&mut self, request: V::Request) -> Result<Vec<Response>, End> {
        if let Some(stale) = self.stale.take_if(|_| V::holds_something(&request)) {
            return Err(End::Failed(stale));
        }
        let is_first = self.stream.client().is_none();
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let responses = V::handle(&mut self.stream, request, &snapshot)
            .map_err(|violation| End::Failed(Status::invalid_argument(violation.to_string())))?;
        if is_first && let Some(client) = self.stream.client() {
            tracing::Span::current().record("client", &client.id);
            tracing::debug!(cluster = client.cluster, agent = client.user_agent, "subscribed");
        }
        self.trace();
        Ok(responses)
    }

    fn trace(&self) {
        match self.stream.receipt() {
            Some(Receipt::Nacked { kind, revision, names, reason }) => {
                let id = self.stream.client().map_or("", |client| &client.id);
                tracing::warn!(
                    client = id,
                    r#type = %kind,
                    revision,
                    resources = ?Few(names),
                    reason,
                    "the client rejected a response"
                );
            }
            Some(Receipt::UnknownType { type_url }) => {
                tracing::debug!(type_url, "the client asked for a type that is not served");
            }
            Some(
                receipt @ (Receipt::Asked { .. } | Receipt::Acked { .. } | Receipt::Stale { .. }),
            ) => {
                tracing::trace!(?receipt, "request");
            }
            None => {}
        }
    }

    async fn send(&mut self, responses: Vec<Response>) -> Result<(), End> {
        for response in responses {
            tracing::trace!(
                type_url = &*response.type_url,
                nonce = response.nonce,
                resources = response.resources.len(),
                removed = response.removed.len(),
                "response"
            );
            let message = V::message(&response);
            match timeout(WRITE_DEADLINE, self.responses.send(Ok(message))).await {
                Ok(Ok(())) => self.sent_any = true,
                Ok(Err(_)) => return Err(End::Closed),
                Err(_) => {
                    let id = self.stream.client().map_or("", |client| &client.id);
                    tracing::warn!(client = id, "the client does not read; its stream is closed");
                    return Err(End::Stuck);
                }
            }
        }
        Ok(())
    }
}

/// A request that cannot be decoded is the client's fault, which tonic does not tell.
fn blame(status: Status) -> Status {
    if status.code() == Code::Internal {
        return Status::invalid_argument(status.message());
    }
    status
}

/// Names for a log line: the first ones, and how many there are.
struct Few<'a>(&'a [Arc<str>]);

impl fmt::Debug for Few<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 5;
        f.debug_list().entries(self.0.iter().take(SHOWN)).finish()?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the client"),
            Self::Stuck => f.write_str("the client does not read"),
            Self::Stopping => f.write_str("the server stops"),
            Self::Failed(status) => write!(f, "{status}"),
        }
    }
}
