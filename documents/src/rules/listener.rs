//! Listeners and the HTTP connection managers in them.

use std::net::IpAddr;

use prost_reflect::DynamicMessage;

use super::{Rule, Whose, if_so};
use crate::{
    field::{choice, flag, has, list, name, number, sub, text},
    path::Path,
};

const LISTENER: &str = "envoy.config.listener.v3.Listener";
pub(super) const MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

/// What gRPC servers ask for, by the template that gRPC proposes (A36).
const LISTENING_ADDRESS: &str = "xds.resource.listening_address=";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "listener-address",
        whose: Whose::Everybody,
        message: LISTENER,
        check: |path, it| {
            let fields = ["address", "api_listener", "internal_listener"];
            let is_bare = !fields.iter().any(|field| has(it, field));
            if_so(is_bare, path.clone(), "has neither an address nor an api_listener")
        },
        fix: "give it an address, or an api_listener if gRPC clients ask for it",
    },
    Rule {
        id: "listener-ip",
        whose: Whose::Everybody,
        message: LISTENER,
        check: address_that_is_none,
        fix: "write an IP address, as 0.0.0.0",
    },
    Rule {
        id: "filter-chains",
        whose: Whose::Envoy,
        message: LISTENER,
        check: |path, it| {
            let is_tcp = socket(it).is_some_and(|it| choice(&it, "protocol") == "TCP");
            let has_none = list(it, "filter_chains").is_empty() && !has(it, "default_filter_chain");
            let is_bare = is_tcp && has_none && !has(it, "api_listener");
            if_so(is_bare, path.field("filter_chains"), "has no filter chain")
        },
        fix: "add a filter chain with a filter",
    },
    Rule {
        id: "filter-chain-match",
        whose: Whose::Everybody,
        message: LISTENER,
        check: chains_that_match_alike,
        fix: "merge the chains, or let their filter_chain_match differ",
    },
    Rule {
        id: "grpc-listener-filters",
        whose: Whose::Grpc,
        message: LISTENER,
        check: |path, it| {
            let has_filters = !list(it, "listener_filters").is_empty();
            let is_original = sub(it, "use_original_dst").is_some_and(|it| flag(&it, "value"));
            let is_refused = !has(it, "api_listener") && (has_filters || is_original);
            let cause = "has listener_filters or use_original_dst";
            if_so(is_refused, path.field("listener_filters"), cause)
        },
        fix: "leave both out; gRPC servers do not know them (A36)",
    },
    Rule {
        id: "grpc-listening-address",
        whose: Whose::Grpc,
        message: LISTENER,
        check: address_unlike_the_name,
        fix: "let the address and port be those that the name ends with (A36)",
    },
    Rule {
        id: "grpc-api-listener",
        whose: Whose::Grpc,
        message: LISTENER,
        check: |path, it| {
            let inner = sub(it, "api_listener").and_then(|it| sub(&it, "api_listener"));
            let is_other = inner.is_some_and(|it| name(&it) != MANAGER);
            let at = path.field("api_listener").field("api_listener");
            if_so(is_other, at, "is no HttpConnectionManager")
        },
        fix: "put an HttpConnectionManager there",
    },
    Rule {
        id: "filter-config",
        whose: Whose::Everybody,
        message: "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        check: without_config,
        fix: "give its typed_config, which may be empty but for @type",
    },
    Rule {
        id: "filter-config",
        whose: Whose::Everybody,
        message: "envoy.config.listener.v3.Filter",
        check: without_config,
        fix: "give its typed_config, which may be empty but for @type",
    },
    Rule {
        id: "http-filters",
        whose: Whose::Everybody,
        message: MANAGER,
        check: |path, it| {
            let cause = "has no http_filters, so that requests hang";
            if_so(list(it, "http_filters").is_empty(), path.field("http_filters"), cause)
        },
        fix: "add envoy.filters.http.router as the last one",
    },
    Rule {
        id: "grpc-router",
        whose: Whose::Grpc,
        message: MANAGER,
        check: |path, it| {
            let filters = list(it, "http_filters");
            let Some(last) = filters.last() else { return Vec::new() };
            let is_other = sub(last, "typed_config").is_none_or(|it| name(&it) != ROUTER);
            let at = path.field("http_filters").index(filters.len() - 1);
            if_so(is_other, at, "is the last filter, but not the router")
        },
        fix: "put envoy.filters.http.router last (A39)",
    },
    Rule {
        id: "grpc-xff",
        whose: Whose::Grpc,
        message: MANAGER,
        check: |path, it| {
            let hops = number(it, "xff_num_trusted_hops").unwrap_or_default();
            let detects = !list(it, "original_ip_detection_extensions").is_empty();
            let cause = "trusts forwarded addresses";
            if_so(hops > 0 || detects, path.field("xff_num_trusted_hops"), cause)
        },
        fix: "leave xff_num_trusted_hops and original_ip_detection_extensions out (A41)",
    },
    Rule {
        id: "grpc-scoped-routes",
        whose: Whose::Grpc,
        message: MANAGER,
        check: |path, it| {
            let cause = "chooses routes by scopes";
            if_so(has(it, "scoped_routes"), path.field("scoped_routes"), cause)
        },
        fix: "use rds or route_config; gRPC does not know scopes",
    },
    Rule {
        id: "grpc-rds-source",
        whose: Whose::Grpc,
        message: "envoy.extensions.filters.network.http_connection_manager.v3.Rds",
        check: |path, it| {
            let source = sub(it, "config_source");
            let is_other = source.is_some_and(|it| !has(&it, "ads") && !has(&it, "self"));
            if_so(is_other, path.field("config_source"), "is neither ads nor self")
        },
        fix: "write `ads: {}` (A27)",
    },
    Rule {
        id: "grpc-rbac-condition",
        whose: Whose::Grpc,
        message: "envoy.config.rbac.v3.Policy",
        check: |path, it| {
            let is_set = has(it, "condition") || has(it, "checked_condition");
            if_so(is_set, path.field("condition"), "has a condition")
        },
        fix: "use permissions and principals; gRPC refuses conditions (A41)",
    },
];

/// Whether a gRPC client or server is what asks for this listener.
pub(crate) fn is_grpc_listener(listener: &DynamicMessage) -> bool {
    has(listener, "api_listener") || text(listener, "name").contains(LISTENING_ADDRESS)
}

fn socket(listener: &DynamicMessage) -> Option<DynamicMessage> {
    sub(&sub(listener, "address")?, "socket_address")
}

fn address_that_is_none(path: &Path, listener: &DynamicMessage) -> Vec<(Path, String)> {
    let Some(socket) = socket(listener) else { return Vec::new() };
    let address = text(&socket, "address");
    let is_resolved = !text(&socket, "resolver_name").is_empty();
    let at = path.field("address").field("socket_address").field("address");
    let is_none = address.parse::<IpAddr>().is_err() && !address.is_empty() && !is_resolved;
    if_so(is_none, at, format!("{address:?} is no IP address"))
}

fn chains_that_match_alike(path: &Path, listener: &DynamicMessage) -> Vec<(Path, String)> {
    if has(listener, "filter_chain_matcher") {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut seen: Vec<Option<DynamicMessage>> = Vec::new();
    for (index, chain) in list(listener, "filter_chains").iter().enumerate() {
        let criteria = sub(chain, "filter_chain_match");
        // An empty match is as good as none.
        let criteria = criteria.filter(|it| it.fields().next().is_some());
        if let Some(first) = seen.iter().position(|it| *it == criteria) {
            let at = path.field("filter_chains").index(index).field("filter_chain_match");
            found.push((at, format!("matches what filter_chains[{first}] matches")));
        }
        seen.push(criteria);
    }
    found
}

fn address_unlike_the_name(path: &Path, listener: &DynamicMessage) -> Vec<(Path, String)> {
    let name = text(listener, "name");
    let Some((_, asked)) = name.split_once(LISTENING_ADDRESS) else { return Vec::new() };
    let Some(socket) = socket(listener) else { return Vec::new() };
    let port = number(&socket, "port_value").unwrap_or_default();
    let address = text(&socket, "address");
    let is_same = asked == format!("{address}:{port}") || asked == format!("[{address}]:{port}");
    let cause = format!("listens on {address}:{port}, but is asked for as {asked}");
    if_so(!is_same, path.field("address"), cause)
}

fn without_config(path: &Path, filter: &DynamicMessage) -> Vec<(Path, String)> {
    let has_config = has(filter, "typed_config") || has(filter, "config_discovery");
    let cause = format!("the filter {:?} has no configuration", text(filter, "name"));
    if_so(!has_config, path.field("typed_config"), cause)
}
