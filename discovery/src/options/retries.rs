//! Which requests are tried again, and how often.

use std::time::Duration;

use proto::{millis, quorate::v1 as wire};
use serde::{Deserialize, Serialize};

use super::{
    bounds::{HOUR, WrongOption, count, times},
    duration, limits,
    timeouts::Timeouts,
};

/// More attempts than this multiply the load of a service that is failing.
const MOST_ATTEMPTS: u32 = 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Retries {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<RetryWhen>,
    /// Further attempts, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub per_try: Option<Duration>,
    /// Retries at once as a share of the requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_percent: Option<u32>,
    /// Retries at once that are allowed whatever the share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_min: Option<u32>,
}

/// What is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetryWhen {
    None,
    /// A request that was surely not carried out.
    Safe,
    /// Also a request that may be carried out twice, if its connection was lost.
    Idempotent,
}

impl RetryWhen {
    const ALL: [Self; 3] = [Self::None, Self::Safe, Self::Idempotent];

    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Safe => "safe",
            Self::Idempotent => "idempotent",
        }
    }

    fn from_wire(text: &str) -> Result<Option<Self>, WrongOption> {
        if text.is_empty() {
            return Ok(None);
        }
        let known = Self::ALL.into_iter().find(|it| it.as_str() == text);
        known.map(Some).ok_or_else(|| {
            WrongOption::new("retries.when", text, "it is one of none, safe and idempotent")
        })
    }
}

impl Retries {
    pub(super) fn from_proto(retries: wire::RetryOptions) -> Result<Self, WrongOption> {
        Ok(Self {
            when: RetryWhen::from_wire(&retries.when)?,
            attempts: retries.attempts,
            per_try: retries.per_try_timeout_ms.map(Duration::from_millis),
            budget_percent: retries.budget_percent,
            budget_min: retries.budget_min,
        })
    }

    pub(super) fn to_proto(self) -> wire::RetryOptions {
        wire::RetryOptions {
            when: self.when.map_or("", RetryWhen::as_str).to_owned(),
            attempts: self.attempts,
            per_try_timeout_ms: self.per_try.map(millis),
            budget_percent: self.budget_percent,
            budget_min: self.budget_min,
        }
    }

    pub(super) fn check(&self, timeouts: &Timeouts) -> Result<(), WrongOption> {
        count("retries.attempts", self.attempts, 0..=MOST_ATTEMPTS)?;
        let whole = timeouts.request.filter(|it| !it.is_zero()).unwrap_or(HOUR);
        // An attempt that may take longer than the request is never ended by its own time.
        times("retries.perTry", self.per_try, Duration::from_millis(1), whole).bounded()?;
        count("retries.budgetPercent", self.budget_percent, 0..=100)?;
        count("retries.budgetMin", self.budget_min, 0..=limits::MOST)?;
        if self.budget_min.is_some() && self.budget_percent.is_none() {
            let allowed = "it goes with retries.budgetPercent";
            let value = self.budget_min.unwrap_or_default().to_string();
            return Err(WrongOption::new("retries.budgetMin", value, allowed));
        }
        Ok(())
    }
}
