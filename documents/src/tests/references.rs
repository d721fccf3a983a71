use super::{RDS, cluster, listener, resource, routes_to};
use crate::{references::names, type_url};

fn named(text: &str) -> Vec<(&'static str, String, String)> {
    let references = resource(text).references;
    references.into_iter().map(|it| (it.type_url, it.name, it.field)).collect()
}

#[test]
fn every_field_that_names_a_resource_exists() {
    for (message, field) in names() {
        let descriptor = crate::descriptors().get_message_by_name(message);
        let found = descriptor.and_then(|it| it.get_field_by_name(field));
        assert!(found.is_some(), "{message}.{field}");
    }
}

#[test]
fn a_cluster_names_its_load_assignment_and_its_secrets() {
    let eds = "type: EDS\neds_cluster_config: {eds_config: {ads: {}}}\n";
    assert_eq!(
        named(&cluster("a", eds)),
        [(type_url::LOAD_ASSIGNMENT, "a".to_owned(), "name".to_owned())]
    );
    let text = cluster(
        "a",
        "type: EDS\neds_cluster_config: {eds_config: {ads: {}}, service_name: b}\ntransport_socket:\n  \
         name: tls\n  typed_config:\n    \
         \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n    \
         common_tls_context:\n      tls_certificate_sds_secret_configs:\n      \
         - {name: own, sds_config: {ads: {}}}\n      - {name: static}\n      \
         - {name: file, sds_config: {path_config_source: {path: /tls/file.yaml}}}\n",
    );
    let secret = "transport_socket.typed_config.common_tls_context.tls_certificate_sds_secret_configs[0].name";
    assert_eq!(
        named(&text),
        [
            (
                type_url::LOAD_ASSIGNMENT,
                "b".to_owned(),
                "eds_cluster_config.service_name".to_owned()
            ),
            (type_url::SECRET, "own".to_owned(), secret.to_owned()),
        ]
    );
}

#[test]
fn a_listener_names_routes_and_clusters() {
    let manager = "filter_chains[0].filters[0].typed_config";
    let rds = [(type_url::ROUTE, "web".to_owned(), format!("{manager}.rds.route_config_name"))];
    assert_eq!(named(&listener("web", 80, RDS)), rds);
    let inline = format!("{manager}.route_config.virtual_hosts[0].routes[0].route.cluster");
    let inline = [(type_url::CLUSTER, "b".to_owned(), inline)];
    assert_eq!(named(&listener("web", 80, &routes_to("*", "b"))), inline);
}

#[test]
fn a_filter_that_is_discovered_is_named_and_its_default_makes_it_optional() {
    let discovered = |default: &str| {
        listener("web", 80, RDS).replace(
            "      - name: envoy.filters.http.router",
            &format!(
                "      - name: own\n        config_discovery: {{config_source: {{ads: {{}}}}, \
                 type_urls: [x]{default}}}\n      - name: envoy.filters.http.router"
            ),
        )
    };
    let default = ", default_config: {\"@type\": \
                   type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}";
    for (text, is_required) in [(discovered(""), true), (discovered(default), false)] {
        let references = resource(&text).references;
        let extension = references.iter().find(|it| it.type_url == type_url::EXTENSION).unwrap();
        assert_eq!((extension.name.as_str(), extension.is_required), ("own", is_required));
    }
}

#[test]
fn routes_name_weighted_and_mirrored_clusters() {
    let text = "\"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n\
                name: web\nvirtual_hosts:\n- name: a\n  domains: [\"*\"]\n  routes:\n  - match: {prefix: /}\n    \
                route:\n      weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 2}]}\n      \
                request_mirror_policies: [{cluster: c}]\n";
    let clusters: Vec<String> = named(text).into_iter().map(|(_, name, _)| name).collect();
    assert_eq!(clusters.len(), 3);
    for name in ["a", "b", "c"] {
        assert!(clusters.contains(&name.to_owned()), "{clusters:?}");
    }
}

#[test]
fn endpoints_name_their_collection() {
    let text = "\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n\
                cluster_name: a\nendpoints:\n- leds_cluster_locality_config: \
                {leds_config: {ads: {}}, leds_collection_name: \"xdstp://x/l/*\"}\n";
    let field = "endpoints[0].leds_cluster_locality_config.leds_collection_name";
    let expected = [(type_url::ENDPOINT, "xdstp://x/l/*".to_owned(), field.to_owned())];
    assert_eq!(named(text), expected);
}
