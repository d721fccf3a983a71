//! How HTTP is taken in, routed and tried again.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        core::v3::{Http1ProtocolOptions, Http2ProtocolOptions},
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

/// Every protocol to upgrade to but WebSocket, as Envoy matches them: letter by letter, since its
/// expressions have no negation. A server may ignore an upgrade (RFC 9110, 7.8); Envoy by itself
/// refuses the request.
pub const NOT_WEBSOCKET: &str = "(?i)([^w].*|w([^e].*|e([^b].*|b([^s].*|s([^o].*|o([^c].*|c([^k].*\
                                 |k([^e].*|e([^t].*|t.+)?)?)?)?)?)?)?)?)";

/// A sidecar adds it to its answer when its application did not take the request at all.
pub const NOT_DELIVERED_HEADER: &str = "quorate-not-delivered";

/// Further attempts of a request. With half of the endpoints dead, and none known to be, one of a
/// hundred requests fails after as many; two failures make an endpoint known.
const RETRIES: u32 = 5;

/// How often another endpoint is drawn when one was tried already.
const DRAWS: i64 = 10;

/// A connection manager whose route comes over the same stream; all that gRPC needs.
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

/// The same for callers of every age: they may upgrade to WebSocket and speak HTTP/1.0, in which a
/// request need not name a host.
pub(super) fn open_connection_manager(stat_prefix: &str, route: &str) -> HttpConnectionManager {
    HttpConnectionManager {
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            default_host_for_http_10: route.to_owned(),
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

/// Retries what was surely not carried out: the connection was not made, the stream was refused, it
/// was reset before the request had been sent, or a sidecar says so. Always at another endpoint,
/// while there is one.
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

/// Retries also what may have been carried out: the connection was lost before an answer.
pub(super) fn idempotent_retries() -> RetryPolicy {
    let safe = safe_retries();
    RetryPolicy { retry_on: format!("{},reset", safe.retry_on), ..safe }
}

/// Lets a gRPC client's own deadline end its call.
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

/// Restricts a route to requests with a header of this value.
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
