//! The conversation on one stream: what happens, what the machine answers, and when it ends.

use std::{fmt, sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use discovery::{
    resource::ResourceType,
    stream::{Claim, Notice, Receipt, Response, Stream, Violation},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::{Code, Status};

use super::{
    alarm::Alarm,
    frames::Tails,
    mesh_check::check_mesh,
    outlet::Outlet,
    requests::Requests,
    text::{Few, Untrusted},
    variant::ProtocolVariant,
};
use crate::{
    clients::{StreamGuard, StreamPolicy},
    config::StreamDeadlines,
    publish::Seat,
    shared::Shared,
};

/// How long a client may leave a response unanswered before a warning is logged.
const ANSWER_WARNING: Duration = Duration::from_secs(30);

/// How long a stop waits for the first request of a stream that was sent nothing yet. A client whose
/// stream ends before that counts it as a failed connection (gRFC A57).
const FIRST_RESPONSE_GRACE: Duration = Duration::from_millis(500);

/// How long a client that holds resources waits for a quorum to confirm that this server has
/// everything.
const CONFIRMATION_PATIENCE: Duration = Duration::from_secs(3);

/// The time over which streams are ended when this server has no quorum, so that not all end at
/// once.
const DRAIN_WITHIN: Duration = Duration::from_secs(4);

/// How long a client that found no quorum at other servers is served, before it must try them
/// again.
const STALE_STREAM_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// One ADS stream and its client.
pub(super) struct Conversation<V: ProtocolVariant> {
    stream: Stream,
    io: StreamIo,
    guard: StreamGuard,
    shared: Arc<Shared>,
    seat: Seat,
    alarm: Alarm,
    policy: StreamPolicy,
    opened: Instant,
    /// Whether a quorum that was asked after the stream began has confirmed that this server has
    /// everything; none until a quorum was asked.
    confirmed: Option<bool>,
    /// The place among [`StreamIo::first_syncs`], held until the connection has taken the first
    /// responses.
    first_sync: Option<OwnedSemaphorePermit>,
    sent_any: bool,
    warned: bool,
    /// When the stream is to end because this server has no quorum.
    drain_at: Option<Instant>,
    /// When the stream ends at the latest, and why, once that is decided.
    stop_by: Option<(Instant, End)>,
    end: End,
    variant: std::marker::PhantomData<fn() -> V>,
}

/// What the conversation receives from its client and sends to it.
pub(super) struct StreamIo {
    /// The type of a stream that is of one type alone.
    pub(super) only: Option<ResourceType>,
    pub(super) requests: Requests,
    pub(super) outlet: Outlet,
    pub(super) tails: Arc<Tails>,
    pub(super) first_syncs: Arc<Semaphore>,
}

/// Why a stream ended.
#[derive(Clone)]
enum End {
    /// The client has closed it, or is gone.
    Closed,
    /// The client does not answer.
    Unanswered,
    /// The server stops.
    Stopping,
    /// The client may find a quorum at another server.
    Draining,
    /// The client broke the protocol or must try another server, or the connection failed.
    Failed(Status),
}

/// What happens to a stream.
enum Event {
    Request(Option<Result<Bytes, Status>>),
    /// A change concerns the client, or the server changes its ways.
    Called,
    Deadline,
}

impl<V: ProtocolVariant> Conversation<V> {
    pub(super) fn new(
        control_plane_id: Arc<str>,
        io: StreamIo,
        guard: StreamGuard,
        shared: Arc<Shared>,
    ) -> Self {
        let opened = Instant::now();
        let policy = *shared.policy.borrow();
        let draining = policy == StreamPolicy::Drain;
        let drain_at = draining.then(|| opened + STALE_STREAM_LIFETIME);
        Self {
            stream: Stream::new(V::VARIANT, control_plane_id),
            io,
            guard,
            seat: shared.board.join(),
            shared,
            alarm: Alarm::default(),
            policy,
            opened,
            confirmed: None,
            first_sync: None,
            sent_any: false,
            warned: false,
            drain_at,
            stop_by: None,
            end: End::Closed,
            variant: std::marker::PhantomData,
        }
    }

    /// Talks to the client until the end. Returns the status that ends the stream.
    pub(super) async fn run(mut self) -> Status {
        loop {
            let step = self.step().await;
            let sent = match step {
                Ok(responses) => {
                    self.send(responses).await;
                    Ok(())
                }
                Err(end) => Err(end),
            };
            if let Err(end) = sent {
                self.end = end;
                break;
            }
            self.publish_notices();
        }
        match &self.end {
            End::Failed(status) => status.clone(),
            End::Unanswered => Status::deadline_exceeded(format!(
                "a response was not answered for {} s; begin again for the latest state",
                self.deadlines().answer.as_secs()
            )),
            End::Closed | End::Stopping | End::Draining => Status::ok(""),
        }
    }

    /// Waits for the next event and returns the machine's responses to it.
    async fn step(&mut self) -> Result<Vec<Response>, End> {
        if let Some((_, end)) = self.stop_by.take_if(|_| self.sent_any) {
            return Err(end);
        }
        match self.event().await {
            Event::Request(Some(Ok(request))) => {
                let mut request = V::decode(request).map_err(End::Failed)?;
                if let Some(only) = self.io.only {
                    name_type(V::type_url_mut(&mut request), only).map_err(End::Failed)?;
                }
                self.handle(request).await
            }
            Event::Request(Some(Err(status))) => Err(End::Failed(as_client_error(status))),
            Event::Request(None) => Err(End::Closed),
            Event::Called => Ok(self.answer_call()),
            Event::Deadline => self.tick(),
        }
    }

    /// The next event. What the client is owed comes before the end of the stream.
    async fn event(&mut self) -> Event {
        let deadline = self.next_deadline();
        std::future::poll_fn(|context| {
            if let Poll::Ready(request) = self.io.requests.poll_next(context) {
                return Poll::Ready(Event::Request(request));
            }
            if self.seat.poll_called(context).is_ready() {
                return Poll::Ready(Event::Called);
            }
            self.alarm.poll(deadline, context).map(|()| Event::Deadline)
        })
        .await
    }

    /// The server has called: there is a change, another policy, or a stop.
    fn answer_call(&mut self) -> Vec<Response> {
        let latest = self.seat.take();
        let responses = match latest.since {
            Some(_) => self.stream.snapshot_changed(&latest, self.shared.now()),
            None => Vec::new(),
        };
        let policy = *self.shared.policy.borrow();
        if policy != self.policy {
            self.policy = policy;
            let draining = policy == StreamPolicy::Drain;
            self.drain_at = draining.then(|| Instant::now() + self.stagger(DRAIN_WITHIN));
        }
        if self.shared.stopping.is_cancelled() && self.stop_by.is_none() {
            self.end_soon(End::Stopping);
        }
        responses
    }

    /// Ends the stream at once if the client was sent a response. If not, the client has a moment
    /// to be sent its first one.
    fn end_soon(&mut self, end: End) {
        self.stop_by = Some((Instant::now() + FIRST_RESPONSE_GRACE, end));
    }

    /// The part of a time that this stream waits, so that streams are spread over it.
    fn stagger(&self, time: Duration) -> Duration {
        const SHARES: u32 = 64;
        let share = u32::try_from(self.guard.number % u64::from(SHARES)).unwrap_or(0);
        time * share / SHARES
    }

    /// Refuses a client of another mesh, which may have had servers at the same addresses.
    fn check_mesh(&self, request: &V::Request) -> Result<(), End> {
        let Some(node) = V::node(request) else { return Ok(()) };
        check_mesh(node, &self.shared.mesh_id()).map_err(End::Failed)
    }

    async fn handle(&mut self, request: V::Request) -> Result<Vec<Response>, End> {
        self.check_mesh(&request)?;
        let is_first = self.stream.client().is_none();
        self.check_not_behind(&request).await?;
        if !self.sent_any && self.first_sync.is_none() {
            self.first_sync = Arc::clone(&self.io.first_syncs).acquire_owned().await.ok();
        }
        let latest = self.seat.take();
        let responses = V::handle(&mut self.stream, request, &latest, self.shared.now());
        self.seat.wish(self.stream.take_wishes(), &latest.snapshot);
        let responses = responses.map_err(|violation| End::Failed(status_of(&violation)))?;
        if responses.is_empty() {
            self.first_sync = None;
        }
        if is_first && let Some(client) = self.stream.client() {
            tracing::Span::current()
                .record("client", tracing::field::display(Untrusted(&client.id)));
            self.guard.set_client(&Untrusted(&client.id).to_string());
            tracing::info!(
                cluster = %Untrusted(&client.cluster),
                agent = %Untrusted(&client.user_agent),
                "subscribed"
            );
        }
        self.trace_receipt();
        Ok(responses)
    }

    /// Refuses a client that holds resources, unless it is sure that this server takes it back to
    /// no earlier state.
    async fn check_not_behind(&mut self, request: &V::Request) -> Result<(), End> {
        let is_first = self.stream.is_first(V::type_url(request));
        if self.confirmed == Some(true) || !is_first || self.claim(request) == Claim::Nothing {
            return Ok(());
        }
        if self.confirmed.is_none() {
            let confirmed =
                self.shared.wait_for_quorum_after(self.opened, CONFIRMATION_PATIENCE).await;
            self.confirmed = Some(confirmed);
            if confirmed {
                return Ok(());
            }
        }
        let client = V::client(request).or_else(|| self.stream.client().map(|it| it.id.as_str()));
        let is_known = self.claim(request) == Claim::Known;
        if is_known && self.shared.may_serve_stale(client.unwrap_or_default()) {
            return Ok(());
        }
        Err(End::Failed(Status::unavailable(format!(
            "this server has no quorum, for {} s by now, and may be behind what the client knows; \
             keep what there is and try another server",
            self.shared.stale_for().as_secs()
        ))))
    }

    fn claim(&self, request: &V::Request) -> Claim {
        V::claim(request, &self.seat.latest())
    }

    /// When something happens without an event from outside.
    fn next_deadline(&self) -> Option<Instant> {
        let unanswered = self.stream.unanswered_since().map(|it| it.1);
        let warning = unanswered.filter(|_| !self.warned).map(|at| at + ANSWER_WARNING);
        let end = unanswered.filter(|_| self.is_owed()).map(|at| at + self.deadlines().answer);
        let next = [self.stream.next_deadline(), warning, end].into_iter().flatten().min();
        let next = next.map(|it| self.shared.moment(it));
        let drain_at = self.drain_at.filter(|_| self.stop_by.is_none());
        let stop_by = self.stop_by.as_ref().map(|it| it.0);
        [next, drain_at, stop_by].into_iter().flatten().min()
    }

    fn deadlines(&self) -> StreamDeadlines {
        self.shared.config.stream_deadlines
    }

    fn is_owed(&self) -> bool {
        ResourceType::all().into_iter().any(|kind| self.stream.is_owed(kind))
    }

    fn tick(&mut self) -> Result<Vec<Response>, End> {
        let moment = Instant::now();
        if let Some((_, end)) = self.stop_by.take_if(|it| it.0 <= moment) {
            return Err(end);
        }
        if self.drain_at.take_if(|it| *it <= moment).is_some() && self.stop_by.is_none() {
            self.end_soon(End::Draining);
        }
        let now = self.shared.now();
        if let Some((kind, since)) = self.stream.unanswered_since() {
            let id = self.stream.client().map_or("", |client| &client.id);
            if now >= since + self.deadlines().answer && self.is_owed() {
                tracing::warn!(
                    client = %Untrusted(id),
                    r#type = %kind,
                    "the client does not answer; its stream is ended"
                );
                return Err(End::Unanswered);
            }
            if now >= since + ANSWER_WARNING && !self.warned {
                self.warned = true;
                tracing::warn!(
                    client = %Untrusted(id),
                    r#type = %kind,
                    waited = ?(now - since),
                    "the client has not answered a response"
                );
            }
        }
        Ok(self.stream.tick(now))
    }

    fn trace_receipt(&self) {
        let id = self.stream.client().map_or("", |client| &client.id);
        match self.stream.receipt() {
            Some(Receipt::Nacked { kind, revision, names, reason }) => {
                self.guard.count_rejection();
                let (client, resources) = (Untrusted(id), Few(names));
                let reason = Untrusted(reason);
                // Otherwise the stream searches for the rejected resources and logs them once it
                // has found them.
                if names.is_empty() {
                    tracing::warn!(%client, r#type = %kind, %reason, "rejected what it had accepted");
                } else {
                    tracing::debug!(%client, r#type = %kind, revision, %resources, %reason, "rejected");
                }
            }
            Some(Receipt::UnknownType { type_url }) => {
                let type_url = Untrusted(type_url);
                tracing::debug!(%type_url, "the client asked for a type that is not served");
            }
            Some(Receipt::Acked { kind, revision }) => {
                tracing::trace!(r#type = %kind, revision, "accepted");
            }
            Some(receipt @ (Receipt::Asked { .. } | Receipt::Stale { .. })) => {
                tracing::trace!(?receipt, "request");
            }
            None => {}
        }
    }

    /// Logs and counts for operators what has changed.
    fn publish_notices(&mut self) {
        let since = self.stream.unanswered_since().map(|it| it.1);
        self.warned &= since.is_some();
        self.guard.set_unanswered_since(since);
        let notices = self.stream.take_notices();
        let client = Untrusted(self.stream.client().map_or("", |client| &client.id));
        for notice in &notices {
            match notice {
                Notice::Quarantined { kind, name, reason } => tracing::warn!(
                    %client,
                    r#type = %kind,
                    resource = %Untrusted(name),
                    reason = %Untrusted(reason),
                    "the client does not take a resource; it keeps what it had, and is asked again"
                ),
                Notice::Recovered { kind, name } => tracing::info!(
                    %client,
                    r#type = %kind,
                    resource = %Untrusted(name),
                    "the client takes a resource that it had rejected"
                ),
            }
        }
        let rejected = self.stream.quarantined();
        self.guard.set_rejected(
            rejected.map(|(kind, name, why)| (kind, name.clone(), Arc::clone(&why.reason))),
        );
    }

    /// Sends responses, and waits until the connection has taken them.
    async fn send(&mut self, responses: Vec<Response>) {
        for response in &responses {
            tracing::trace!(
                type_url = &*response.type_url,
                nonce = response.nonce,
                resources = response.resources.len(),
                removed = response.removed.len(),
                "response"
            );
            let (own, shared) = self.io.tails.frame(response, V::VARIANT);
            self.io.outlet.push(own);
            if let Some(shared) = shared {
                self.io.outlet.push(shared);
            }
        }
        if !responses.is_empty() {
            self.io.outlet.taken().await;
            self.sent_any = true;
            self.first_sync = None;
        }
    }
}

impl<V: ProtocolVariant> Drop for Conversation<V> {
    fn drop(&mut self) {
        self.seat.withdraw(self.stream.withdraw());
        match self.stream.client() {
            Some(_) => tracing::info!(end = %self.end, "unsubscribed"),
            None => tracing::debug!(end = %self.end, "the stream ended"),
        }
    }
}

/// Gives a request the type of its stream. It need not name one, and may name no other.
fn name_type(type_url: &mut String, only: ResourceType) -> Result<(), Status> {
    if type_url.is_empty() {
        only.type_url().clone_into(type_url);
    }
    if type_url == only.type_url() {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "this service serves {} alone, not {}; the aggregated service serves all types",
        only.type_url(),
        Untrusted(type_url)
    )))
}

fn status_of(violation: &Violation) -> Status {
    match violation {
        Violation::NoTypeUrl | Violation::OtherVariant | Violation::NoText => {
            Status::invalid_argument(violation.to_string())
        }
        Violation::TooManyNames | Violation::LongName => {
            Status::resource_exhausted(violation.to_string())
        }
    }
}

/// A request that cannot be decoded is the client's fault; tonic gives it the code INTERNAL.
fn as_client_error(status: Status) -> Status {
    if status.code() == Code::Internal {
        return Status::invalid_argument(status.message());
    }
    status
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the client"),
            Self::Unanswered => f.write_str("the client does not answer"),
            Self::Stopping => f.write_str("the server stops"),
            Self::Draining => f.write_str("the server has no quorum"),
            Self::Failed(status) => write!(f, "{}", Untrusted(&status.to_string())),
        }
    }
}
