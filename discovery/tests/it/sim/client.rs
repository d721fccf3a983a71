//! Simulated clients.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use discovery::interest::StreamNumber;
use discovery::lease::Time;
use discovery::resource::ResourceType;
use discovery::snapshot::Snapshot;
use discovery::stream::{ProtocolVariant, Response, Stream};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;
use rand::prelude::*;

use super::character::{Behavior, Character};
use super::wire::{Item, Message, Request, text_of};
use super::world::{SERVICES, World, is_bad, touched, uses};
use ResourceType::{Cluster, Endpoints, Listener, Route};

#[derive(Debug)]
pub(crate) struct Client {
    character: Character,
    types: [TypeState; ResourceType::COUNT],
    /// Clusters that are not used yet because they wait for endpoints.
    warming: BTreeSet<String>,
    reconnected: bool,
    /// Listeners whose port is in use.
    taken_ports: BTreeSet<String>,
    requests: VecDeque<Request>,
    responses: VecDeque<Message>,
    stream: Stream,
    /// None before the first connection.
    number: Option<StreamNumber>,
}

/// What the client wants and has, of one type.
#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: BTreeSet<String>,
    held: BTreeMap<String, Item>,
    /// SotW: the version of the response that was accepted last, on any stream.
    version: String,
    /// State of this stream: whether a request was made and whether one gave a name, the latest
    /// nonce, the number of unanswered responses, and the latest text of each name.
    asked: bool,
    named: bool,
    nonce: String,
    unanswered: usize,
    latest: BTreeMap<String, u64>,
    /// Whether a response came.
    served: bool,
    /// Whether the stream began with a version and no response on it was accepted yet.
    returned: bool,
}

impl Client {
    pub(crate) fn new(character: Character, rng: &mut StdRng) -> Self {
        let mut client = Self {
            character,
            types: Default::default(),
            warming: BTreeSet::new(),
            reconnected: false,
            taken_ports: BTreeSet::new(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            stream: Stream::new(character.variant, "replica"),
            number: None,
        };
        match character.behavior {
            Behavior::Envoy => {
                client.types[Cluster.index()].wildcard = true;
                client.types[Listener.index()].wildcard = true;
            }
            Behavior::Grpc => client.choose_targets(rng),
            Behavior::Wild => {
                for kind in ResourceType::all() {
                    client.types[kind.index()].wildcard =
                        kind.has_wildcard() && rng.random_bool(0.5);
                }
            }
        }
        client
    }

    // === Events ===

    /// Closes the connection, if there is one, and makes another.
    pub(crate) fn connect(&mut self, world: &mut World, rng: &mut StdRng) {
        self.reconnected |= self.types.iter().any(|it| it.asked);
        if let Some(number) = self.number {
            let seen = world.snapshot().clone();
            world.interest.wish(number, self.stream.withdraw(), &seen);
            world.interest.close(number);
        }
        self.number = Some(world.interest.open());
        self.stream = Stream::new(self.character.variant, "replica");
        self.requests.clear();
        self.responses.clear();
        for state in &mut self.types {
            *state = TypeState {
                wildcard: state.wildcard,
                names: std::mem::take(&mut state.names),
                held: std::mem::take(&mut state.held),
                returned: !state.version.is_empty(),
                version: std::mem::take(&mut state.version),
                ..TypeState::default()
            };
        }
        let mut kinds = ResourceType::all();
        if self.reconnected {
            kinds.shuffle(rng);
        }
        for kind in kinds {
            if self.state(kind).wildcard || !self.state(kind).names.is_empty() {
                let is_legacy = self.state(kind).names.is_empty() && rng.random_bool(0.5);
                self.ask_first(kind, is_legacy);
            }
        }
    }

    /// Tells the stream of changes that concern the client, if there are any.
    pub(crate) fn notify(&mut self, world: &mut World) {
        let number = self.number.expect("connected");
        if world.interest.is_marked(number) {
            let latest = world.interest.take(number);
            let responses = self.stream.snapshot_changed(&latest, world.now);
            self.sent(&responses);
        }
    }

    /// Calls the stream if its deadline has come.
    pub(crate) fn tick(&mut self, now: Time) {
        if self.stream.next_deadline().is_some_and(|at| at <= now) {
            let responses = self.stream.tick(now);
            self.sent(&responses);
        }
        let next = self.stream.next_deadline();
        assert!(next.is_none_or(|at| at > now), "a deadline is met for ever: {self:?}");
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.stream.next_deadline()
    }

    /// Frees the ports of all listeners.
    pub(crate) fn free_ports(&mut self) {
        self.taken_ports.clear();
    }

    /// Delivers a request to the server.
    pub(crate) fn take_request(&mut self, world: &mut World) {
        let Some(request) = self.requests.pop_front() else {
            return;
        };
        if request.is_answer {
            self.types[request.kind.index()].unanswered -= 1;
        }
        let number = self.number.expect("connected");
        let latest = world.interest.take(number);
        let type_url = request.kind.type_url().to_owned();
        let error_detail = request.error.map(|message| Status { message, ..Status::default() });
        let responses = match self.character.variant {
            ProtocolVariant::Delta => self.stream.handle_delta(
                DeltaDiscoveryRequest {
                    type_url,
                    resource_names_subscribe: request.names,
                    resource_names_unsubscribe: request.unsubscribe,
                    initial_resource_versions: request.have.into_iter().collect(),
                    response_nonce: request.nonce,
                    error_detail,
                    ..DeltaDiscoveryRequest::default()
                },
                &latest,
                world.now,
            ),
            ProtocolVariant::Sotw => self.stream.handle_sotw(
                DiscoveryRequest {
                    type_url,
                    resource_names: request.names,
                    version_info: request.version,
                    response_nonce: request.nonce,
                    error_detail,
                    ..DiscoveryRequest::default()
                }
                .into(),
                &latest,
                world.now,
            ),
        };
        world.interest.wish(number, self.stream.take_wishes(), &latest.snapshot);
        self.sent(&responses.expect("no client here breaks the protocol"));
    }

    /// Delivers a response to the client, which applies it, requests what it names, and answers.
    pub(crate) fn take_response(&mut self, rng: &mut StdRng) {
        let Some(message) = self.responses.pop_front() else {
            return;
        };
        let (kind, nonce) = (message.kind, message.nonce.clone());
        let bad: Vec<&str> = message
            .puts
            .iter()
            .filter(|(name, it)| self.rejects(kind, name, it))
            .map(|(name, _)| name.as_str())
            .collect();
        let said = if self.character.talkative { bad.join(": no; ") } else { String::new() };
        let error = (!bad.is_empty()).then_some(said);
        let version = message.version.clone();
        self.apply(message, error.is_some());
        let state = &mut self.types[kind.index()];
        state.nonce.clone_from(&nonce);
        if error.is_none() && self.character.variant == ProtocolVariant::Sotw {
            state.version = version;
            state.returned = false;
        }
        let answers_first = rng.random_bool(0.5);
        if answers_first {
            self.answer(kind, &nonce, error.clone());
        }
        self.follow();
        if !answers_first {
            self.answer(kind, &nonce, error.clone());
        }
        self.invariant_cluster_is_known_before_its_route();
    }

    /// Changes what the client wants.
    pub(crate) fn act(&mut self, rng: &mut StdRng) {
        if self.character.busy {
            self.taken_ports.clear();
            let services = SERVICES.into_iter().filter(|_| rng.random_bool(0.3));
            self.taken_ports.extend(services.map(|it| format!("sidecar/{it}")));
        }
        match self.character.behavior {
            Behavior::Envoy => {}
            Behavior::Grpc => {
                let names = self.state(Listener).names.clone();
                self.choose_targets(rng);
                let wanted = std::mem::replace(&mut self.types[Listener.index()].names, names);
                self.want(Listener, wanted);
                self.follow();
            }
            Behavior::Wild => match self.character.variant {
                ProtocolVariant::Delta => self.act_wild_delta(rng),
                ProtocolVariant::Sotw => self.act_wild_sotw(rng),
            },
        }
    }

    pub(crate) const fn is_silent(&self) -> bool {
        self.character.silent
    }

    pub(crate) fn has_messages(&self) -> bool {
        !self.requests.is_empty() || !self.responses.is_empty()
    }

    // === What it wants ===

    fn state(&self, kind: ResourceType) -> &TypeState {
        &self.types[kind.index()]
    }

    fn choose_targets(&mut self, rng: &mut StdRng) {
        let mut names: BTreeSet<String> =
            SERVICES.into_iter().filter(|_| rng.random_bool(0.4)).map(str::to_owned).collect();
        names.insert("nosuch".to_owned());
        self.types[Listener.index()].names = names;
    }

    fn act_wild_delta(&mut self, rng: &mut StdRng) {
        let kind = *ResourceType::all().choose(rng).expect("not empty");
        let pick = |rng: &mut StdRng| -> Vec<String> {
            let mut names: Vec<String> = SERVICES.iter().map(ToString::to_string).collect();
            names.extend(["nosuch", "front", "sidecar/s0"].map(str::to_owned));
            names.retain(|_| rng.random_bool(0.2));
            if kind.has_wildcard() && rng.random_bool(0.1) {
                names.push("*".to_owned());
            }
            names
        };
        let (names, unsubscribe) = (pick(rng), pick(rng));
        if !self.state(kind).asked && names.is_empty() {
            return;
        }
        let state = &mut self.types[kind.index()];
        for name in &unsubscribe {
            if name == "*" {
                state.wildcard = false;
            } else if state.names.remove(name) {
                state.held.remove(name);
            }
        }
        for name in &names {
            if name == "*" {
                state.wildcard = true;
            } else {
                state.names.insert(name.clone());
            }
        }
        state.forget_unwanted();
        // The client may have dropped names that it asks for again.
        self.push(kind, names, unsubscribe, String::new());
    }

    fn act_wild_sotw(&mut self, rng: &mut StdRng) {
        let kind = *ResourceType::all().choose(rng).expect("not empty");
        let mut names: BTreeSet<String> =
            SERVICES.into_iter().filter(|_| rng.random_bool(0.4)).map(str::to_owned).collect();
        if rng.random_bool(0.2) {
            names.insert("nosuch".to_owned());
        }
        let state = &mut self.types[kind.index()];
        let is_legacy = names.is_empty() && !state.named;
        state.wildcard = kind.has_wildcard() && (rng.random_bool(0.3) || is_legacy);
        let dropped: Vec<_> = state.names.difference(&names).cloned().collect();
        for name in dropped {
            state.held.remove(&name);
        }
        state.names = names;
        state.forget_unwanted();
        let names = state.list(is_legacy);
        let nonce = state.nonce.clone();
        self.push(kind, names, Vec::new(), nonce);
    }

    /// Requests what the client's resources name.
    fn follow(&mut self) {
        if self.character.behavior == Behavior::Wild {
            return;
        }
        let routes = self.used_by(Listener);
        self.want(Route, routes);
        if self.character.behavior == Behavior::Grpc {
            let clusters = self.used_by(Route);
            self.want(Cluster, clusters);
        }
        let clusters = self.state(Cluster).held.keys().cloned().collect();
        self.want(Endpoints, clusters);
    }

    fn used_by(&self, kind: ResourceType) -> BTreeSet<String> {
        let held = self.state(kind).held.values();
        held.flat_map(|it| uses(&it.text).map(str::to_owned)).collect()
    }

    fn want(&mut self, kind: ResourceType, names: BTreeSet<String>) {
        let state = &mut self.types[kind.index()];
        if state.names == names {
            return;
        }
        let old = std::mem::replace(&mut state.names, names);
        state.forget_unwanted();
        if kind == Cluster {
            let held = &state.held;
            self.warming.retain(|it| held.contains_key(it));
        }
        if !state.asked {
            self.ask_first(kind, false);
            return;
        }
        match self.character.variant {
            ProtocolVariant::Delta => {
                let added = state.names.difference(&old).cloned().collect();
                let dropped = old.difference(&state.names).cloned().collect();
                self.push(kind, added, dropped, String::new());
            }
            ProtocolVariant::Sotw => {
                let (names, nonce) = (state.list(false), state.nonce.clone());
                self.push(kind, names, Vec::new(), nonce);
            }
        }
    }

    fn ask_first(&mut self, kind: ResourceType, is_legacy: bool) {
        let names = self.state(kind).list(is_legacy);
        let have = match self.character.variant {
            ProtocolVariant::Delta => {
                let held = self.state(kind).held.iter();
                held.filter(|(name, _)| !(kind == Endpoints && self.warming.contains(*name)))
                    .map(|(name, it)| (name.clone(), it.version.clone()))
                    .collect()
            }
            ProtocolVariant::Sotw => BTreeMap::new(),
        };
        self.push(kind, names, Vec::new(), String::new());
        let version = self.state(kind).version.clone();
        let request = self.requests.back_mut().expect("just pushed");
        request.have = have;
        request.version = version;
    }

    fn push(
        &mut self,
        kind: ResourceType,
        names: Vec<String>,
        unsubscribe: Vec<String>,
        nonce: String,
    ) {
        let state = &mut self.types[kind.index()];
        state.asked = true;
        state.named |= !names.is_empty();
        let (have, is_answer, error) = (BTreeMap::new(), false, None);
        self.requests.push_back(Request {
            kind,
            names,
            unsubscribe,
            have,
            nonce,
            version: String::new(),
            is_answer,
            error,
        });
    }

    fn answer(&mut self, kind: ResourceType, nonce: &str, error: Option<String>) {
        if self.character.silent {
            return;
        }
        let state = self.state(kind);
        let names = match self.character.variant {
            ProtocolVariant::Delta => Vec::new(),
            ProtocolVariant::Sotw => state.list(state.wildcard && !state.named),
        };
        self.push(kind, names, Vec::new(), nonce.to_owned());
        let request = self.requests.back_mut().expect("just pushed");
        request.is_answer = true;
        request.error = error;
    }

    // === What it gets ===

    fn sent(&mut self, responses: &[Response]) {
        for response in responses {
            let message = match self.character.variant {
                ProtocolVariant::Delta => Message::from_delta(response),
                ProtocolVariant::Sotw => Message::from_sotw(response),
            };
            let state = &mut self.types[message.kind.index()];
            state.unanswered += 1;
            state.served = true;
            // A request of a silent client may look like an answer, which is not counted here.
            let one = state.unanswered <= 1 || self.character.silent;
            // A client that rejects is sent accepted content again while the bad resource is
            // searched for.
            let is_searched = self.character.picky || self.character.busy;
            assert!(one, "two unanswered responses: {message:?}");
            for (name, item) in &message.puts {
                let latest = state.latest.entry(name.clone()).or_default();
                // A repeated text is allowed if the client holds it and has rejected a later one.
                let is_held = state.held.get(name).is_some_and(|it| it.text == item.text);
                let is_later = *latest <= touched(&item.text);
                assert!(is_later || is_held || is_searched, "{name} went back: {message:?}");
                *latest = touched(&item.text).max(*latest);
            }
            for name in &message.removed {
                assert!(!message.puts.contains_key(name), "{name} twice: {message:?}");
            }
            self.responses.push_back(message);
        }
    }

    fn apply(&mut self, message: Message, error: bool) {
        let kind = message.kind;
        let is_full_set = self.character.variant == ProtocolVariant::Sotw && kind.has_wildcard();
        if error && self.character.strict {
            return;
        }
        let rejected: BTreeSet<String> = message
            .puts
            .iter()
            .filter(|(name, it)| self.rejects(kind, name, it))
            .map(|(name, _)| name.clone())
            .collect();
        let state = &mut self.types[kind.index()];
        if is_full_set {
            state.held.retain(|name, _| message.puts.contains_key(name));
        }
        for name in &message.removed {
            state.held.remove(name);
        }
        for (name, item) in message.puts {
            if rejected.contains(&name) || !state.wants(&name) {
                continue;
            }
            if kind == Endpoints {
                self.warming.remove(&name);
            }
            let old = state.held.insert(name.clone(), item.clone());
            if kind == Cluster && old != Some(item) {
                self.warming.insert(name);
            }
        }
        if kind == Cluster {
            let held = &state.held;
            self.warming.retain(|it| held.contains_key(it));
        }
    }

    /// Whether the client rejects a resource with this content at present. It keeps a listener that
    /// it already has.
    fn rejects(&self, kind: ResourceType, name: &str, item: &Item) -> bool {
        let is_new = || self.state(kind).held.get(name).is_none_or(|it| it.text != item.text);
        (self.character.picky && is_bad(&item.text))
            || (kind == Listener && self.taken_ports.contains(name) && is_new())
    }

    // === Invariants ===

    /// An Envoy that has seen one stream and rejects nothing never has a route to a cluster that
    /// it does not have.
    fn invariant_cluster_is_known_before_its_route(&self) {
        let is_envoy = self.character.behavior == Behavior::Envoy;
        let rejects = self.character.picky || self.character.busy;
        if !is_envoy || rejects || self.character.silent || self.reconnected {
            return;
        }
        for cluster in self.used_by(Route) {
            let is_known = self.state(Cluster).held.contains_key(&cluster);
            assert!(is_known, "{cluster} is not known: {self:?}");
        }
    }

    /// At the end a client has exactly the resources that it wants, except those that it rejects.
    pub(crate) fn invariant_has_what_there_is(&self, snapshot: &Snapshot) {
        for kind in ResourceType::all() {
            let state = self.state(kind);
            // What the client holds from an earlier stream is unknown, so the bad resource is not
            // searched for.
            if self.character.strict && state.returned && kind.has_wildcard() {
                continue;
            }
            for resource in snapshot.resources(kind) {
                let wanted = state.names.contains(&**resource.name())
                    || (state.wildcard && resource.in_wildcard());
                let text = text_of(resource);
                let item = Item { text: text.clone(), version: String::new() };
                if self.rejects(kind, resource.name(), &item) {
                    continue;
                }
                let held = state.held.get(&**resource.name()).map(|it| &it.text);
                assert_eq!(held, wanted.then_some(&text), "{resource:?} at {self:?}");
            }
            // A partial response cannot remove a name, so a name that is still requested may
            // remain.
            if self.character.variant == ProtocolVariant::Delta || kind.has_wildcard() {
                for name in state.held.keys() {
                    let there_is = snapshot.get(kind, name).is_some();
                    assert!(there_is, "{kind} {name} is gone, not at {self:?}");
                }
            }
        }
    }

    /// A client that never answers is still sent something of everything that it asked for.
    pub(crate) fn invariant_has_something_of_all(&self, snapshot: &Snapshot) {
        for kind in ResourceType::all() {
            let state = self.state(kind);
            let lacks_some = snapshot.resources(kind).any(|it| {
                let name = &**it.name();
                let wants = state.names.contains(name) || (state.wildcard && it.in_wildcard());
                wants && !state.held.contains_key(name)
            });
            assert!(!lacks_some || state.served, "no {kind} at {self:?}");
        }
    }

    /// At the end a cluster waits for endpoints only if there are none that the client accepts.
    pub(crate) fn invariant_no_cluster_waits_for_ever(&self, snapshot: &Snapshot) {
        if self.character.behavior == Behavior::Wild {
            return;
        }
        for name in &self.warming {
            if let Some(resource) = snapshot.get(Endpoints, name) {
                let is_rejected = self.character.picky && is_bad(&text_of(resource));
                assert!(is_rejected, "{name} waits for its endpoints: {self:?}");
            }
        }
    }
}

impl TypeState {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn forget_unwanted(&mut self) {
        if !self.wildcard {
            self.held.retain(|name, _| self.names.contains(name));
        }
    }

    fn list(&self, is_legacy: bool) -> Vec<String> {
        let mut names: Vec<String> = self.names.iter().cloned().collect();
        if self.wildcard && !is_legacy {
            names.push("*".to_owned());
        }
        names
    }
}
