//! One ADS connection as a state machine: requests and snapshots in, responses out.
//!
//! Both variants of the protocol, delta and state-of-the-world (SotW), share the machine. Per
//! resource type it keeps the client's [subscription](subscription) and at most one
//! response that the client has not answered. What changes meanwhile is not queued: the next
//! response is made from the snapshot of its own time, so a slow client gets the latest state and
//! never a backlog. A response is never made from two snapshots.
//!
//! # Make before break
//!
//! A route must not name a cluster that the client does not know, and a cluster must not vanish
//! while a route names it (xDS protocol, "Eventual consistency considerations"). So:
//!
//! * clusters and endpoints are sent as soon as their own type has no unanswered response. A
//!   client that never ACKs a cluster still gets its endpoints;
//! * listeners and routes wait while a response with a new or changed cluster, or with endpoints
//!   that some cluster waits for, is unanswered or still to be sent. Further endpoints of a known
//!   cluster hold nothing up, so a fleet in steady motion cannot starve its routes;
//! * routes are removed once no listener is to be sent or unanswered, clusters once no listener
//!   and no route is, endpoints once also no cluster is. A SotW response is a full set, so a
//!   removed cluster stays in it until then.
//!
//! Only types that the client subscribed to are waited for, and what is waited for never waits
//! itself: gRPC clients, which ask for a listener first and for clusters last, are answered at
//! once. A NACK ends the wait as an ACK does.
//!
//! # Warming
//!
//! A client that gets a changed cluster waits for its endpoints before it uses it. So whenever a
//! cluster is sent that the client did not have, its endpoints are sent after it, changed or not,
//! and a reconnecting client's claim to have them is not believed.
//!
//! # Rejected responses
//!
//! A NACK rejects a response, not a resource; the client may have applied a part. The names in it
//! become unknown at the client and the same response is never sent again. Where a response need
//! not be a full set, its resources are sent again in smaller and smaller responses, so that all
//! but the bad one arrive; a resource rejected alone is sent again when its content changes, or
//! when the client asks for it again. A rejected full set is sent again when the set changes.
//!
//! # Types this server does not know
//!
//! Real clients ask for more than they need (secrets, runtime layers, scoped routes). Such a
//! request does not end the stream. In the delta variant every name asked for is answered with
//! its removal and a wildcard with an empty response, so that the client's start does not wait.
//! SotW has no word for "there is none", so no answer is given and the client's own timer runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use thiserror::Error;

use crate::resource::{Resource, ResourceType, Version};
use crate::snapshot::Snapshot;

mod channel;
mod client;
mod response;
mod subscription;
#[cfg(test)]
mod tests;

use channel::{Answer, Channel};
pub use client::Client;
pub use response::{DeltaMessage, Response, SotwMessage};
use subscription::{Batch, Due};

/// The two variants of the protocol. A stream speaks one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
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
}

/// What the latest request meant. For logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It asked for resources, or no longer did.
    Asked { kind: ResourceType },
    /// It accepted the response made from the snapshot of this revision.
    Acked { kind: ResourceType, revision: u64 },
    /// It rejected that response, for the reason given by the client.
    Nacked { kind: ResourceType, revision: u64, names: Vec<Arc<str>>, reason: String },
    /// It was sent before the client saw the latest response.
    Stale { kind: ResourceType },
    /// It asked for a type that this server does not know.
    UnknownType { type_url: String },
}

/// One ADS connection.
#[derive(Debug)]
pub struct Stream {
    variant: Variant,
    control_plane: Arc<str>,
    client: Option<Client>,
    receipt: Option<Receipt>,
    /// The snapshot that subscriptions were last compared with.
    seen: Snapshot,
    channels: [Option<Channel>; ResourceType::COUNT],
    /// Load assignments of clusters sent before the client first asked for endpoints.
    unasked: BTreeSet<Arc<str>>,
    /// SotW: removed clusters that stay in the full set until nothing uses them.
    retained: BTreeMap<Arc<str>, Resource>,
    /// Nonces given out, on all types.
    nonces: u64,
}

impl Stream {
    /// A stream before its first request. The id tells clients which server answers.
    pub fn new(variant: Variant, control_plane_id: String) -> Self {
        Self {
            variant,
            control_plane: control_plane_id.into(),
            client: None,
            receipt: None,
            seen: Snapshot::empty(),
            channels: Default::default(),
            unasked: BTreeSet::new(),
            retained: BTreeMap::new(),
            nonces: 0,
        }
    }

    /// Takes a request of the delta variant.
    pub fn handle_delta(
        &mut self,
        request: DeltaDiscoveryRequest,
        snapshot: &Snapshot,
    ) -> Result<Vec<Response>, Violation> {
        self.begin(Variant::Delta, request.node.as_ref(), snapshot)?;
        let Some(kind) = self.known_type(&request.type_url)? else {
            return Ok(self.answer_unknown_type(&request));
        };

        let is_first = self.channels[kind.index()].is_none();
        let channel =
            self.channels[kind.index()].get_or_insert_with(|| Channel::new(kind, self.variant));
        let subscription = &mut channel.subscription;
        let (subscribe, unsubscribe) =
            (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
        subscription.adjust(subscribe, unsubscribe, snapshot);
        if is_first {
            if subscribe.is_empty() {
                subscription.begin_unnamed(snapshot);
            }
            let versions = &request.initial_resource_versions;
            let claims = versions.iter().map(|(name, version)| (&**name, &**version));
            let doubted = match kind {
                ResourceType::Endpoints => std::mem::take(&mut self.unasked),
                ResourceType::Cluster | ResourceType::Listener | ResourceType::Route => {
                    BTreeSet::new()
                }
            };
            subscription.claim(claims, &doubted);
        }

        // Nonces only correlate in this variant: subscriptions count whatever the nonce is.
        let answer = Answer::new(&request.response_nonce, request.error_detail);
        self.receipt = Some(channel.settle(&answer).unwrap_or(Receipt::Asked { kind }));
        Ok(self.flush(snapshot))
    }

    /// Takes a request of the state-of-the-world variant.
    pub fn handle_sotw(
        &mut self,
        request: DiscoveryRequest,
        snapshot: &Snapshot,
    ) -> Result<Vec<Response>, Violation> {
        self.begin(Variant::Sotw, request.node.as_ref(), snapshot)?;
        let Some(kind) = self.known_type(&request.type_url)? else {
            return Ok(Vec::new());
        };

        let channel =
            self.channels[kind.index()].get_or_insert_with(|| Channel::new(kind, self.variant));
        let answer = Answer::new(&request.response_nonce, request.error_detail);
        let is_stale = channel.is_stale(&answer, self.nonces);
        if is_stale && !channel.is_unanswered() {
            self.receipt = Some(Receipt::Stale { kind });
            return Ok(Vec::new());
        }
        // "ACK and NACK": a request made before the client saw the latest response is not
        // answered, and the answer to that response will repeat its names. But a name that is
        // missing here and is back by then was dropped by the client in between.
        channel.subscription.replace(&request.resource_names, snapshot);
        let otherwise = if is_stale { Receipt::Stale { kind } } else { Receipt::Asked { kind } };
        self.receipt = Some(channel.settle(&answer).unwrap_or(otherwise));
        Ok(self.flush(snapshot))
    }

    /// Takes the next snapshot. Only what it changes for this client is sent.
    pub fn snapshot_changed(&mut self, snapshot: &Snapshot) -> Vec<Response> {
        self.observe(snapshot);
        self.flush(snapshot)
    }

    /// Who is connected, once the first request said so.
    pub const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    pub const fn variant(&self) -> Variant {
        self.variant
    }

    /// What the latest request meant.
    pub const fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// The version of a resource that the client accepted last.
    pub fn acked(&self, kind: ResourceType, name: &str) -> Option<Version> {
        self.channels[kind.index()].as_ref()?.subscription.acked(name)
    }

    /// The types with a response that the client has not answered.
    pub fn unanswered(&self) -> impl Iterator<Item = ResourceType> {
        ResourceType::all()
            .into_iter()
            .filter(|kind| self.channels[kind.index()].as_ref().is_some_and(Channel::is_unanswered))
    }

    // === Requests ===

    fn begin(
        &mut self,
        variant: Variant,
        node: Option<&Node>,
        snapshot: &Snapshot,
    ) -> Result<(), Violation> {
        if variant != self.variant {
            return Err(Violation::OtherVariant);
        }
        // Only the first request of a stream is sure to carry the node, and it does not change.
        if self.client.is_none() {
            self.client = node.map(Client::from_node);
        }
        self.observe(snapshot);
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
            nonce: self.next_nonce(),
            control_plane: Arc::clone(&self.control_plane),
            resources: Vec::new(),
            removed: names.into_iter().map(Arc::from).collect(),
        }]
    }

    // === Responses ===

    /// Notes which names differ from the snapshot seen before.
    fn observe(&mut self, snapshot: &Snapshot) {
        let earlier = std::mem::replace(&mut self.seen, snapshot.clone());
        for channel in self.channels.iter_mut().flatten() {
            let names = snapshot.changed_since(&earlier, channel.kind());
            channel.subscription.changed(names.iter().cloned());
            if channel.kind() == ResourceType::Cluster && self.variant == Variant::Sotw {
                self.retained.retain(|name, _| snapshot.get(ResourceType::Cluster, name).is_none());
                let gone = names
                    .iter()
                    .filter(|name| channel.subscription.due(name, snapshot) == Due::Retire)
                    .filter_map(|name| earlier.get(ResourceType::Cluster, name));
                self.retained.extend(gone.map(|it| (Arc::clone(it.name()), it.clone())));
            }
        }
    }

    /// Sends what may be sent, in make-before-break order.
    fn flush(&mut self, snapshot: &Snapshot) -> Vec<Response> {
        use ResourceType::{Cluster, Endpoints, Listener, Route};

        for channel in self.channels.iter_mut().flatten() {
            channel.prune(snapshot);
        }
        let mut responses = Vec::new();
        let unused = self.is_settled(Listener, snapshot) && self.is_settled(Route, snapshot);
        responses.extend(self.send(Cluster, unused, snapshot));
        let unused = unused && self.is_settled(Cluster, snapshot);
        responses.extend(self.send(Endpoints, unused, snapshot));
        if !self.must_precede(Cluster, snapshot) && !self.must_precede(Endpoints, snapshot) {
            responses.extend(self.send(Listener, true, snapshot));
            let unused = self.is_settled(Listener, snapshot);
            responses.extend(self.send(Route, unused, snapshot));
        }
        responses
    }

    fn send(&mut self, kind: ResourceType, retire: bool, snapshot: &Snapshot) -> Option<Response> {
        let channel = self.channels[kind.index()].as_mut()?;
        let batch = channel.take(snapshot, retire, &self.retained)?;
        if kind == ResourceType::Cluster {
            if retire {
                self.retained.clear();
            }
            self.warm(&batch.awaits);
        }
        Some(self.respond(kind, batch, snapshot))
    }

    fn respond(&mut self, kind: ResourceType, batch: Batch, snapshot: &Snapshot) -> Response {
        let nonce = self.next_nonce();
        if let Some(channel) = &mut self.channels[kind.index()] {
            channel.sent(nonce.clone(), &batch, snapshot.revision());
        }
        Response {
            type_url: kind.type_url().into(),
            version: snapshot.type_version(kind),
            nonce,
            control_plane: Arc::clone(&self.control_plane),
            resources: batch.puts,
            removed: batch.gone,
        }
    }

    /// The client waits for these load assignments.
    fn warm(&mut self, load_assignments: &[Arc<str>]) {
        match &mut self.channels[ResourceType::Endpoints.index()] {
            Some(channel) => {
                for name in load_assignments {
                    channel.subscription.send_again(name);
                }
            }
            None => self.unasked.extend(load_assignments.iter().cloned()),
        }
    }

    /// Whether the client has everything of a type and has said so.
    fn is_settled(&self, kind: ResourceType, snapshot: &Snapshot) -> bool {
        self.channels[kind.index()].as_ref().is_none_or(|channel| channel.is_settled(snapshot))
    }

    /// Whether listeners and routes wait for this type.
    fn must_precede(&self, kind: ResourceType, snapshot: &Snapshot) -> bool {
        self.channels[kind.index()].as_ref().is_some_and(|it| it.must_precede(snapshot))
    }

    fn next_nonce(&mut self) -> String {
        self.nonces += 1;
        self.nonces.to_string()
    }
}
