//! What one Envoy uses of all instances of a service together.

use std::time::Duration;

use proto::{millis, quorate::v1 as wire};
use serde::{Deserialize, Serialize};

use super::{
    bounds::{DAY, SECOND, WrongOption, count, times},
    duration,
};

/// Practically no limit.
pub(super) const MOST: u32 = 1_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Requests that wait for a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_requests: Option<u32>,
    /// Requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Retries at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_connection: Option<u32>,
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub connection_duration: Option<Duration>,
}

impl Limits {
    pub(super) fn from_proto(limits: &wire::LimitOptions) -> Self {
        Self {
            connections: limits.connections,
            pending_requests: limits.pending_requests,
            requests: limits.requests,
            retries: limits.retries,
            requests_per_connection: limits.requests_per_connection,
            connection_duration: limits.connection_duration_ms.map(Duration::from_millis),
        }
    }

    pub(super) fn to_proto(self) -> wire::LimitOptions {
        wire::LimitOptions {
            connections: self.connections,
            pending_requests: self.pending_requests,
            requests: self.requests,
            retries: self.retries,
            requests_per_connection: self.requests_per_connection,
            connection_duration_ms: self.connection_duration.map(millis),
        }
    }

    pub(super) fn check(&self) -> Result<(), WrongOption> {
        count("limits.connections", self.connections, 1..=MOST)?;
        count("limits.pendingRequests", self.pending_requests, 1..=MOST)?;
        count("limits.requests", self.requests, 1..=MOST)?;
        count("limits.retries", self.retries, 0..=MOST)?;
        count("limits.requestsPerConnection", self.requests_per_connection, 1..=MOST)?;
        let duration = self.connection_duration;
        times("limits.connectionDuration", duration, SECOND, DAY * 30).or_never()
    }
}
