//! Checks of the instances by every Envoy itself.

use std::{fmt, time::Duration};

use proto::{millis, quorate::v1 as wire};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    bounds::{HOUR, MINUTE, WrongOption, count, is_visible, text, times},
    duration,
};

/// Ranges of statuses in one check.
const MOST_RANGES: usize = 16;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheck>,
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Successes in a row that bring an instance back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy_after: Option<u32>,
    /// Failures in a row that take an instance out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy_after: Option<u32>,
}

/// What is asked of an instance.
#[derive(Clone, Copy, Debug)]
pub enum Check<'a> {
    Http(&'a HttpCheck),
    Grpc(&'a GrpcCheck),
    Tcp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    pub path: String,
    /// Empty for the name of the service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    #[serde(skip_serializing_if = "super::bounds::is_default")]
    pub statuses: Statuses,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcCheck {
    /// Empty for the server as a whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
}

/// To connect is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpCheck {}

/// Ranges of statuses, written as `200-299,404`. None is 200 alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(pub Vec<(u32, u32)>);

impl HealthCheck {
    /// What is asked. `HealthCheck::check` has seen that it is one thing.
    pub fn asked(&self) -> Check<'_> {
        match (&self.http, &self.grpc) {
            (Some(http), _) => Check::Http(http),
            (None, Some(grpc)) => Check::Grpc(grpc),
            (None, None) => Check::Tcp,
        }
    }

    pub(super) fn from_proto(check: wire::HealthCheckOptions) -> Result<Self, WrongOption> {
        use wire::health_check_options::Check as Asked;

        let mut parsed = Self {
            interval: check.interval_ms.map(Duration::from_millis),
            timeout: check.timeout_ms.map(Duration::from_millis),
            healthy_after: check.healthy_after,
            unhealthy_after: check.unhealthy_after,
            ..Self::default()
        };
        match check.check.ok_or_else(nothing_asked)? {
            Asked::Http(wire::HttpCheckOptions { path, host, statuses }) => {
                let ranges = statuses.iter().map(|it| (it.first, it.last)).collect();
                parsed.http = Some(HttpCheck { path, host, statuses: Statuses(ranges) });
            }
            Asked::Grpc(wire::GrpcCheckOptions { service }) => {
                parsed.grpc = Some(GrpcCheck { service });
            }
            Asked::Tcp(wire::TcpCheckOptions {}) => parsed.tcp = Some(TcpCheck {}),
        }
        Ok(parsed)
    }

    pub(super) fn to_proto(&self) -> wire::HealthCheckOptions {
        use wire::health_check_options::Check as Asked;

        let asked = match self.asked() {
            Check::Http(HttpCheck { path, host, statuses }) => {
                let (path, host) = (path.clone(), host.clone());
                let range =
                    |(first, last): &(u32, u32)| wire::StatusRange { first: *first, last: *last };
                let statuses = statuses.0.iter().map(range).collect();
                Asked::Http(wire::HttpCheckOptions { path, host, statuses })
            }
            Check::Grpc(GrpcCheck { service }) => {
                Asked::Grpc(wire::GrpcCheckOptions { service: service.clone() })
            }
            Check::Tcp => Asked::Tcp(wire::TcpCheckOptions {}),
        };
        wire::HealthCheckOptions {
            check: Some(asked),
            interval_ms: self.interval.map(millis),
            timeout_ms: self.timeout.map(millis),
            healthy_after: self.healthy_after,
            unhealthy_after: self.unhealthy_after,
        }
    }

    pub(super) fn check(&self) -> Result<(), WrongOption> {
        match (&self.http, &self.grpc, &self.tcp) {
            (Some(http), None, None) => http.check()?,
            (None, Some(grpc), None) if grpc.service.is_empty() => {}
            (None, Some(grpc), None) => {
                text("healthCheck.grpc.service", &grpc.service, is_visible, "visible ASCII")?;
            }
            (None, None, Some(_)) => {}
            (None, None, None) => return Err(nothing_asked()),
            (_, _, _) => {
                let allowed = "it has one of http, grpc and tcp";
                return Err(WrongOption::new("healthCheck", "several checks", allowed));
            }
        }
        let shortest = Duration::from_millis(100);
        times("healthCheck.interval", self.interval, shortest, HOUR).bounded()?;
        times("healthCheck.timeout", self.timeout, shortest, MINUTE).bounded()?;
        count("healthCheck.healthyAfter", self.healthy_after, 1..=100)?;
        count("healthCheck.unhealthyAfter", self.unhealthy_after, 1..=100)
    }
}

impl HttpCheck {
    fn check(&self) -> Result<(), WrongOption> {
        let allowed = "of visible ASCII, beginning with a `/`";
        text("healthCheck.http.path", &self.path, is_visible, allowed)?;
        if !self.path.starts_with('/') {
            let value = format!("{:?}", self.path);
            return Err(WrongOption::new("healthCheck.http.path", value, "it begins with a `/`"));
        }
        if !self.host.is_empty() {
            text("healthCheck.http.host", &self.host, is_visible, "of visible ASCII")?;
        }
        let is_fine = |(first, last): &(u32, u32)| 100 <= *first && first <= last && *last <= 599;
        if self.statuses.0.len() <= MOST_RANGES && self.statuses.0.iter().all(is_fine) {
            return Ok(());
        }
        let allowed = format!("it is at most {MOST_RANGES} of 100 to 599, like 200-299,404");
        Err(WrongOption::new("healthCheck.http.statuses", self.statuses.to_string(), allowed))
    }
}

fn nothing_asked() -> WrongOption {
    WrongOption::new("healthCheck", "without a check", "it has one of http, grpc and tcp")
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusesVisitor)
    }
}

struct StatusesVisitor;

impl de::Visitor<'_> for StatusesVisitor {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("statuses like 200 or 200-299,404")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
        let refused = || E::invalid_value(de::Unexpected::Str(text), &self);
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| refused());
        let range = |part: &str| match part.split_once('-') {
            Some((first, last)) => Ok((number(first)?, number(last)?)),
            None => number(part).map(|only| (only, only)),
        };
        text.split(',').map(range).collect::<Result<_, E>>().map(Statuses)
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<Statuses, E> {
        self.visit_str(&status.to_string())
    }
}
