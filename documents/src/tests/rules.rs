use std::collections::BTreeSet;

use super::{
    RDS, api_listener, broken, cluster, enveloped, listener, resource, resources, routes_to,
};

/// Rules that warn, of all resources of a text.
fn warned(text: &str) -> Vec<&'static str> {
    resources(text).iter().flat_map(|it| it.warnings.iter().map(|it| it.rule)).collect()
}

/// Rules that refuse the resource for clients of this kind.
fn refused(kind: &str, resource: &str) -> Vec<&'static str> {
    broken(&enveloped(&format!("{{client: {kind}}}"), resource))
        .into_iter()
        .map(|it| it.0)
        .collect()
}

fn accepted(kind: &str, text: &str) {
    assert_eq!(warned(&enveloped(&format!("{{client: {kind}}}"), text)), [""; 0], "{text}");
}

fn assignment(endpoints: &str) -> String {
    format!(
        "\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n\
         cluster_name: a\nendpoints: {endpoints}\n"
    )
}

const ENDPOINT: &str =
    "{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}}";
const EDS: &str = "type: EDS\neds_cluster_config: {eds_config: {ads: {}}}\n";

#[test]
fn rules_are_for_messages_that_exist_and_are_explained() {
    let page = include_str!("../../../docs/resources.md");
    let ids: BTreeSet<&str> = crate::rules::ids().iter().map(|(id, _)| *id).collect();
    for id in ids {
        assert!(page.contains(&format!("| `{id}` |")), "docs/resources.md does not explain {id}");
    }
    for (id, message) in crate::rules::ids() {
        assert!(crate::descriptors().get_message_by_name(message).is_some(), "{id}: {message}");
    }
}

#[test]
fn what_all_clients_refuse_is_an_error() {
    let manager = listener("web", 80, RDS);
    let wrong = [
        (manager.replace("address: {socket", "metadata: {} #"), "listener-address"),
        (manager.replace("0.0.0.0", "localhost"), "listener-ip"),
        (
            manager.replace("      http_filters:\n", "      #").replace(
                "      - name: envoy.filters.http.router\n        typed_config",
                "      #",
            ),
            "http-filters",
        ),
        (manager.replace("        typed_config: {", "        disabled: false #"), "filter-config"),
        (cluster("a", "type: EDS\n"), "eds-config"),
        (
            assignment(&format!("[{{lb_endpoints: [{}]}}]", ENDPOINT.replace("10.0.0.1", "host"))),
            "endpoint-ip",
        ),
        (
            assignment("[{load_balancing_weight: 4294967295}, {load_balancing_weight: 1}]"),
            "locality-weights",
        ),
    ];
    for (text, rule) in wrong {
        let rules: Vec<&str> = broken(&text).into_iter().map(|it| it.0).collect();
        assert_eq!(rules, [rule], "{text}");
    }
}

#[test]
fn filter_chains_must_differ_and_virtual_hosts_share_no_domain() {
    let twice =
        format!("{}{}", listener("web", 80, RDS), "- filter_chain_match: {}\n  name: second\n");
    assert_eq!(
        broken(&twice),
        [("filter-chain-match", "filter_chains[1].filter_chain_match".to_owned())]
    );
    let differs = twice.replace("match: {}", "match: {server_names: [a]}");
    assert_eq!(resource(&differs).name, "web");
    let hosts = "route_config: {virtual_hosts: [{name: a, domains: [x, \"*\"]}, \
                 {name: b, domains: [y, X]}, {name: c, domains: [\"a.*.b\"]}]}";
    let hosts: Vec<(&str, String)> = broken(&listener("web", 80, hosts));
    let at = "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts";
    assert_eq!(
        hosts,
        [
            ("domains", format!("{at}[1].domains[1]")),
            ("domain-wildcard", format!("{at}[2].domains[0]")),
        ]
    );
}

#[test]
fn weights_must_have_a_sum() {
    let routes = routes_to("*", "a")
        .replace("cluster: a", "weighted_clusters: {clusters: [{name: a, weight: 0}]}");
    let rules: Vec<&str> =
        broken(&listener("web", 80, &routes)).into_iter().map(|it| it.0).collect();
    assert_eq!(rules, ["weights"]);
}

#[test]
fn what_envoy_refuses_is_no_error_for_grpc_alone() {
    let own = EDS.replace("ads", "self");
    assert_eq!(broken(&cluster("a", &own)).len(), 1);
    assert_eq!(refused("envoy", &cluster("a", &own)), ["eds-self"]);
    accepted("grpc", &cluster("a", &own));
    let chainless = "\"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\nname: web\n\
                     address: {socket_address: {address: 0.0.0.0, port_value: 80}}\n";
    assert_eq!(refused("envoy", chainless), ["filter-chains"]);
}

#[test]
fn what_grpc_refuses_is_an_error_only_for_grpc() {
    let manager = api_listener("web", &routes_to("*", "a"));
    accepted("grpc", &manager);
    accepted("grpc", &cluster("a", EDS));
    let locality = format!(
        "[{{locality: {{zone: a}}, load_balancing_weight: 1, lb_endpoints: [{ENDPOINT}]}}]"
    );
    accepted("grpc", &assignment(&locality));
    let policy = |name: &str| {
        format!(
            "{EDS}load_balancing_policy: {{policies: [{{typed_extension_config: {{name: x, \
             typed_config: {{\"@type\": type.googleapis.com/{name}}}}}}}]}}\n"
        )
    };
    let round_robin = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
    let random = "envoy.extensions.load_balancing_policies.random.v3.Random";
    accepted("grpc", &cluster("a", &policy(round_robin)));
    let wrong = [
        (cluster("a", &policy(random)), "grpc-lb-policy"),
        (cluster("a", &format!("{EDS}lb_policy: MAGLEV\n")), "grpc-lb-policy"),
        (cluster("a", "type: STATIC\n"), "grpc-cluster-type"),
        (
            cluster("a", &EDS.replace("ads: {}", "path_config_source: {path: /x}")),
            "grpc-eds-source",
        ),
        (
            cluster(
                "a",
                &format!(
                    "{EDS}lb_policy: RING_HASH\nring_hash_lb_config: {{hash_function: MURMUR_HASH_2}}\n"
                ),
            ),
            "grpc-ring-hash",
        ),
        (cluster("a", &format!("{EDS}lrs_server: {{ads: {{}}}}\n")), "grpc-load-reports"),
        (
            manager.replace("stat_prefix: web", "stat_prefix: web\n    xff_num_trusted_hops: 1"),
            "grpc-xff",
        ),
        (api_listener("web", &routes_to("other", "a")), "grpc-virtual-host"),
        (
            api_listener("web", &RDS.replace("ads: {}", "path_config_source: {path: /x}")),
            "grpc-rds-source",
        ),
        (assignment(&locality.replace("locality: {zone: a}, ", "")), "grpc-locality"),
        (assignment(&locality.replace("load_balancing_weight: 1, ", "")), "grpc-locality-weight"),
        (assignment(&locality.replace("load_bal", "priority: 1, load_bal")), "grpc-priorities"),
        (
            assignment(
                "[{locality: {zone: a}, load_balancing_weight: 1}, {locality: {zone: a}, load_balancing_weight: 2}]",
            ),
            "grpc-localities",
        ),
        (
            assignment(&locality.replace(ENDPOINT, &format!("{ENDPOINT}, {ENDPOINT}"))),
            "grpc-addresses",
        ),
    ];
    for (text, rule) in wrong {
        assert_eq!(refused("grpc", &text), [rule], "{text}");
        assert_eq!(refused("[grpc, envoy]", &text), [rule], "{text}");
        accepted("envoy", &text);
    }
}

#[test]
fn a_grpc_servers_listener_is_what_its_name_says() {
    let name = "\"grpc/server?xds.resource.listening_address=0.0.0.0:80\"";
    let listener = listener(name, 80, RDS);
    accepted("grpc", &listener);
    let elsewhere = listener.replace("port_value: 80", "port_value: 81");
    assert_eq!(refused("grpc", &elsewhere), ["grpc-listening-address"]);
    let filters = format!(
        "{listener}listener_filters: [{{name: x, typed_config: {{\"@type\": type.googleapis.com/\
         envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}}}]\n"
    );
    assert_eq!(refused("grpc", &filters), ["grpc-listener-filters"]);
}

#[test]
fn a_proxys_socket_within_must_be_tls_for_grpc() {
    let socket = |inner: &str| {
        format!(
            "{EDS}transport_socket:\n  name: proxy\n  typed_config:\n    \"@type\": \
             type.googleapis.com/envoy.extensions.transport_sockets.http_11_proxy.v3.Http11ProxyUpstreamTransport\n    \
             transport_socket: {{name: inner, typed_config: {{\"@type\": type.googleapis.com/{inner}}}}}\n"
        )
    };
    let tls = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    accepted("grpc", &cluster("a", &socket(tls)));
    let raw = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    assert_eq!(refused("grpc", &cluster("a", &socket(raw))), ["grpc-transport-socket"]);
}

#[test]
fn a_condition_of_rbac_is_refused_for_grpc() {
    let rbac = "http_filters:\n    - name: rbac\n      typed_config:\n        \"@type\": \
                type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC\n        \
                rules: {policies: {a: {permissions: [{any: true}], principals: [{any: true}], \
                condition: {const_expr: {bool_value: true}}}}}";
    let text = api_listener("web", RDS).replace("http_filters:", rbac);
    assert_eq!(refused("grpc", &text), ["grpc-rbac-condition"]);
}

#[test]
fn rules_for_grpc_are_silent_until_a_grpc_listener_leads_there() {
    let static_cluster = cluster("a", "type: STATIC\n");
    assert_eq!(warned(&static_cluster), [""; 0]);
    let envoys = format!("{static_cluster}---\n{}", listener("web", 80, &routes_to("*", "a")));
    assert_eq!(warned(&envoys), [""; 0]);
    let grpcs = format!("{static_cluster}---\n{}", api_listener("web", &routes_to("*", "a")));
    assert_eq!(warned(&grpcs), ["grpc-cluster-type"]);
}
