//! Documents as people write them, and what is said about them.

mod constraints;
mod reading;
mod references;
mod rules;
mod set;

use crate::{Errors, File, Problem, Resource, compile, parse};

fn resources_of(text: &str) -> Result<Vec<Resource>, Errors> {
    compile(&parse(&[File { name: "edge.yaml", text }])?)
}

fn resources(text: &str) -> Vec<Resource> {
    resources_of(text).unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

fn resource(text: &str) -> Resource {
    let mut resources = resources(text);
    assert_eq!(resources.len(), 1);
    resources.remove(0)
}

fn problems(text: &str) -> Vec<Problem> {
    match resources_of(text) {
        Ok(resources) => panic!("accepted: {resources:?}"),
        Err(Errors(problems)) => problems,
    }
}

/// The one problem of a text, as it is printed.
fn problem(text: &str) -> String {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].to_string()
}

/// Rules and fields of all problems.
fn broken(text: &str) -> Vec<(&'static str, String)> {
    problems(text).into_iter().map(|it| (it.rule, it.place.field)).collect()
}

/// A cluster with some more lines, which are indented like its fields.
fn cluster(name: &str, lines: &str) -> String {
    format!("\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\nname: {name}\n{lines}")
}

/// A resource in an envelope with a selector in YAML's flow form.
fn enveloped(selector: &str, resource: &str) -> String {
    let indented: String = resource.lines().map(|line| format!("  {line}\n")).collect();
    format!("kind: Resource\nselector: {selector}\nresource:\n{indented}")
}

/// A listener on a port, with an HTTP connection manager that has a router and these routes.
fn listener(name: &str, port: u16, routes: &str) -> String {
    format!(
        r#""@type": type.googleapis.com/envoy.config.listener.v3.Listener
name: {name}
address: {{socket_address: {{address: 0.0.0.0, port_value: {port}}}}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: {name}
      {routes}
      http_filters:
      - name: envoy.filters.http.router
        typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    )
}

/// A listener that gRPC clients ask for.
fn api_listener(name: &str, routes: &str) -> String {
    format!(
        r#""@type": type.googleapis.com/envoy.config.listener.v3.Listener
name: {name}
api_listener:
  api_listener:
    "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
    stat_prefix: {name}
    {routes}
    http_filters:
    - name: envoy.filters.http.router
      typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
    )
}

const RDS: &str =
    "rds: {route_config_name: web, config_source: {ads: {}, resource_api_version: V3}}";

fn routes_to(domain: &str, cluster: &str) -> String {
    format!(
        "route_config: {{virtual_hosts: [{{name: web, domains: [\"{domain}\"], \
         routes: [{{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}"
    )
}
