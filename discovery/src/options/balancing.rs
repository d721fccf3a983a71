//! Which instance gets a call.

use std::time::Duration;

use proto::{millis, quorate::v1 as wire};
use serde::{Deserialize, Serialize};

use super::{
    bounds::{DAY, HOUR, SECOND, WrongOption, count, is_token, text, times},
    duration,
};

/// The largest ring that clients take.
const LARGEST_RING: u32 = 8 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancing {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    /// Entries of the ring, at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    LeastRequest,
    RoundRobin,
    RingHash,
    Maglev,
}

/// What the calls that go to one instance have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Hash {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<Cookie>,
    #[serde(skip_serializing_if = "super::bounds::is_default")]
    pub source_ip: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Cookie {
    pub name: String,
    /// Of the cookie that Envoy makes for callers that have none; zero ends with the session, and
    /// none makes none.
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
}

/// How an instance that appears is spared at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowStart {
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// How soon it gets much: 100 is a straight line, more is sooner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggression_percent: Option<u32>,
    /// What it gets at least, of its share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_weight_percent: Option<u32>,
}

impl Policy {
    const ALL: [Self; 4] = [Self::LeastRequest, Self::RoundRobin, Self::RingHash, Self::Maglev];

    const fn as_str(self) -> &'static str {
        match self {
            Self::LeastRequest => "least-request",
            Self::RoundRobin => "round-robin",
            Self::RingHash => "ring-hash",
            Self::Maglev => "maglev",
        }
    }

    const fn hashes(self) -> bool {
        match self {
            Self::RingHash | Self::Maglev => true,
            Self::LeastRequest | Self::RoundRobin => false,
        }
    }

    fn from_wire(text: &str) -> Result<Option<Self>, WrongOption> {
        if text.is_empty() {
            return Ok(None);
        }
        let known = Self::ALL.into_iter().find(|it| it.as_str() == text);
        known.map(Some).ok_or_else(|| {
            let allowed = "it is one of least-request, round-robin, ring-hash and maglev";
            WrongOption::new("loadBalancing.policy", text, allowed)
        })
    }
}

impl LoadBalancing {
    /// The policy, or the default one.
    pub fn policy(&self) -> Policy {
        self.policy.unwrap_or(Policy::LeastRequest)
    }

    pub(super) fn from_proto(balancing: wire::BalancingOptions) -> Result<Self, WrongOption> {
        Ok(Self {
            policy: Policy::from_wire(&balancing.policy)?,
            hash: balancing.hash.map(Hash::from_proto),
            ring_size: balancing.ring_size,
            slow_start: balancing.slow_start.map(|it| SlowStart {
                window: Some(Duration::from_millis(it.window_ms)),
                aggression_percent: it.aggression_percent,
                min_weight_percent: it.min_weight_percent,
            }),
        })
    }

    pub(super) fn to_proto(&self) -> wire::BalancingOptions {
        wire::BalancingOptions {
            policy: self.policy.map_or("", Policy::as_str).to_owned(),
            hash: self.hash.as_ref().map(Hash::to_proto),
            ring_size: self.ring_size,
            slow_start: self.slow_start.map(|it| wire::SlowStartOptions {
                window_ms: millis(it.window.unwrap_or_default()),
                aggression_percent: it.aggression_percent,
                min_weight_percent: it.min_weight_percent,
            }),
        }
    }

    pub(super) fn check(&self) -> Result<(), WrongOption> {
        let policy = self.policy();
        let only_with = |option, allowed: &str| {
            Err(WrongOption::new(option, format!("set for {}", policy.as_str()), allowed))
        };
        match (&self.hash, policy.hashes()) {
            (Some(hash), true) => hash.check()?,
            (None, false) => {}
            (Some(_), false) => {
                return only_with("loadBalancing.hash", "it goes with ring-hash and maglev");
            }
            (None, true) => {
                let allowed = "ring-hash and maglev hash one of header, cookie and sourceIp";
                return Err(WrongOption::new("loadBalancing.hash", "missing", allowed));
            }
        }
        if self.ring_size.is_some() && policy != Policy::RingHash {
            return only_with("loadBalancing.ringSize", "it goes with ring-hash");
        }
        count("loadBalancing.ringSize", self.ring_size, 1..=LARGEST_RING)?;
        let Some(slow_start) = self.slow_start else { return Ok(()) };
        if policy.hashes() {
            let allowed = "it goes with least-request and round-robin";
            return only_with("loadBalancing.slowStart", allowed);
        }
        slow_start.check()
    }
}

impl Hash {
    fn from_proto(hash: wire::HashOptions) -> Self {
        use wire::hash_options::On;

        let none = Self::default();
        match hash.on {
            Some(On::Header(header)) => Self { header: Some(header), ..none },
            Some(On::Cookie(wire::CookieOptions { name, ttl_ms })) => {
                let cookie = Cookie { name, ttl: ttl_ms.map(Duration::from_millis) };
                Self { cookie: Some(cookie), ..none }
            }
            Some(On::SourceIp(source_ip)) => Self { source_ip, ..none },
            None => none,
        }
    }

    fn to_proto(&self) -> wire::HashOptions {
        use wire::hash_options::On;

        let on = match (&self.header, &self.cookie) {
            (Some(header), _) => On::Header(header.clone()),
            (None, Some(cookie)) => On::Cookie(wire::CookieOptions {
                name: cookie.name.clone(),
                ttl_ms: cookie.ttl.map(millis),
            }),
            (None, None) => On::SourceIp(self.source_ip),
        };
        wire::HashOptions { on: Some(on) }
    }

    fn check(&self) -> Result<(), WrongOption> {
        match (&self.header, &self.cookie, self.source_ip) {
            (Some(header), None, false) => {
                let is_fine = |it: u8| is_token(it) && !it.is_ascii_uppercase();
                text("loadBalancing.hash.header", header, is_fine, "a header in lower case")
            }
            (None, Some(cookie), false) => {
                text("loadBalancing.hash.cookie.name", &cookie.name, is_token, "a token")?;
                let ttl = cookie.ttl;
                times("loadBalancing.hash.cookie.ttl", ttl, SECOND, DAY * 365).or_never()
            }
            (None, None, true) => Ok(()),
            (_, _, _) => Err(WrongOption::new(
                "loadBalancing.hash",
                "not one thing",
                "it has one of header, cookie and sourceIp",
            )),
        }
    }
}

impl SlowStart {
    fn check(self) -> Result<(), WrongOption> {
        let Some(window) = self.window else {
            let allowed = "slowStart has a window, like 30s";
            return Err(WrongOption::new("loadBalancing.slowStart.window", "missing", allowed));
        };
        times("loadBalancing.slowStart.window", Some(window), SECOND, HOUR).bounded()?;
        let aggression = self.aggression_percent;
        count("loadBalancing.slowStart.aggressionPercent", aggression, 1..=1_000)?;
        count("loadBalancing.slowStart.minWeightPercent", self.min_weight_percent, 0..=100)
    }
}
