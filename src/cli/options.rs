//! The options of a service as flags: of `register`, which asks for them, and of `service set`,
//! which has the last word.
//!
//! There is one name for an option, its path in a document, and one parser. So a flag may say every
//! option that a document may, and a few have flags of their own.

use std::time::Duration;

use clap::Args;
use discovery::options::{ServiceOptions, parse_duration_or_never};
use proto::quorate::v1 as wire;
use serde_json::{Map, Value};

use crate::{failure::Failure, values::ValueError};

#[cfg(test)]
mod tests;

const WHERE: &str = "docs/services.md lists the options and what they may be";

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct OptionArgs {
    /// Whole time of a request with its retries and its answer, or `never`, the default.
    #[arg(long, value_name = "DURATION|never", value_parser = never_or_duration)]
    request_timeout: Option<Duration>,
    /// How long a stream or TCP connection may be silent before it is cut, up to 30d, or `never`.
    /// The default is 1h for HTTP, `never` for TCP.
    #[arg(long, value_name = "DURATION|never", value_parser = never_or_duration)]
    stream_idle: Option<Duration>,
    /// Try unhealthy instances when no other is left. By default calls are refused then.
    #[arg(long)]
    try_unhealthy: bool,
    /// Any option of the service, by its path in a document; may be given several times, as in
    /// `--option retries.attempts=3 --option healthCheck.http.path=/ready`.
    ///
    /// timeouts: request, streamIdle, stream, connect. retries: when, attempts, perTry,
    /// budgetPercent, budgetMin. limits: connections, pendingRequests, requests, retries,
    /// requestsPerConnection, connectionDuration. outlierDetection: off, connectFailures,
    /// gatewayFailures, serverErrors, interval, ejection, maxEjection, maxEjectionPercent.
    /// healthCheck: http.path, http.host, http.statuses, grpc.service, tcp, interval, timeout,
    /// healthyAfter, unhealthyAfter. loadBalancing: policy, hash.header, hash.cookie.name,
    /// hash.cookie.ttl, hash.sourceIp, ringSize, slowStart.window, slowStart.aggressionPercent,
    /// slowStart.minWeightPercent. accessLog: to, format. tryUnhealthy. forgetAfter.
    #[arg(long = "option", value_name = "PATH=VALUE", value_parser = assignment)]
    options: Vec<(String, Value)>,
}

impl OptionArgs {
    /// What is asked for; nothing if no flag says anything.
    pub(crate) fn asked(&self) -> Result<Option<wire::ServiceOptions>, Failure> {
        let options = self.options()?;
        let says_something = !self.options.is_empty() || options != ServiceOptions::default();
        Ok(says_something.then(|| options.to_proto()))
    }

    /// All options, by default where no flag says anything.
    pub(crate) fn options(&self) -> Result<ServiceOptions, Failure> {
        let mut document = Value::Object(Map::new());
        for (path, value) in &self.options {
            put(&mut document, path, value.clone())?;
        }
        let mut options: ServiceOptions = serde_json::from_value(document)
            .map_err(|error| Failure::usage(format!("--option: {error}")).hint(WHERE))?;
        options.timeouts.request = self.request_timeout.or(options.timeouts.request);
        options.timeouts.stream_idle = self.stream_idle.or(options.timeouts.stream_idle);
        options.try_unhealthy |= self.try_unhealthy;
        options.check().map_err(|wrong| Failure::usage(wrong.to_string()).hint(WHERE))?;
        Ok(options)
    }
}

/// The options that a server lists, as in a document.
pub(crate) fn document(options: Option<&wire::ServiceOptions>) -> Value {
    // A server of a later version may know more than this program does.
    let options = ServiceOptions::parse(options.cloned().unwrap_or_default()).ok();
    options.and_then(|it| serde_json::to_value(it).ok()).unwrap_or(Value::Null)
}

/// How long something may last; zero for ever, as on the wire.
fn never_or_duration(text: &str) -> Result<Duration, ValueError> {
    parse_duration_or_never(text).map_err(|error| ValueError::Duration(error.0))
}

fn assignment(text: &str) -> Result<(String, Value), ValueError> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => Ok((path.to_owned(), scalar(value))),
        _ => Err(ValueError::Option(text.to_owned())),
    }
}

/// A value as it would stand in a document. An empty one is an empty object, as in
/// `healthCheck.tcp=`.
fn scalar(text: &str) -> Value {
    match (text, text.parse::<u64>()) {
        ("", _) => Value::Object(Map::new()),
        ("true", _) => true.into(),
        ("false", _) => false.into(),
        (_, Ok(number)) => number.into(),
        (text, Err(_)) => text.into(),
    }
}

/// Puts a value at a path whose parts are divided by dots.
fn put(document: &mut Value, path: &str, value: Value) -> Result<(), Failure> {
    let mut at = document;
    for part in path.split('.') {
        let Value::Object(fields) = at else {
            let message =
                format!("--option {path}: an earlier --option has set a part of this path");
            return Err(Failure::usage(message).hint(WHERE));
        };
        at = fields.entry(part).or_insert_with(|| Value::Object(Map::new()));
    }
    *at = value;
    Ok(())
}
