//! Text scripts of one stream. Each command prints the responses that it causes.
//!
//! ```text
//! change KIND/NAME=TEXT…    the next snapshot; TEXT `none` removes; kind `api` is a listener that
//!                           is in no wildcard
//! request KIND NAME…        a request of the stream's variant; unsubscribe=NAME,… nonce=N error=WHY
//!                           have=NAME=TEXT,… node=ID version=V; V is `latest` for that of the
//!                           latest response
//! ack KIND | nack KIND WHY  the answer to the latest response of the type, with the same names
//! wait SECONDS              time passes
//! connect                   a new stream
//! client                    who is connected
//! ```
//!
//! In a listener's text the words after the first are the routes that it requests. A response
//! prints as `NONCE KIND NAME=TEXT… -REMOVED…`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use discovery::interest::{Interest, StreamNumber};
use discovery::lease::Time;
use discovery::resource::{ResourceChange, ResourceType};
use discovery::snapshot::Snapshot;
use discovery::stream::{Notice, ProtocolVariant, Receipt, Response, Stream, Violation};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status;
use goldenscript::{ArgumentConsumer, Command, Context, Runner};

use crate::fixture::{delta_of, read, resource, sotw_of};

/// Makes each script a separate test. A tidy test finds scripts that are not listed.
macro_rules! scripts {
    ($folder:ident, $variant:expr; $($name:ident)*) => {
        mod $folder {
            use super::*;

            $(#[test]
            fn $name() -> std::io::Result<()> {
                let path = concat!("tests/it/scripts/", stringify!($folder), "/", stringify!($name));
                goldenscript::run(&mut Script::new($variant), path)
            })*
        }
    };
}

scripts! { delta, ProtocolVariant::Delta;
    listener_leaves_the_wildcard
    missing_name_appears
    nack_bad_resource_in_a_batch
    nack_for_good_costs_little
    nack_is_tried_again
    nack_no_hot_loop
    nack_of_names_dropped_meanwhile
    nack_then_changes
    node_is_kept
    nothing_changes_nothing_sent
    one_unanswered_latest_wins
    order_busy_routes_do_not_hold_removals
    order_health_updates_are_free
    order_listener_is_used_with_its_route
    order_make_before_break
    order_nack_ends_the_wait
    order_new_clusters_do_not_starve_routes
    order_who_never_answers_is_served
    reconnect_changed_and_removed
    reconnect_endpoints_follow_cluster
    reconnect_initial_versions_only_first
    reconnect_removal_waits_for_users
    reconnect_resets_nonces
    reconnect_unchanged
    removal_after_nack
    removal_is_told
    resubscribe_is_answered
    subscription_rides_on_answers
    type_url_required
    types_are_walled_off
    unknown_type
    unsent_version_comes_back
    unsubscribe_without_wildcard
    warming_changed_cluster
    warming_endpoints_asked_first
    warming_missing_or_rejected_endpoints
    wildcard_dropped_while_under_way
    wildcard_explicit
    wildcard_first_answer_empty
    wildcard_legacy_then_named
    wildcard_unsubscribe_one_name
}

scripts! { sotw, ProtocolVariant::Sotw;
    error_alone_makes_a_nack
    full_set_of_clusters_and_listeners
    grpc_client
    missing_listener
    missing_name_appears
    nack_bad_resource_in_a_batch
    nack_for_good_costs_little
    nack_full_set
    nack_full_set_is_searched
    nack_is_tried_again
    nack_new_bad_cluster_at_the_start
    nack_no_hot_loop
    nack_then_changes
    named_types_send_what_changed
    names_added_and_dropped
    node_is_kept
    nothing_changes_nothing_sent
    one_unanswered_latest_wins
    order_busy_routes_do_not_hold_removals
    order_health_updates_are_free
    order_listener_is_used_with_its_route
    order_make_before_break
    order_nack_ends_the_wait
    order_new_clusters_do_not_starve_routes
    order_who_never_answers_is_served
    reconnect_named_is_answered
    reconnect_resets_nonces
    reconnect_set_stays_whole
    reconnect_version_tells_what_is_held
    removal_waits_for_the_route
    removed_cluster_comes_back
    stale_nonce
    type_url_required
    types_are_walled_off
    unknown_type
    unsent_version_comes_back
    warming_changed_cluster
    warming_endpoints_asked_first
    wildcard_first_answer_empty
    wildcard_legacy_then_named
    wildcard_repeated
}

struct Script {
    stream: Stream,
    interest: Interest,
    number: StreamNumber,
    now: Time,
    /// The latest nonce of each type; the fields below hold the latest version, and the names of
    /// the last request (SotW).
    nonces: BTreeMap<String, String>,
    versions: BTreeMap<String, String>,
    names: BTreeMap<String, Vec<String>>,
}

impl Script {
    fn new(variant: ProtocolVariant) -> Self {
        let mut interest = Interest::new(Snapshot::empty());
        let number = interest.open();
        Self {
            stream: Stream::new(variant, "replica"),
            interest,
            number,
            now: Time::ZERO,
            nonces: BTreeMap::new(),
            versions: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    fn change(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let mut changes = Vec::new();
        while let Some((key, text)) = args.next_key() {
            let (kind, name) = key.split_once('/').ok_or("KIND/NAME=TEXT")?;
            changes.push(match (kind, text) {
                ("api", text) => ResourceChange::Put(
                    resource(ResourceType::Listener, name, text).not_in_wildcard(),
                ),
                (kind, "none") => ResourceChange::Remove(kind_of(kind)?, name.into()),
                (kind, text) => ResourceChange::Put(resource(kind_of(kind)?, name, text)),
            });
        }
        let latest = self.interest.latest();
        let next = latest.with_changes(latest.revision() + 1, changes);
        let responses = if self.interest.publish(next).contains(&self.number) {
            let latest = self.interest.take(self.number);
            self.stream.snapshot_changed(&latest, self.now)
        } else {
            Vec::new()
        };
        Ok(self.print(&responses))
    }

    fn request(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let short = args.next_pos().ok_or("a kind is needed")?;
        let nonce = args.take_key("nonce").unwrap_or_default();
        let error = args.take_key("error");
        let node = args.take_key("node");
        let unsubscribe = list(args.take_key("unsubscribe"));
        let have = list(args.take_key("have"));
        let version = match args.take_key("version").unwrap_or_default() {
            "latest" => self.versions.get(short).ok_or("no response yet")?.clone(),
            text => text.to_owned(),
        };
        let names = std::iter::from_fn(|| args.next_pos().map(str::to_owned)).collect();
        self.send(short, Parts { names, unsubscribe, have, nonce, error, node, version: &version })
    }

    fn answer(
        &mut self,
        args: &mut ArgumentConsumer<'_>,
        error: bool,
    ) -> Result<String, Box<dyn Error>> {
        let short = args.next_pos().ok_or("a kind is needed")?;
        let nonce = self.nonces.get(short).ok_or("no response to answer")?.clone();
        let error = if error { Some(args.next_pos().unwrap_or("bad")) } else { None };
        let names = match self.stream.variant() {
            ProtocolVariant::Delta => Vec::new(),
            ProtocolVariant::Sotw => self.names.get(short).cloned().unwrap_or_default(),
        };
        self.send(short, Parts { names, nonce: &nonce, error, ..Parts::default() })
    }

    fn send(&mut self, short: &str, parts: Parts<'_>) -> Result<String, Box<dyn Error>> {
        let kind = kind_of(short);
        let type_url = kind.as_ref().map_or(short, |kind| kind.type_url()).to_owned();
        let node = parts.node.map(|id| Node { id: id.to_owned(), ..Node::default() });
        let error_detail =
            parts.error.map(|it| Status { message: it.to_owned(), ..Status::default() });
        let response_nonce = parts.nonce.to_owned();
        let latest = self.interest.take(self.number);
        let responses = match self.stream.variant() {
            ProtocolVariant::Delta => {
                let mut versions = BTreeMap::new();
                for it in &parts.have {
                    let (name, text) = it.split_once('=').ok_or("have=NAME=TEXT")?;
                    let version = resource(kind_of(short)?, name, text).version().to_string();
                    versions.insert(name.to_owned(), version);
                }
                let request = DeltaDiscoveryRequest {
                    node,
                    type_url,
                    resource_names_subscribe: parts.names,
                    resource_names_unsubscribe: parts.unsubscribe,
                    initial_resource_versions: versions.into_iter().collect(),
                    response_nonce,
                    error_detail,
                    ..DeltaDiscoveryRequest::default()
                };
                self.stream.handle_delta(request, &latest, self.now)
            }
            ProtocolVariant::Sotw => {
                self.names.insert(short.to_owned(), parts.names.clone());
                let request = DiscoveryRequest {
                    version_info: parts.version.to_owned(),
                    node,
                    resource_names: parts.names,
                    type_url,
                    response_nonce,
                    error_detail,
                    ..DiscoveryRequest::default()
                };
                self.stream.handle_sotw(request.into(), &latest, self.now)
            }
        };
        let is_behind =
            self.interest.wish(self.number, self.stream.take_wishes(), &latest.snapshot);
        assert!(!is_behind, "nothing is published meanwhile");
        Ok(match responses {
            Ok(responses) => self.print_receipt() + &self.print(&responses),
            Err(
                violation @ (Violation::NoTypeUrl
                | Violation::OtherVariant
                | Violation::TooManyNames
                | Violation::LongName
                | Violation::NoText),
            ) => format!("violation: {violation}\n"),
        })
    }

    /// Lets time pass, and calls the stream at each of its deadlines.
    fn wait(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        let seconds: f64 = args.next_pos().ok_or("how many seconds?")?.parse()?;
        let end = self.now + Duration::from_secs_f64(seconds);
        let mut responses = Vec::new();
        while let Some(at) = self.stream.next_deadline().filter(|at| *at <= end) {
            assert!(at > self.now, "a deadline in the past is met for ever");
            self.now = at;
            responses.extend(self.stream.tick(at));
        }
        self.now = end;
        Ok(self.print(&responses))
    }

    fn print_receipt(&mut self) -> String {
        let receipt = match self.stream.receipt() {
            Some(Receipt::Acked { kind, .. }) => format!("acked {kind}\n"),
            Some(Receipt::Nacked { kind, names, reason, .. }) => {
                format!("nacked {kind} {}: {reason}\n", names.join(" "))
            }
            Some(Receipt::Stale { kind }) => format!("stale {kind}\n"),
            Some(Receipt::UnknownType { type_url }) => format!("unknown type {type_url}\n"),
            Some(Receipt::Asked { .. }) | None => String::new(),
        };
        let notices = self.stream.take_notices().into_iter().map(|it| match it {
            Notice::Quarantined { kind, name, .. } => format!("quarantined {kind} {name}\n"),
            Notice::Recovered { kind, name } => format!("recovered {kind} {name}\n"),
        });
        receipt + &notices.collect::<String>()
    }

    fn print(&mut self, responses: &[Response]) -> String {
        let mut text = String::new();
        for response in responses {
            let (type_url, items, removed) = match self.stream.variant() {
                ProtocolVariant::Delta => {
                    let proto = delta_of(response);
                    assert_eq!(proto.control_plane.unwrap().identifier, "replica");
                    let items: Vec<_> = proto
                        .resources
                        .iter()
                        .map(|it| read(it.resource.as_ref().unwrap()))
                        .collect();
                    (proto.type_url, items, proto.removed_resources)
                }
                ProtocolVariant::Sotw => {
                    let proto = sotw_of(response);
                    assert_eq!(proto.control_plane.unwrap().identifier, "replica");
                    (proto.type_url, proto.resources.iter().map(read).collect(), Vec::new())
                }
            };
            let kind = ResourceType::from_type_url(&type_url);
            let short = kind.map_or(type_url, |kind| kind.to_string());
            write!(text, "{} {short}", response.nonce).unwrap();
            for item in &items {
                write!(text, " {}={}", item.name, item.text).unwrap();
            }
            for name in &removed {
                write!(text, " -{name}").unwrap();
            }
            if items.is_empty() && removed.is_empty() {
                text.push_str(" (empty)");
            }
            text.push('\n');
            self.versions.insert(short.clone(), response.version.to_string());
            self.nonces.insert(short, response.nonce.clone());
        }
        if text.is_empty() { "nothing\n".to_owned() } else { text }
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let output = match &*command.name {
            "change" => self.change(&mut args)?,
            "request" => self.request(&mut args)?,
            "ack" => self.answer(&mut args, false)?,
            "nack" => self.answer(&mut args, true)?,
            "wait" => self.wait(&mut args)?,
            "client" => format!("{:?}\n", self.stream.client()),
            "connect" => {
                let seen = self.interest.latest().clone();
                self.interest.wish(self.number, self.stream.withdraw(), &seen);
                self.interest.close(self.number);
                self.number = self.interest.open();
                self.stream = Stream::new(self.stream.variant(), "replica");
                self.nonces.clear();
                String::new()
            }
            name => return Err(format!("unknown command {name}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}

#[derive(Default)]
struct Parts<'a> {
    names: Vec<String>,
    unsubscribe: Vec<String>,
    have: Vec<String>,
    nonce: &'a str,
    error: Option<&'a str>,
    node: Option<&'a str>,
    version: &'a str,
}

fn kind_of(short: &str) -> Result<ResourceType, String> {
    let mut all = ResourceType::all().into_iter();
    all.find(|kind| kind.to_string() == short).ok_or_else(|| format!("unknown kind {short}"))
}

fn list(text: Option<&str>) -> Vec<String> {
    text.map(|it| it.split(',').map(str::to_owned).collect()).unwrap_or_default()
}
