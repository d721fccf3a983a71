//! Access logs: a line for each call of a service that asks for it.
//!
//! A listener of one service has that service's log. A listener of all services cannot be made anew
//! whenever one of them is configured, so a virtual host only says where its calls are to be
//! logged, in its metadata, and each log of such a listener takes the calls of its own hosts.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{
                self as accesslog, AccessLogFilter, ExtensionFilter, access_log,
                access_log_filter::FilterSpecifier, extension_filter,
            },
            core::v3::Metadata,
        },
        extensions::access_loggers::{
            file::v3::FileAccessLog, filters::cel::v3::ExpressionFilter,
            stream::v3::StdoutAccessLog,
        },
    },
    google::protobuf::{Any, Struct, Value, value},
};
use prost::{Message, Name};

use super::build::any;
use crate::options::{AccessLog, LogFormat, LogTarget};

/// What a line of JSON says, by key. The keys are part of the interface.
const FIELDS: [(&str, &str); 15] = [
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration_ms", "%DURATION%"),
    ("flags", "%RESPONSE_FLAGS%"),
    ("grpc_status", "%GRPC_STATUS_NUMBER%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("remote", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("service", "%UPSTREAM_CLUSTER%"),
    ("status", "%RESPONSE_CODE%"),
    ("time", "%START_TIME%"),
    ("upstream", "%UPSTREAM_HOST%"),
];

/// Where a virtual host says which log it wants.
const METADATA: &str = "quorate";
const METADATA_KEY: &str = "log";

/// The log of a listener of one service.
pub(super) fn of_service(log: &AccessLog) -> accesslog::AccessLog {
    let (name, config) = match &log.to {
        LogTarget::Stdout => ("envoy.access_loggers.stdout", stdout(log.format)),
        LogTarget::File(path) => ("envoy.access_loggers.file", file(path, log.format)),
    };
    accesslog::AccessLog {
        name: name.to_owned(),
        filter: None,
        config_type: Some(access_log::ConfigType::TypedConfig(config)),
    }
}

/// The log of a listener of all services, for those hosts that ask for this one.
pub(super) fn of_hosts(log: &AccessLog) -> accesslog::AccessLog {
    let expression = format!("{} == '{}'", host_log(), key(log));
    let filter = ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".to_owned(),
        config_type: Some(extension_filter::ConfigType::TypedConfig(any(&ExpressionFilter {
            expression,
            ..ExpressionFilter::default()
        }))),
    };
    let filter =
        AccessLogFilter { filter_specifier: Some(FilterSpecifier::ExtensionFilter(filter)) };
    accesslog::AccessLog { filter: Some(filter), ..of_service(log) }
}

/// The metadata of a virtual host that asks for this log. One entry in each map, since the maps of
/// these types have no order.
pub(super) fn asked_by_host(log: &AccessLog) -> Metadata {
    let text = Value { kind: Some(value::Kind::StringValue(key(log))) };
    let asked = Struct { fields: [(METADATA_KEY.to_owned(), text)].into() };
    Metadata { filter_metadata: [(METADATA.to_owned(), asked)].into(), ..Metadata::default() }
}

/// What a virtual host asks for, as an expression: the format, and after a blank the file, if any.
pub fn host_log() -> String {
    format!("xds.virtual_host_metadata.filter_metadata['{METADATA}']['{METADATA_KEY}']")
}

/// What a line of JSON says, by key, for listeners that are made elsewhere.
pub const fn json_fields() -> &'static [(&'static str, &'static str)] {
    &FIELDS
}

fn key(log: &AccessLog) -> String {
    let format = match log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    match &log.to {
        LogTarget::Stdout => format.to_owned(),
        LogTarget::File(path) => format!("{format} {}", path),
    }
}

fn file(path: &str, format: LogFormat) -> Any {
    let encoded = match format {
        LogFormat::Text => {
            FileAccessLog { path: path.to_owned(), ..FileAccessLog::default() }.encode_to_vec()
        }
        LogFormat::Json => {
            JsonFile { path: path.to_owned(), log_format: Some(json()) }.encode_to_vec()
        }
    };
    Any { type_url: FileAccessLog::type_url(), value: encoded }
}

fn stdout(format: LogFormat) -> Any {
    let encoded = match format {
        LogFormat::Text => StdoutAccessLog::default().encode_to_vec(),
        LogFormat::Json => JsonStdout { log_format: Some(json()) }.encode_to_vec(),
    };
    Any { type_url: StdoutAccessLog::type_url(), value: encoded }
}

fn json() -> JsonFormat {
    let text = |(key, text): &(&str, &str)| {
        ((*key).to_owned(), JsonText { string_value: (*text).to_owned() })
    };
    JsonFormat { json_format: Some(JsonStruct { fields: FIELDS.iter().map(text).collect() }) }
}

// Envoy's messages, to be encoded only: with maps that have an order, so that every replica and
// every build encodes the same bytes.

/// `envoy.extensions.access_loggers.file.v3.FileAccessLog`
#[derive(Clone, PartialEq, Message)]
struct JsonFile {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(message, optional, tag = "5")]
    log_format: Option<JsonFormat>,
}

/// `envoy.extensions.access_loggers.stream.v3.StdoutAccessLog`
#[derive(Clone, PartialEq, Message)]
struct JsonStdout {
    #[prost(message, optional, tag = "1")]
    log_format: Option<JsonFormat>,
}

/// `envoy.config.core.v3.SubstitutionFormatString`
#[derive(Clone, PartialEq, Message)]
struct JsonFormat {
    #[prost(message, optional, tag = "2")]
    json_format: Option<JsonStruct>,
}

/// `google.protobuf.Struct`
#[derive(Clone, PartialEq, Message)]
struct JsonStruct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, JsonText>,
}

/// `google.protobuf.Value`
#[derive(Clone, PartialEq, Message)]
struct JsonText {
    #[prost(string, tag = "3")]
    string_value: String,
}
