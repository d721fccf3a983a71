//! How Envoys carry the calls of a service, where a person wants it otherwise than by default.

use std::time::Duration;

use proto::{millis, quorate::v1 as wire};

use crate::registry::refusal::{Refusal, malformed};

/// Longest silence of a stream that can be asked for; "for ever" is said as such.
const LONGEST_IDLE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceOptions {
    /// How long a stream or a TCP connection may be silent, zero for ever; none for the default.
    pub stream_idle: Option<Duration>,
    /// Whether unhealthy instances are tried when no other is left.
    pub try_unhealthy: bool,
}

impl ServiceOptions {
    pub(in crate::registry) fn parse(options: wire::ServiceOptions) -> Result<Self, Refusal> {
        let stream_idle = options.stream_idle_ms.map(Duration::from_millis);
        if stream_idle.is_some_and(|it| it > LONGEST_IDLE) {
            return Err(malformed("stream_idle_ms is more than 30 days; zero is for ever"));
        }
        Ok(Self { stream_idle, try_unhealthy: options.try_unhealthy })
    }

    pub fn to_proto(self) -> wire::ServiceOptions {
        wire::ServiceOptions {
            stream_idle_ms: self.stream_idle.map(millis),
            try_unhealthy: self.try_unhealthy,
        }
    }

    /// Nothing if all is by default, as in a row that was written before there were options.
    pub(super) fn to_record(self) -> Option<wire::ServiceOptions> {
        (self != Self::default()).then(|| self.to_proto())
    }
}
