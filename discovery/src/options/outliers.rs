//! When an Envoy stops using an instance for a while, by what it sees itself.

use std::time::Duration;

use proto::{millis, quorate::v1 as wire};
use serde::{Deserialize, Serialize};

use super::{
    bounds::{DAY, HOUR, WrongOption, count, times},
    duration,
};

const SHORTEST: Duration = Duration::from_millis(100);
const MOST_IN_A_ROW: u32 = 1_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierDetection {
    #[serde(skip_serializing_if = "super::bounds::is_default")]
    pub off: bool,
    /// Connections in a row that could not be made or broke; zero for none of these detectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_failures: Option<u32>,
    /// Answers 502, 503 and 504 in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_failures: Option<u32>,
    /// Answers 5xx in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_errors: Option<u32>,
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Of the first ejection; each further one lasts that much longer.
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Duration>,
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub max_ejection: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ejection_percent: Option<u32>,
}

impl OutlierDetection {
    pub(super) fn from_proto(outliers: &wire::OutlierOptions) -> Self {
        Self {
            off: outliers.off,
            connect_failures: outliers.connect_failures,
            gateway_failures: outliers.gateway_failures,
            server_errors: outliers.server_errors,
            interval: outliers.interval_ms.map(Duration::from_millis),
            ejection: outliers.ejection_ms.map(Duration::from_millis),
            max_ejection: outliers.max_ejection_ms.map(Duration::from_millis),
            max_ejection_percent: outliers.max_ejection_percent,
        }
    }

    pub(super) fn to_proto(self) -> wire::OutlierOptions {
        wire::OutlierOptions {
            off: self.off,
            connect_failures: self.connect_failures,
            gateway_failures: self.gateway_failures,
            server_errors: self.server_errors,
            interval_ms: self.interval.map(millis),
            ejection_ms: self.ejection.map(millis),
            max_ejection_ms: self.max_ejection.map(millis),
            max_ejection_percent: self.max_ejection_percent,
        }
    }

    pub(super) fn check(&self) -> Result<(), WrongOption> {
        for (option, value) in [
            ("outlierDetection.connectFailures", self.connect_failures),
            ("outlierDetection.gatewayFailures", self.gateway_failures),
            ("outlierDetection.serverErrors", self.server_errors),
        ] {
            count(option, value, 0..=MOST_IN_A_ROW)?;
        }
        times("outlierDetection.interval", self.interval, SHORTEST, HOUR).bounded()?;
        times("outlierDetection.ejection", self.ejection, SHORTEST, DAY).bounded()?;
        let first = self.ejection.unwrap_or(SHORTEST);
        times("outlierDetection.maxEjection", self.max_ejection, first, DAY).bounded()?;
        // gRPC clients refuse more.
        count("outlierDetection.maxEjectionPercent", self.max_ejection_percent, 0..=100)?;
        let others = Self { off: false, ..*self };
        if self.off && others != Self::default() {
            let allowed = "no other option of outlierDetection goes with it";
            return Err(WrongOption::new("outlierDetection.off", "true", allowed));
        }
        Ok(())
    }
}
