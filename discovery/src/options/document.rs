//! The document of a service, as people write it in YAML or JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    AccessLog, HealthCheck, Limits, LoadBalancing, OutlierDetection, Retries, ServiceOptions,
    Timeouts, WrongOption, bounds, duration,
};

/// A document with `kind: Service`. Who has one parses it with any serde format, and then takes
/// [`ServiceSpec::into_options`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceDocument {
    pub kind: Kind,
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: ServiceSpec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Service,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    pub name: String,
}

/// The protocol of a service and its options, side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// `http1`, `http2` or `tcp`: the service is made if it does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub timeouts: Timeouts,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub retries: Retries,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub limits: Limits,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub outlier_detection: OutlierDetection,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub load_balancing: LoadBalancing,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    #[serde(skip_serializing_if = "bounds::is_default")]
    pub try_unhealthy: bool,
    #[serde(with = "duration", skip_serializing_if = "Option::is_none")]
    pub forget_after: Option<Duration>,
}

impl ServiceSpec {
    /// The options alone, checked.
    ///
    /// # Errors
    ///
    /// As [`ServiceOptions::check`].
    pub fn into_options(self) -> Result<ServiceOptions, WrongOption> {
        let Self {
            protocol: _,
            timeouts,
            retries,
            limits,
            outlier_detection,
            health_check,
            load_balancing,
            access_log,
            try_unhealthy,
            forget_after,
        } = self;
        let options = ServiceOptions {
            timeouts,
            retries,
            limits,
            outlier_detection,
            health_check,
            load_balancing,
            access_log,
            try_unhealthy,
            forget_after,
        };
        options.check()?;
        Ok(options)
    }
}
