//! One ADS connection as a state machine: requests, snapshots and time in, responses out.
//!
//! Both variants of the protocol, delta and state-of-the-world (SotW), share the machine. Per
//! resource type it keeps the client's subscription and at most one response that the client has
//! not answered. Changes meanwhile are not queued: the next response is made from the latest
//! snapshot, so a slow client gets the latest state and never a backlog. A response is never made
//! from two snapshots.
//!
//! # Make before break
//!
//! A route must not name a cluster that the client does not know, and a cluster must not vanish
//! while a route names it (xDS protocol, "Eventual consistency considerations"). So:
//!
//! * a client is taken from one snapshot to the next as a whole. Clusters, listeners and routes of
//!   a later snapshot wait until everything of the one before has been sent. So clusters that are
//!   added faster than a client answers do not delay its listeners and routes, and routes that keep
//!   changing do not delay removals. Endpoints do not wait: they always come from the latest
//!   snapshot;
//! * clusters and endpoints are sent as soon as their own type has no unanswered response. A
//!   client that never ACKs a cluster still gets its endpoints;
//! * listeners and routes wait while a response with a new or changed cluster, or with endpoints
//!   that some cluster waits for, is unanswered or still to be sent. Further endpoints of a known
//!   cluster delay nothing, so a fleet that keeps changing cannot starve its routes;
//! * routes are removed once no listener is to be sent or unanswered, clusters once no listener and
//!   no route is, endpoints once also no cluster is. A SotW response is a full set, so a removed
//!   cluster stays in it until then. A listener that was sent is in use only when the client has
//!   asked for its routes, so removals wait for that too. A delta client that reconnects with
//!   resources is sent removals only when it has asked for its listeners and routes.
//!
//! Only types that the client subscribed to are waited for, and a type that others wait for never
//! waits itself. So gRPC clients, which ask for a listener first and for clusters last, are
//! answered at once. A NACK ends the wait as an ACK does. So does [`PATIENCE`]: a client that never
//! answers is still sent everything, in the right order, but after that time.
//!
//! # Warming
//!
//! A client that gets a changed cluster waits for its endpoints before it uses it. So after a
//! cluster that the client did not have, its endpoints are always sent: even if they did not
//! change, were rejected before or do not exist, and even if a reconnecting client claims to have
//! them.
//!
//! # Rejected responses
//!
//! A NACK rejects a response, not a resource; the client may have applied a part of it. The same
//! response is never sent again. Its resources that the client had not accepted before are sent in
//! smaller and smaller groups, so that all but the bad ones are accepted; in a full set the other
//! resources keep the content that was accepted last. A resource rejected alone is [tried
//! again](Quarantine) after growing pauses, when its content changes, and when the client asks for
//! it again.
//!
//! # Types this server does not know
//!
//! Real clients also ask for types that are of later versions or of other servers. Such a request
//! does not end the stream. In the delta variant every requested name is answered
//! with its removal and a wildcard with an empty response, so that the client's start does not
//! wait. SotW cannot say that a resource does not exist, so no response is sent and the client's
//! own timer runs out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use thiserror::Error;

use crate::lease::Time;
use crate::resource::{Name, ResourceType};
use crate::snapshot::Snapshot;

mod channel;
mod claims;
mod client;
mod order;
mod rejections;
mod request;
mod response;
mod subscription;
#[cfg(test)]
mod tests;
mod told;

use channel::{Answer, Channel};
pub use claims::Claim;
pub use client::Client;
pub use rejections::Quarantine;
pub use request::{Malformed, SotwRequest};
pub use response::Response;
use told::Between;
pub use told::{Latest, Wish};

/// Longest wait for a client: for its answer to a response, or for a request that must follow a
/// response.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Most names of one type that a client may ask for, or claim to hold. A mesh has fewer.
pub const MOST_NAMES: usize = 1 << 16;

/// Greatest length of a name that a client may ask for, in bytes.
pub const LONGEST_NAME: usize = 2 << 10;

/// The two variants of the protocol. A stream speaks one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolVariant {
    Delta,
    Sotw,
}

/// A request that ends the stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    #[error("an ADS request needs a type_url")]
    NoTypeUrl,
    #[error("a stream speaks one variant of the protocol")]
    OtherVariant,
    #[error("a client may ask for {MOST_NAMES} names of a type at most")]
    TooManyNames,
    #[error("a name may have {LONGEST_NAME} bytes at most")]
    LongName,
    #[error("a name must be UTF-8")]
    NoText,
}

/// The meaning of a request, for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It subscribed or unsubscribed.
    Asked { kind: ResourceType },
    /// It accepted the response that was made from the snapshot of this revision.
    Acked { kind: ResourceType, revision: u64 },
    /// It rejected that response, for the reason that the client gave.
    Nacked { kind: ResourceType, revision: u64, names: Vec<Name>, reason: String },
    /// It was sent before the client saw the latest response.
    Stale { kind: ResourceType },
    /// It asked for a type that this server does not know.
    UnknownType { type_url: String },
}

/// Something that an operator should see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The client rejected this resource alone. The name `*` stands for a full set that it rejected
    /// as a whole.
    Quarantined { kind: ResourceType, name: Name, reason: Arc<str> },
    /// The client has accepted it since.
    Recovered { kind: ResourceType, name: Name },
}

/// One ADS connection.
#[derive(Debug)]
pub struct Stream {
    variant: ProtocolVariant,
    control_plane: Arc<str>,
    client: Option<Client>,
    receipt: Option<Receipt>,
    notices: Vec<Notice>,
    now: Time,
    /// None while the client has everything: a stream at rest keeps no snapshot alive.
    between: Option<Between>,
    channels: [Option<Box<Channel>>; ResourceType::COUNT],
    /// What sent resources refer to and the client has not asked for yet, with the time when they
    /// were sent.
    unasked: BTreeMap<(ResourceType, Name), Time>,
    wishes: Vec<Wish>,
    /// The client held resources before this stream, so types that it has not asked for yet may be
    /// in use.
    is_reconnected: bool,
    /// Since when listeners and routes wait for clusters and endpoints; below, since when removals
    /// wait.
    users_wait: Option<Time>,
    removals_wait: Option<Time>,
    /// Number of nonces used, over all types.
    nonces: u64,
}

impl Stream {
    /// A stream before its first request. The id tells clients which server they talk to.
    pub fn new(variant: ProtocolVariant, control_plane_id: impl Into<Arc<str>>) -> Self {
        Self {
            variant,
            control_plane: control_plane_id.into(),
            client: None,
            receipt: None,
            notices: Vec::new(),
            now: Time::ZERO,
            between: None,
            channels: Default::default(),
            unasked: BTreeMap::new(),
            wishes: Vec::new(),
            is_reconnected: false,
            users_wait: None,
            removals_wait: None,
            nonces: 0,
        }
    }

    /// Handles a request of the delta variant.
    pub fn handle_delta(
        &mut self,
        request: DeltaDiscoveryRequest,
        latest: &Latest,
        now: Time,
    ) -> Result<Vec<Response>, Violation> {
        self.begin(ProtocolVariant::Delta, request.node.as_ref(), latest, now)?;
        let (subscribe, unsubscribe) =
            (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
        check_names(subscribe, request.initial_resource_versions.len())?;
        let Some(kind) = self.known_type(&request.type_url)? else {
            return Ok(self.answer_unknown_type(&request));
        };

        self.catch_up_to(kind, subscribe);
        let snapshot = self.snapshot(kind);
        let is_first = self.channels[kind.index()].is_none();
        let variant = self.variant;
        let channel = self.channels[kind.index()]
            .get_or_insert_with(|| Box::new(Channel::new(kind, variant)));
        let (subscription, wishes) = (&mut channel.subscription, &mut self.wishes);
        subscription.adjust(subscribe, unsubscribe, &snapshot, wishes);
        if subscription.names() > MOST_NAMES {
            return Err(Violation::TooManyNames);
        }
        if is_first {
            if subscribe.is_empty() {
                subscription.begin_unnamed(&snapshot, wishes);
            }
            let versions = &request.initial_resource_versions;
            self.is_reconnected |= !versions.is_empty();
            let claims = versions.iter().map(|(name, version)| (&**name, &**version));
            // A reconnecting client's claim to hold endpoints is not believed if it was just sent
            // their cluster. Its claim to hold routes is: they are no part of a listener's warming.
            let doubted = if kind.is_sent_again() {
                self.unasked.keys().filter(|it| it.0 == kind).map(|it| it.1.clone()).collect()
            } else {
                BTreeSet::new()
            };
            subscription.claim(claims, &doubted, &snapshot);
        }
        self.note_asked(kind);

        // In this variant a nonce only identifies a response: the subscriptions of a request count
        // whatever its nonce is.
        let answer = Answer::new(&request.response_nonce, request.error_detail);
        self.handle_answer(kind, &answer, Receipt::Asked { kind });
        Ok(self.advance())
    }

    /// Handles a request of the state-of-the-world variant.
    pub fn handle_sotw(
        &mut self,
        mut request: SotwRequest,
        latest: &Latest,
        now: Time,
    ) -> Result<Vec<Response>, Violation> {
        self.begin(ProtocolVariant::Sotw, request.head.node.as_ref(), latest, now)?;
        let Some(kind) = self.known_type(&request.head.type_url)? else {
            return Ok(Vec::new());
        };

        let is_first = self.channels[kind.index()].is_none();
        let variant = self.variant;
        let channel = self.channels[kind.index()]
            .get_or_insert_with(|| Box::new(Channel::new(kind, variant)));
        let list = request.list();
        let error = request.head.error_detail.take();
        let answer = Answer::new(&request.head.response_nonce, error);
        let is_stale = channel.is_stale(&answer, self.nonces);
        if is_stale && !channel.is_unanswered() {
            self.receipt = Some(Receipt::Stale { kind });
            return Ok(Vec::new());
        }
        // "ACK and NACK": a request that was made before the client saw the latest response is not
        // answered; the client's answer to that response will repeat its names. But the names must
        // be taken: if a name is missing here and is back in that answer, the client has dropped
        // the resource in between.
        if !channel.subscription.is_repeated(list) {
            let names = request.names()?;
            check_names(&names, 0)?;
            self.replace_names(kind, &names, is_first.then_some(&request.head.version_info));
        }
        let otherwise = if is_stale { Receipt::Stale { kind } } else { Receipt::Asked { kind } };
        self.handle_answer(kind, &answer, otherwise);
        Ok(self.advance())
    }

    /// Takes over the full list of names, and in the first request of a type the version of what
    /// the client holds.
    fn replace_names(&mut self, kind: ResourceType, names: &[String], version: Option<&String>) {
        self.catch_up_to(kind, names);
        let snapshot = self.snapshot(kind);
        if let Some(channel) = &mut self.channels[kind.index()] {
            let subscription = &mut channel.subscription;
            subscription.replace(names, &snapshot, &mut self.wishes);
            if let Some(version) = version {
                subscription.claim_set(version, &snapshot);
            }
        }
        self.note_asked(kind);
    }

    /// Takes the latest snapshot. Sends only what it changes for this client.
    pub fn snapshot_changed(&mut self, latest: &Latest, now: Time) -> Vec<Response> {
        self.update_snapshot(latest, now);
        self.advance()
    }

    /// Sends what became due by time alone. See [`Stream::next_deadline`].
    pub fn tick(&mut self, now: Time) -> Vec<Response> {
        self.now = now;
        self.advance()
    }

    /// When [`Stream::tick`] next has something to do, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Time> {
        let waits = [self.users_wait, self.removals_wait].into_iter().flatten();
        let parents = self.unasked.values().copied();
        let channels = self.channels.iter().flatten().filter_map(|it| it.next_deadline());
        // What was due by `self.now` has been sent, or waits for something else than time.
        let patience = waits.chain(parents).map(|at| at + PATIENCE);
        patience.chain(channels).filter(|at| *at > self.now).min()
    }

    /// The client, once its first request has come.
    pub const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    pub const fn variant(&self) -> ProtocolVariant {
        self.variant
    }

    /// The meaning of the latest request.
    pub const fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// Whether no request of a type has come yet.
    pub fn is_first(&self, type_url: &str) -> bool {
        let kind = ResourceType::from_type_url(type_url);
        kind.is_some_and(|it| self.channels[it.index()].is_none())
    }

    /// Takes back everything that the client wants, since the stream is closed.
    pub fn withdraw(&self) -> Vec<Wish> {
        self.channels.iter().flatten().flat_map(|it| it.subscription.withdraw()).collect()
    }

    /// Takes the changes of what the client wants, since the last call.
    pub fn take_wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }

    /// Takes the notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The resources that the client rejected one by one.
    pub fn quarantined(&self) -> impl Iterator<Item = (ResourceType, &Name, &Quarantine)> {
        let channels = self.channels.iter().flatten();
        channels.flat_map(|it| it.quarantined().map(move |(name, why)| (it.kind(), name, why)))
    }

    /// The response that the client has left unanswered for the longest time: its type, and when it
    /// was sent.
    pub fn unanswered_since(&self) -> Option<(ResourceType, Time)> {
        let channels = self.channels.iter().flatten();
        channels.filter_map(|it| Some((it.kind(), it.unanswered_since()?))).min_by_key(|it| it.1)
    }

    /// Whether something of a type is due that cannot be sent, because the client has not answered
    /// the previous response.
    pub fn is_owed(&self, kind: ResourceType) -> bool {
        let (Some(channel), Some(between)) = (&self.channels[kind.index()], &self.between) else {
            return false;
        };
        let is_due = channel.is_unanswered() && channel.subscription.has_due();
        is_due || (!kind.is_fresh() && between.latest.differs_from(&between.seen))
    }

    // === Requests ===

    fn begin(
        &mut self,
        variant: ProtocolVariant,
        node: Option<&Node>,
        latest: &Latest,
        now: Time,
    ) -> Result<(), Violation> {
        if variant != self.variant {
            return Err(Violation::OtherVariant);
        }
        // Only the first request of a stream must carry the node, and the node does not change.
        if self.client.is_none() {
            self.client = node.map(Client::from_node);
        }
        self.update_snapshot(latest, now);
        Ok(())
    }

    fn known_type(&mut self, type_url: &str) -> Result<Option<ResourceType>, Violation> {
        if type_url.is_empty() {
            return Err(Violation::NoTypeUrl);
        }
        let kind = ResourceType::from_type_url(type_url);
        if kind.is_none() {
            self.receipt = Some(Receipt::UnknownType { type_url: type_url.to_owned() });
        }
        Ok(kind)
    }

    fn answer_unknown_type(&mut self, request: &DeltaDiscoveryRequest) -> Vec<Response> {
        let asked = &request.resource_names_subscribe;
        let is_wildcard = asked.is_empty()
            && request.response_nonce.is_empty()
            && request.resource_names_unsubscribe.is_empty();
        if asked.is_empty() && !is_wildcard {
            return Vec::new();
        }
        let names: BTreeSet<&str> =
            asked.iter().map(String::as_str).filter(|name| *name != "*").collect();
        vec![Response {
            type_url: request.type_url.clone().into(),
            version: Default::default(),
            nonce: self.next_nonce().to_string(),
            control_plane: Arc::clone(&self.control_plane),
            resources: Arc::default(),
            removed: names.into_iter().map(Name::from).collect(),
        }]
    }

    /// The snapshot that the client is sent of a type. It is kept while a request is handled.
    fn snapshot(&self, kind: ResourceType) -> Snapshot {
        self.between.as_ref().map_or_else(Snapshot::empty, |it| it.of(kind).clone())
    }

    /// Switches to the latest snapshot at once if the client asks for a name that only that one
    /// has.
    fn catch_up_to(&mut self, kind: ResourceType, names: &[String]) {
        let Some(between) = self.between.as_ref().filter(|it| it.is_behind()) else { return };
        let is_new = |name: &String| {
            between.seen.get(kind, name).is_none() && between.latest.get(kind, name).is_some()
        };
        if names.iter().any(is_new) {
            self.switch_to_latest();
        }
    }

    fn note_asked(&mut self, kind: ResourceType) {
        if let Some(channel) = &self.channels[kind.index()] {
            let mut asked = channel.subscription.asked().peekable();
            // Both are in order.
            self.unasked.retain(|(of, name), _| {
                if *of != kind {
                    return true;
                }
                while asked.next_if(|it| *it < name).is_some() {}
                asked.peek() != Some(&name)
            });
        }
    }

    fn handle_answer(&mut self, kind: ResourceType, answer: &Answer<'_>, otherwise: Receipt) {
        let snapshot = self.snapshot(kind);
        let channel = self.channels[kind.index()].as_mut();
        let settled =
            channel.and_then(|it| it.handle_answer(answer, &snapshot, self.now, &mut self.notices));
        self.receipt = Some(settled.unwrap_or(otherwise));
    }

    fn next_nonce(&mut self) -> u64 {
        self.nonces += 1;
        self.nonces
    }
}

fn check_names(names: &[String], claims: usize) -> Result<(), Violation> {
    if names.len() > MOST_NAMES || claims > MOST_NAMES {
        return Err(Violation::TooManyNames);
    }
    if names.iter().any(|it| it.len() > LONGEST_NAME) {
        return Err(Violation::LongName);
    }
    Ok(())
}
