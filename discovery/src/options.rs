//! The options of a service: how Envoys carry its calls, and how long it is kept.
//!
//! [`ServiceOptions`] is the one type for all who say or read them. A person writes it in a
//! document or as flags, by way of serde; on the wire and in rows it is a protobuf message. Both
//! ways in end at [`ServiceOptions::check`], so what the registry holds is what every client takes.
//!
//! What is not given is none, and whoever uses the option knows its default. So a listed option is
//! one that somebody has set, and a default may change without a row being written.

mod access_log;
mod balancing;
mod bounds;
mod document;
mod duration;
mod health_check;
mod limits;
mod outliers;
mod retries;
#[cfg(test)]
mod tests;
mod timeouts;

use std::time::Duration;

use proto::{millis, quorate::v1 as wire};
use serde::{Deserialize, Serialize};

use self::bounds::{DAY, SECOND, times};
pub use self::{
    access_log::{AccessLog, LogFormat, LogTarget},
    balancing::{Cookie, Hash, LoadBalancing, Policy, SlowStart},
    bounds::WrongOption,
    document::{ServiceDocument, ServiceSpec},
    duration::{NotADuration, parse_duration, parse_duration_or_never},
    health_check::{Check, GrpcCheck, HealthCheck, HttpCheck, Statuses, TcpCheck},
    limits::Limits,
    outliers::OutlierDetection,
    retries::{Retries, RetryWhen},
    timeouts::Timeouts,
};

/// How Envoys carry the calls of a service. A time of zero is "never".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceOptions {
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub timeouts: Timeouts,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub retries: Retries,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub limits: Limits,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub outlier_detection: OutlierDetection,
    /// Checks by every Envoy itself; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub load_balancing: LoadBalancing,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// Whether unhealthy instances are tried when no other is left.
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub try_unhealthy: bool,
    /// How long the service is kept while it has no instance.
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub forget_after: Option<Duration>,
}

impl ServiceOptions {
    /// Takes options from the wire or from a row.
    ///
    /// # Errors
    ///
    /// As [`ServiceOptions::check`].
    pub fn parse(options: wire::ServiceOptions) -> Result<Self, WrongOption> {
        let parsed = Self {
            timeouts: Timeouts::from_proto(&options),
            retries: Retries::from_proto(options.retries.unwrap_or_default())?,
            limits: Limits::from_proto(&options.limits.unwrap_or_default()),
            outlier_detection: OutlierDetection::from_proto(
                &options.outlier_detection.unwrap_or_default(),
            ),
            health_check: options.health_check.map(HealthCheck::from_proto).transpose()?,
            load_balancing: LoadBalancing::from_proto(options.load_balancing.unwrap_or_default())?,
            access_log: options.access_log.map(AccessLog::from_proto),
            try_unhealthy: options.try_unhealthy,
            forget_after: options.forget_after_ms.map(Duration::from_millis),
        };
        parsed.check()?;
        Ok(parsed)
    }

    pub fn to_proto(&self) -> wire::ServiceOptions {
        let Timeouts { request, stream_idle, stream, connect } = self.timeouts;
        wire::ServiceOptions {
            stream_idle_ms: stream_idle.map(millis),
            try_unhealthy: self.try_unhealthy,
            request_timeout_ms: request.map(millis),
            stream_duration_ms: stream.map(millis),
            connect_timeout_ms: connect.map(millis),
            retries: bounds::unless_default(&self.retries, |it| it.to_proto()),
            limits: bounds::unless_default(&self.limits, |it| it.to_proto()),
            outlier_detection: bounds::unless_default(&self.outlier_detection, |it| it.to_proto()),
            health_check: self.health_check.as_ref().map(HealthCheck::to_proto),
            load_balancing: bounds::unless_default(&self.load_balancing, LoadBalancing::to_proto),
            access_log: self.access_log.as_ref().map(AccessLog::to_proto),
            forget_after_ms: self.forget_after.map(millis),
        }
    }

    /// Whether every option is one that all clients take.
    ///
    /// # Errors
    ///
    /// Names the first option that is not, its value, and what is allowed.
    pub fn check(&self) -> Result<(), WrongOption> {
        self.timeouts.check()?;
        self.retries.check(&self.timeouts)?;
        self.limits.check()?;
        self.outlier_detection.check()?;
        if let Some(check) = &self.health_check {
            check.check()?;
        }
        self.load_balancing.check()?;
        if let Some(log) = &self.access_log {
            log.check()?;
        }
        times("forgetAfter", self.forget_after, SECOND, DAY * 365).or_never()
    }
}
