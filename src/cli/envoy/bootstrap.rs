//! The bootstrap of an Envoy: a pure function from what an operator says to YAML.
//!
//! Everything static here is what an Envoy needs before DISCO has told it anything: where DISCO is,
//! by IP, and, for a front proxy, the two ports at which callers enter. The rest comes over one ADS
//! stream. Envoy resolves no name for any of it.
//!
//! Names of what is static have a `/`, or are reserved: no service can have the name of one and take
//! its place.
//!
//! The choices that matter when servers die: keepalive pings find a silent DISCO server within
//! seconds, outlier detection keeps the next attempt away from it, and the stream is retried every
//! few seconds at most rather than every 30.

use std::{fmt, net::SocketAddr};

use discovery::translation::{
    IDEMPOTENT_METHODS, NOT_DELIVERED_HEADER, NOT_WEBSOCKET, host_log, json_fields,
};

#[cfg(test)]
mod tests;

#[derive(Clone, Debug)]
pub(crate) struct Bootstrap {
    /// Tells this Envoy from others in what DISCO lists.
    pub(crate) node_id: String,
    pub(crate) service: String,
    pub(crate) region: String,
    pub(crate) zone: String,
    /// The mesh that the Envoy belongs to; empty if nobody could say. DISCO servers of another one
    /// refuse it then, whatever becomes of their addresses.
    pub(crate) mesh: String,
    pub(crate) disco: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) variant: Variant,
    pub(crate) role: Role,
}

/// The two forms of ADS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Variant {
    /// Changes only.
    Delta,
    /// Every answer is complete.
    Sotw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Beside an application: with `outbound` a local port for every service, and optionally its own
    /// way in.
    Sidecar { inbound: Option<Inbound>, outbound: bool },
    /// Where callers enter: HTTP routed to services, and the etcd API routed to leaders.
    Front { http: SocketAddr, kv: SocketAddr },
}

/// Takes calls at one address and hands them to the application at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inbound {
    pub(crate) listen: SocketAddr,
    pub(crate) application: SocketAddr,
}

impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("# An Envoy bootstrap, made by `quorate envoy bootstrap`.\n")?;
        f.write_str(&self.node())?;
        f.write_str(&self.dynamic_resources())?;
        f.write_str("static_resources:\n")?;
        match self.role {
            Role::Sidecar { inbound: None, .. } => {}
            Role::Sidecar { inbound: Some(inbound), .. } => {
                f.write_str("  listeners:\n")?;
                f.write_str(&inbound.listener(&self.service))?;
            }
            Role::Front { http, kv } => {
                f.write_str("  listeners:\n")?;
                f.write_str(&http_listener(http))?;
                f.write_str(&kv_listener(kv))?;
            }
        }
        f.write_str("  clusters:\n")?;
        f.write_str(&self.disco_cluster())?;
        if let Role::Sidecar { inbound: Some(inbound), .. } = self.role {
            f.write_str(&inbound.cluster())?;
        }
        Ok(())
    }
}

impl Bootstrap {
    fn node(&self) -> String {
        format!(
            r#"node:
  id: {id}
  cluster: {service}
  locality:
    region: {region}
    zone: {zone}
{metadata}admin:
  address: {admin}
"#,
            metadata = self.metadata(),
            id = quoted(&self.node_id),
            service = quoted(&self.service),
            region = quoted(&self.region),
            zone = quoted(&self.zone),
            admin = socket(self.admin),
        )
    }

    fn metadata(&self) -> String {
        if self.mesh.is_empty() {
            return String::new();
        }
        format!("  metadata:\n    quorate: {{mesh: {}}}\n", quoted(&self.mesh))
    }

    fn dynamic_resources(&self) -> String {
        let api_type = match self.variant {
            Variant::Delta => "DELTA_GRPC",
            Variant::Sotw => "GRPC",
        };
        // A front proxy's listeners are static, so the sidecars' local ports stay off it.
        let listeners = match self.role {
            Role::Sidecar { outbound: true, .. } => {
                "  lds_config: {resource_api_version: V3, ads: {}}\n"
            }
            Role::Sidecar { outbound: false, .. } | Role::Front { .. } => "",
        };
        format!(
            r#"dynamic_resources:
  ads_config:
    api_type: {api_type}
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services:
    - envoy_grpc:
        cluster_name: mesh/disco
        retry_policy:
          retry_back_off: {{base_interval: 0.25s, max_interval: 3s}}
  cds_config: {{resource_api_version: V3, ads: {{}}}}
{listeners}"#
        )
    }

    fn disco_cluster(&self) -> String {
        let mut cluster = String::from(
            r#"  - name: mesh/disco
    type: STATIC
    connect_timeout: 1s
    lb_policy: ROUND_ROBIN
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options:
            connection_keepalive: {interval: 5s, timeout: 2s}
    upstream_connection_options:
      tcp_keepalive: {keepalive_probes: 3, keepalive_time: 10, keepalive_interval: 5}
    outlier_detection:
      consecutive_5xx: 2
      consecutive_gateway_failure: 2
      enforcing_consecutive_gateway_failure: 100
      interval: 1s
      base_ejection_time: 5s
      max_ejection_time: 15s
      max_ejection_percent: 100
    load_assignment:
      cluster_name: mesh/disco
      endpoints:
      - lb_endpoints:
"#,
        );
        for address in &self.disco {
            cluster.push_str(&format!("        - endpoint: {{address: {}}}\n", socket(*address)));
        }
        cluster
    }
}

impl Inbound {
    fn listener(&self, service: &str) -> String {
        format!(
            r#"  - name: mesh/inbound
    address: {address}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: inbound
          codec_type: AUTO
          stream_idle_timeout: 0s
{callers}          local_reply_config:
            mappers:
            - filter: {{response_flag_filter: {{flags: [UF]}}}}
              headers_to_add:
              - header: {{key: {NOT_DELIVERED_HEADER}, value: "true"}}
          route_config:
            name: mesh/inbound
            virtual_hosts:
            - name: mesh/inbound
              domains: ["*"]
              routes:
              - match: {{prefix: "/", headers: [{{name: ":method", string_match: {{safe_regex: {{regex: "{IDEMPOTENT_METHODS}"}}}}}}]}}
                route:
                  cluster: mesh/application
                  timeout: 0s
                  retry_policy: {{retry_on: "{SAFE},reset", num_retries: 2}}
              - match: {{prefix: "/"}}
                route:
                  cluster: mesh/application
                  timeout: 0s
                  retry_policy: {{retry_on: "{SAFE}", num_retries: 2}}
          http_filters:
{ROUTER}"#,
            address = socket(self.listen),
            callers = callers_of_every_age(Some(service)),
        )
    }

    fn cluster(&self) -> String {
        format!(
            r#"  - name: mesh/application
    type: STATIC
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {{idle_timeout: 1.5s}}
        use_downstream_protocol_config:
          http2_protocol_options: {{allow_connect: true}}
    load_assignment:
      cluster_name: mesh/application
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {address}}}
"#,
            address = socket(self.application),
        )
    }
}

/// What was surely not carried out is tried again; the application may be starting.
const SAFE: &str = "connect-failure,refused-stream,reset-before-request";

const ROUTER: &str = r#"          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#;

fn http_listener(address: SocketAddr) -> String {
    format!(
        r#"  - name: mesh/ingress
    address: {address}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          codec_type: AUTO
          use_remote_address: true
{logs}{callers}          rds:
            route_config_name: ingress
            config_source: {{resource_api_version: V3, ads: {{}}}}
          http_filters:
{ROUTER}"#,
        address = socket(address),
        logs = access_logs(),
        callers = callers_of_every_age(None),
    )
}

/// Lines on standard output for the calls of services that ask for a log, whatever file they name:
/// the files are those of sidecars.
fn access_logs() -> String {
    let fields: Vec<String> =
        json_fields().iter().map(|(key, text)| format!("{key}: {}", quoted(text))).collect();
    let json = format!("              log_format: {{json_format: {{{}}}}}\n", fields.join(", "));
    let mut logs = "          access_log:\n".to_owned();
    for (format, log_format) in [("text", ""), ("json", &*json)] {
        let expression = quoted(&format!("{}.startsWith('{format}')", host_log()));
        logs.push_str(&format!(
            r#"          - name: envoy.access_loggers.stdout
            filter:
              extension_filter:
                name: envoy.access_loggers.extension_filters.cel
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter
                  expression: {expression}
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
{log_format}"#
        ));
    }
    logs
}

/// Callers may upgrade to WebSocket and speak HTTP/1.0, in which a request need not name a host.
fn callers_of_every_age(default_host: Option<&str>) -> String {
    let default_host = default_host
        .map(|host| format!("            default_host_for_http_10: {}\n", quoted(host)))
        .unwrap_or_default();
    format!(
        r#"          upgrade_configs: [{{upgrade_type: websocket}}]
          http_protocol_options:
            accept_http_10: true
            ignore_http_11_upgrade: [{{safe_regex: {{regex: "{NOT_WEBSOCKET}"}}}}]
{default_host}          http2_protocol_options: {{allow_connect: true}}
"#
    )
}

/// The etcd API: gRPC, with streams that may be silent for as long as nothing changes.
fn kv_listener(address: SocketAddr) -> String {
    format!(
        r#"  - name: mesh/ingress-kv
    address: {address}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress-kv
          codec_type: HTTP2
          stream_idle_timeout: 0s
          request_timeout: 0s
          common_http_protocol_options: {{idle_timeout: 0s, max_stream_duration: 0s}}
          http2_protocol_options:
            connection_keepalive: {{interval: 10s, timeout: 5s}}
          rds:
            route_config_name: ingress-kv
            config_source: {{resource_api_version: V3, ads: {{}}}}
          http_filters:
{ROUTER}"#,
        address = socket(address),
    )
}

fn socket(address: SocketAddr) -> String {
    format!(
        "{{socket_address: {{address: {}, port_value: {}}}}}",
        quoted(&address.ip().to_string()),
        address.port()
    )
}

/// A text as YAML takes it whatever is in it: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
