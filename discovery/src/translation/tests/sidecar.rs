//! The one listener of a sidecar, and what is logged there.

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{
                AccessLog, access_log, access_log_filter::FilterSpecifier, extension_filter,
            },
            core::v3::{SubstitutionFormatString, substitution_format_string::Format},
        },
        extensions::access_loggers::{
            file::v3::{FileAccessLog, file_access_log},
            filters::cel::v3::ExpressionFilter,
            stream::v3::{StdoutAccessLog, stdout_access_log},
        },
    },
    google::protobuf::value,
};
use proto::quorate::v1::AccessLogOptions;

use super::*;
use crate::registry::SIDECAR_PORTS;

#[test]
fn one_port_of_a_sidecar_serves_every_http_service_by_its_name() {
    let mut mesh = speaking("http2");
    let told = Told::of(&mesh);
    let listener: Listener = told.get(ResourceType::Listener, "mesh/outbound");
    assert_eq!(socket(listener.address.as_ref()), format!("127.0.0.1:{OUTBOUND_PORT}"));
    assert!(!SIDECAR_PORTS.contains(&OUTBOUND_PORT), "no service is given its port");
    assert_eq!(listener.enable_reuse_port, Some(BoolValue { value: false }));
    let Some(http_connection_manager::RouteSpecifier::Rds(rds)) = manager(&told).route_specifier
    else {
        panic!()
    };
    assert_eq!(rds.route_config_name, "mesh/outbound");

    let before = told.0.get(ResourceType::Listener, "mesh/outbound").unwrap().version();
    let mut http = instance("carts", "a", "10.0.0.2:80", 2);
    http.instance.as_mut().unwrap().protocol = "http1".to_owned();
    mesh.run(Command::RegisterInstance(http)).unwrap();
    let mut tcp = instance("db", "a", "10.0.0.3:80", 3);
    tcp.instance.as_mut().unwrap().protocol = "tcp".to_owned();
    mesh.run(Command::RegisterInstance(tcp)).unwrap();
    let told = Told(told.0.with_changes(2, Translator::default().translate_all(&mesh.registry)));
    let after = told.0.get(ResourceType::Listener, "mesh/outbound").unwrap().version();
    assert_eq!(after, before, "a listener that changes drops its connections");
    let hosts: BTreeSet<_> = told.routes("mesh/outbound").into_iter().map(|it| it.0).collect();
    assert_eq!(hosts.into_iter().collect::<Vec<_>>(), ["carts", "carts:*", "orders", "orders:*"]);
}

#[test]
fn calls_are_logged_where_the_service_says() {
    assert_eq!(logs(&with_log(None)), ["", ""]);
    let cases = [
        (AccessLogOptions::default(), "stdout text", "text"),
        (AccessLogOptions { json: true, ..Default::default() }, "stdout json", "json"),
        (
            AccessLogOptions { file: "/var/log/o.log".to_owned(), json: false },
            "/var/log/o.log text",
            "text /var/log/o.log",
        ),
        (
            AccessLogOptions { file: "/var/log/o.log".to_owned(), json: true },
            "/var/log/o.log json",
            "json /var/log/o.log",
        ),
    ];
    for (log, written, asked) in cases {
        let told = with_log(Some(log));
        let expression = format!("{} == '{asked}'", host_log());
        assert_eq!(logs(&told), [written.to_owned(), format!("{written} if {expression}")]);
        for route in ["ingress", "mesh/outbound"] {
            let routes: RouteConfiguration = told.get(ResourceType::Route, route);
            let metadata = routes.virtual_hosts[0].metadata.as_ref().unwrap();
            let value = metadata.filter_metadata["quorate"].fields["log"].kind.clone();
            assert_eq!(value, Some(value::Kind::StringValue(asked.to_owned())));
        }
    }
}

fn with_log(access_log: Option<AccessLogOptions>) -> Told {
    let mut mesh = speaking("http1");
    mesh.run(set(ServiceOptions { access_log, ..ServiceOptions::default() })).unwrap();
    Told::of(&mesh)
}

/// The logs of the service's own listener and of the shared one, as texts.
fn logs(told: &Told) -> [String; 2] {
    ["sidecar/orders", "mesh/outbound"].map(|listener| {
        let logs = manager_of(told, listener).access_log;
        logs.iter().map(describe_log).collect::<Vec<_>>().join(", ")
    })
}

fn describe_log(log: &AccessLog) -> String {
    let Some(access_log::ConfigType::TypedConfig(config)) = &log.config_type else { panic!() };
    let written = if config.type_url == StdoutAccessLog::type_url() {
        let format = decode_any::<StdoutAccessLog>(config).access_log_format;
        let format = format.map(|stdout_access_log::AccessLogFormat::LogFormat(it)| it);
        format!("stdout {}", describe_format(format))
    } else {
        let file = decode_any::<FileAccessLog>(config);
        let format = file.access_log_format.map(|it| {
            let file_access_log::AccessLogFormat::LogFormat(it) = it else { panic!("{it:?}") };
            it
        });
        format!("{} {}", file.path, describe_format(format))
    };
    let Some(filter) = &log.filter else { return written };
    let Some(FilterSpecifier::ExtensionFilter(filter)) = &filter.filter_specifier else { panic!() };
    let Some(extension_filter::ConfigType::TypedConfig(config)) = &filter.config_type else {
        panic!()
    };
    format!("{written} if {}", decode_any::<ExpressionFilter>(config).expression)
}

fn describe_format(format: Option<SubstitutionFormatString>) -> &'static str {
    let Some(Format::JsonFormat(fields)) = format.and_then(|it| it.format) else { return "text" };
    assert_eq!(fields.fields.len(), json_fields().len());
    "json"
}

fn manager(told: &Told) -> HttpConnectionManager {
    manager_of(told, "mesh/outbound")
}

fn manager_of(told: &Told, listener: &str) -> HttpConnectionManager {
    let listener: Listener = told.get(ResourceType::Listener, listener);
    let filter = &listener.filter_chains[0].filters[0];
    let Some(filter::ConfigType::TypedConfig(config)) = &filter.config_type else { panic!() };
    decode_any(config)
}
