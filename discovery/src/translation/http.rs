//! How HTTP requests are accepted, routed and retried.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        core::v3::{Http1ProtocolOptions, Http2ProtocolOptions},
        listener::v3 as listener,
        route::v3::{
            HeaderMatcher, RetryPolicy, Route, RouteAction, RouteMatch,
            header_matcher::HeaderMatchSpecifier,
            retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate},
            route, route_action, route_match,
        },
    },
    extensions::{
        filters::{
            http::router::v3::Router,
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, Rds,
                http_connection_manager::{self, UpgradeConfig},
                http_filter,
            },
        },
        retry::host::previous_hosts::v3::PreviousHostsPredicate,
    },
    r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
};

use super::build::{ads, any, duration, number};

/// Methods whose requests may be carried out twice (RFC 9110, 9.2.2), as Envoy matches them.
pub const IDEMPOTENT_METHODS: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";

/// Matches every upgrade protocol but WebSocket. Spelled letter by letter, because Envoy's regular
/// expressions have no negation. A server may ignore an upgrade (RFC 9110, 7.8); by default Envoy
/// refuses the request instead.
pub const NOT_WEBSOCKET: &str = "(?i)([^w].*|w([^e].*|e([^b].*|b([^s].*|s([^o].*|o([^c].*|c([^k].*\
                                 |k([^e].*|e([^t].*|t.+)?)?)?)?)?)?)?)?)";

/// A sidecar adds this header to its response if its application never received the request.
pub const NOT_DELIVERED_HEADER: &str = "quorate-not-delivered";

/// Most retries of a request, unless its service says otherwise. If half of the endpoints are dead
/// and not yet detected, one in a hundred requests still fails; two failures eject an endpoint.
const RETRIES: u32 = 5;

/// How often another endpoint is chosen if the chosen one was tried already.
const DRAWS: i64 = 10;

/// A connection manager whose route comes over the same ADS stream. A gRPC client needs no more.
pub(super) fn connection_manager(stat_prefix: &str, route: &str) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: route.to_owned(),
        })),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    }
}

/// As [`connection_manager`], for callers of all kinds: they may upgrade to WebSocket, and use
/// HTTP/1.0, where a request need not name a host. Without a default one it is refused then.
pub(super) fn open_connection_manager(
    stat_prefix: &str,
    route: &str,
    default_host: &str,
) -> HttpConnectionManager {
    HttpConnectionManager {
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            default_host_for_http_10: default_host.to_owned(),
            ignore_http_11_upgrade: vec![matches(NOT_WEBSOCKET)],
            ..Http1ProtocolOptions::default()
        }),
        http2_protocol_options: Some(Http2ProtocolOptions {
            allow_connect: true,
            ..Http2ProtocolOptions::default()
        }),
        ..connection_manager(stat_prefix, route)
    }
}

pub(super) fn filter(manager: &HttpConnectionManager) -> listener::Filter {
    listener::Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(manager))),
    }
}

/// Retries a request that was surely not carried out: the connection failed, the stream was
/// refused, it was reset before the request had been sent, or a sidecar reports it. The retry goes
/// to another endpoint, if there is one.
pub(super) fn safe_retries() -> RetryPolicy {
    RetryPolicy {
        retry_on: "connect-failure,refused-stream,reset-before-request,retriable-headers"
            .to_owned(),
        retriable_headers: vec![HeaderMatcher {
            name: NOT_DELIVERED_HEADER.to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
            ..HeaderMatcher::default()
        }],
        num_retries: number(RETRIES),
        retry_host_predicate: vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
                &PreviousHostsPredicate::default(),
            ))),
        }],
        host_selection_retry_max_attempts: DRAWS,
        retry_back_off: Some(RetryBackOff {
            base_interval: duration(Duration::from_millis(10)),
            max_interval: duration(Duration::from_millis(100)),
        }),
        ..RetryPolicy::default()
    }
}

/// Also retries a request that may have been carried out, because the connection was lost before a
/// response.
pub(super) fn idempotent_retries() -> RetryPolicy {
    let safe = safe_retries();
    RetryPolicy { retry_on: format!("{},reset", safe.retry_on), ..safe }
}

/// A gRPC client's own deadline ends its call.
pub(super) fn client_deadline() -> route_action::MaxStreamDuration {
    route_action::MaxStreamDuration {
        grpc_timeout_header_max: duration(Duration::ZERO),
        ..route_action::MaxStreamDuration::default()
    }
}

pub(super) fn to_cluster(name: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(name.to_owned())),
        ..RouteAction::default()
    }
}

/// A route for every path.
pub(super) fn route(action: route::Action) -> Route {
    Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(action),
        ..Route::default()
    }
}

/// Restricts a route to requests that have a header with this value.
pub(super) fn only_with(header: &str, value: StringMatcher, route: &mut Route) {
    if let Some(it) = &mut route.r#match {
        it.headers.push(HeaderMatcher {
            name: header.to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value)),
            ..HeaderMatcher::default()
        });
    }
}

/// Restricts a route to methods whose requests may be carried out twice.
pub(super) fn only_idempotent(route: &mut Route) {
    only_with(":method", matches(IDEMPOTENT_METHODS), route);
}

pub(super) fn exactly(text: &str) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(MatchPattern::Exact(text.to_owned())),
        ..StringMatcher::default()
    }
}

fn matches(regex: &str) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(MatchPattern::SafeRegex(RegexMatcher {
            regex: regex.to_owned(),
            ..RegexMatcher::default()
        })),
        ..StringMatcher::default()
    }
}
