//! How long a connection, a request and a stream may take.

use std::time::Duration;

use proto::quorate::v1 as wire;
use serde::{Deserialize, Serialize};

use super::{
    bounds::{DAY, MINUTE, WrongOption, times},
    duration,
};

/// Longest bound that can be asked for; without a bound is "never".
const LONGEST: Duration = Duration::from_secs(DAY.as_secs() * 30);
const SHORTEST: Duration = Duration::from_millis(1);
const SHORTEST_CONNECT: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// Of a request with all its attempts, until the answer has ended.
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// Silence of a stream or of a TCP connection.
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub stream_idle: Option<Duration>,
    /// Life of a stream; also the most that a gRPC client's own deadline may be.
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub stream: Option<Duration>,
    /// To make a connection to an instance.
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub connect: Option<Duration>,
}

impl Timeouts {
    pub(super) fn from_proto(options: &wire::ServiceOptions) -> Self {
        Self {
            request: options.request_timeout_ms.map(Duration::from_millis),
            stream_idle: options.stream_idle_ms.map(Duration::from_millis),
            stream: options.stream_duration_ms.map(Duration::from_millis),
            connect: options.connect_timeout_ms.map(Duration::from_millis),
        }
    }

    pub(super) fn check(&self) -> Result<(), WrongOption> {
        times("timeouts.request", self.request, SHORTEST, LONGEST).or_never()?;
        times("timeouts.streamIdle", self.stream_idle, SHORTEST, LONGEST).or_never()?;
        times("timeouts.stream", self.stream, SHORTEST, LONGEST).or_never()?;
        times("timeouts.connect", self.connect, SHORTEST_CONNECT, MINUTE).bounded()
    }
}
