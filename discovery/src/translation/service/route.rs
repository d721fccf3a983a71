//! The routes of a service: how long its requests may take, and which are tried again.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::{
    RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost, route::Action,
    route_action::MaxStreamDuration,
};

use super::super::{
    access_log, balancing,
    build::{duration, number},
    http,
};
use crate::{
    options::RetryWhen,
    registry::{Protocol, Service},
};

/// How long an HTTP stream may be silent: long enough for rare events and slow responses.
/// A service may set another time.
const STREAM_IDLE: Duration = Duration::from_secs(60 * 60);

/// The route of its own listeners.
pub(super) fn route(service: &Service) -> RouteConfiguration {
    RouteConfiguration {
        name: service.name.clone(),
        // Any host: a client that requests this route by name has already chosen the service, and
        // the authority of `xds:///orders` is `orders`.
        virtual_hosts: vec![virtual_host(service, vec!["*".to_owned()])],
        ..RouteConfiguration::default()
    }
}

/// The virtual host of a service in a route that serves all of them. It is selected by the host
/// name of the request. None if the service does not speak HTTP.
pub(in super::super) fn shared_host(service: &Service) -> Option<VirtualHost> {
    let domains = vec![service.name.clone(), format!("{}:*", service.name)];
    let metadata = service.options.access_log.as_ref().map(access_log::asked_by_host);
    (service.protocol != Protocol::Tcp)
        .then(|| VirtualHost { metadata, ..virtual_host(service, domains) })
}

fn virtual_host(service: &Service, domains: Vec<String>) -> VirtualHost {
    let action = action(service);
    let retries = &service.options.retries;
    let when = match retries.attempts {
        Some(0) => RetryWhen::None,
        Some(_) | None => retries.when.unwrap_or(RetryWhen::Idempotent),
    };
    let mut routes = Vec::new();
    if when == RetryWhen::Idempotent {
        let retry_policy = Some(retry_policy(service, http::idempotent_retries()));
        let retried = RouteAction { retry_policy, ..action.clone() };
        let mut idempotent = Route {
            name: format!("{}/idempotent", service.name),
            ..http::route(Action::Route(retried))
        };
        http::only_idempotent(&mut idempotent);
        routes.push(idempotent);
    }
    routes.push(Route { name: service.name.clone(), ..http::route(Action::Route(action)) });
    VirtualHost {
        name: service.name.clone(),
        domains,
        routes,
        // For every route without a retry policy of its own.
        retry_policy: (when != RetryWhen::None)
            .then(|| retry_policy(service, http::safe_retries())),
        ..VirtualHost::default()
    }
}

fn action(service: &Service) -> RouteAction {
    let timeouts = &service.options.timeouts;
    let hash = service.options.load_balancing.hash.as_ref();
    RouteAction {
        // By default there is no time limit for a request, since streams and large responses take
        // long. Only silence ends it.
        timeout: duration(timeouts.request.unwrap_or_default()),
        idle_timeout: duration(timeouts.stream_idle.unwrap_or(STREAM_IDLE)),
        max_stream_duration: max_stream_duration(service),
        hash_policy: hash.map(balancing::request_hash).into_iter().collect(),
        ..http::to_cluster(&service.name)
    }
}

/// A gRPC client's own deadline ends its call, and the service may bound that.
fn max_stream_duration(service: &Service) -> Option<MaxStreamDuration> {
    let bound = service.options.timeouts.stream.filter(|it| !it.is_zero()).and_then(duration);
    match service.protocol {
        Protocol::Http2 => {
            let deadline = http::client_deadline();
            let grpc_timeout_header_max = bound.or(deadline.grpc_timeout_header_max);
            Some(MaxStreamDuration {
                max_stream_duration: bound,
                grpc_timeout_header_max,
                ..deadline
            })
        }
        Protocol::Http1 | Protocol::Tcp => bound.map(|bound| MaxStreamDuration {
            max_stream_duration: Some(bound),
            ..MaxStreamDuration::default()
        }),
    }
}

fn retry_policy(service: &Service, by_default: RetryPolicy) -> RetryPolicy {
    let retries = &service.options.retries;
    RetryPolicy {
        num_retries: retries.attempts.and_then(number).or(by_default.num_retries),
        per_try_timeout: retries.per_try.and_then(duration),
        ..by_default
    }
}
