//! The cluster of a service: how much an Envoy asks of its instances, and which it leaves out.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            CircuitBreakers, Cluster, OutlierDetection,
            circuit_breakers::{Thresholds, thresholds::RetryBudget},
        },
        core::v3::{
            self as base, HttpProtocolOptions,
            health_check::{GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck},
        },
    },
    r#type::v3::{CodecClientType, Int64Range, Percent},
};

use super::super::{
    balancing,
    build::{duration, number},
    cluster,
};
use crate::{
    options::{self, Check, HealthCheck, Limits, Retries},
    registry::{Protocol, Service},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections in a row that fail before an instance is left out. Two suffice: with many instances
/// each one gets few requests, and a wrongly ejected one is back soon.
const CONNECT_FAILURES: u32 = 2;

/// Answers like a failing gateway's in a row. A plain 500 of an application does not count unless
/// the service says so.
const GATEWAY_FAILURES: u32 = 5;

const EJECTION_INTERVAL: Duration = Duration::from_secs(1);
const EJECTION: Duration = Duration::from_secs(5);
const MAX_EJECTION: Duration = Duration::from_secs(30);
const MAX_EJECTION_PERCENT: u32 = 50;

const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
const HEALTHY_AFTER: u32 = 2;
const UNHEALTHY_AFTER: u32 = 3;

/// Share of an interval by which checks are moved at random, so that the Envoys of a mesh do not
/// check at the same moment.
const CHECK_JITTER_PERCENT: u32 = 20;

pub(super) fn cluster_of(service: &Service) -> Cluster {
    let options = &service.options;
    let connect = options.timeouts.connect.unwrap_or(CONNECT_TIMEOUT);
    let mut cluster = cluster::eds_cluster(&service.name, connect);
    cluster.circuit_breakers = Some(CircuitBreakers {
        thresholds: vec![thresholds(&options.limits, &options.retries)],
        ..CircuitBreakers::default()
    });
    cluster.outlier_detection = outlier_detection(&options.outlier_detection);
    cluster.load_balancing_policy = Some(balancing::policies(&options.load_balancing));
    if let Some(check) = &options.health_check {
        cluster.health_checks = vec![health_check(check, service)];
        // An instance that is removed is removed: by default an Envoy keeps it while its own check
        // succeeds.
        cluster.ignore_health_on_host_removal = true;
    }
    let limits = of_one_connection(&options.limits);
    match service.protocol {
        Protocol::Http1 => cluster::use_http1(&mut cluster, limits),
        Protocol::Http2 => cluster::use_http2(&mut cluster, None, limits),
        Protocol::Tcp => {}
    }
    cluster
}

fn thresholds(limits: &Limits, retries: &Retries) -> Thresholds {
    let none = cluster::no_limits();
    let limited = |limit: Option<u32>, none| limit.and_then(number).or(none);
    Thresholds {
        max_connections: limited(limits.connections, none.max_connections),
        max_pending_requests: limited(limits.pending_requests, none.max_pending_requests),
        max_requests: limited(limits.requests, none.max_requests),
        max_retries: limited(limits.retries, none.max_retries),
        retry_budget: retries.budget_percent.map(|percent| RetryBudget {
            budget_percent: Some(Percent { value: percent.into() }),
            min_retry_concurrency: retries.budget_min.and_then(number),
            ..RetryBudget::default()
        }),
        ..none
    }
}

fn of_one_connection(limits: &Limits) -> HttpProtocolOptions {
    HttpProtocolOptions {
        max_requests_per_connection: limits.requests_per_connection.and_then(number),
        max_connection_duration: limits
            .connection_duration
            .filter(|it| !it.is_zero())
            .and_then(duration),
        ..HttpProtocolOptions::default()
    }
}

/// Ejects an instance for a while if it cannot be reached or answers like a failing gateway, but
/// never more than a share of them.
fn outlier_detection(wanted: &options::OutlierDetection) -> Option<OutlierDetection> {
    if wanted.off {
        return None;
    }
    let detector = |failures: Option<u32>, by_default: u32| {
        let failures = failures.unwrap_or(by_default);
        let enforced = if failures == 0 { 0 } else { 100 };
        // A threshold must not be zero.
        (number(failures.max(1)), number(enforced))
    };
    let (connect, enforcing_connect) = detector(wanted.connect_failures, CONNECT_FAILURES);
    let (gateway, enforcing_gateway) = detector(wanted.gateway_failures, GATEWAY_FAILURES);
    let (errors, enforcing_errors) = detector(wanted.server_errors, 0);
    let ejection = wanted.ejection.unwrap_or(EJECTION);
    Some(OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: connect,
        enforcing_consecutive_local_origin_failure: enforcing_connect,
        consecutive_gateway_failure: gateway,
        enforcing_consecutive_gateway_failure: enforcing_gateway,
        consecutive_5xx: errors,
        enforcing_consecutive_5xx: enforcing_errors,
        interval: duration(wanted.interval.unwrap_or(EJECTION_INTERVAL)),
        base_ejection_time: duration(ejection),
        max_ejection_time: duration(wanted.max_ejection.unwrap_or(MAX_EJECTION).max(ejection)),
        max_ejection_percent: number(wanted.max_ejection_percent.unwrap_or(MAX_EJECTION_PERCENT)),
        ..cluster::no_outlier_detection()
    })
}

fn health_check(check: &HealthCheck, service: &Service) -> base::HealthCheck {
    let interval = check.interval.unwrap_or(CHECK_INTERVAL);
    base::HealthCheck {
        timeout: duration(check.timeout.unwrap_or(CHECK_TIMEOUT)),
        interval: duration(interval),
        // By default a cluster without traffic is checked once a minute, so the first requests
        // would meet what has died since.
        no_traffic_interval: duration(interval),
        interval_jitter_percent: CHECK_JITTER_PERCENT,
        healthy_threshold: number(check.healthy_after.unwrap_or(HEALTHY_AFTER)),
        unhealthy_threshold: number(check.unhealthy_after.unwrap_or(UNHEALTHY_AFTER)),
        health_checker: Some(match check.asked() {
            Check::Http(asked) => HealthChecker::HttpHealthCheck(HttpHealthCheck {
                path: asked.path.clone(),
                host: if asked.host.is_empty() { &service.name } else { &asked.host }.clone(),
                expected_statuses: asked.statuses.0.iter().map(range).collect(),
                codec_client_type: match service.protocol {
                    Protocol::Http2 => CodecClientType::Http2,
                    Protocol::Http1 | Protocol::Tcp => CodecClientType::Http1,
                }
                .into(),
                ..HttpHealthCheck::default()
            }),
            Check::Grpc(asked) => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
                service_name: asked.service.clone(),
                ..GrpcHealthCheck::default()
            }),
            Check::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
        }),
        ..base::HealthCheck::default()
    }
}

/// Envoy's end is exclusive.
fn range((first, last): &(u32, u32)) -> Int64Range {
    Int64Range { start: i64::from(*first), end: i64::from(*last) + 1 }
}
