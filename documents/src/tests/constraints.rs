use std::collections::BTreeSet;

use super::{broken, cluster, listener, problem, resource, routes_to};
use crate::{constraints, descriptors};

#[test]
fn every_kind_of_constraint_in_envoys_files_is_known() {
    let mut used = BTreeSet::new();
    for message in descriptors().all_messages() {
        for field in message.fields() {
            let rules = constraints::rules_of(&field);
            rules.iter().for_each(|it| names(it, &mut used));
        }
    }
    let known: BTreeSet<String> = constraints::KNOWN.iter().map(|it| (*it).to_owned()).collect();
    assert!(used.contains("min_len") && used.contains("well_known_regex"), "{used:?}");
    let unknown: Vec<&String> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// Names of constraints, without those of the kinds of values that they are for.
fn names(rules: &prost_reflect::DynamicMessage, used: &mut BTreeSet<String>) {
    for (field, value) in rules.fields() {
        let is_rules = |it: &prost_reflect::DynamicMessage| {
            use prost_reflect::ReflectMessage;
            it.descriptor().full_name().starts_with("validate.")
        };
        match value.as_message().filter(|it| is_rules(it)) {
            Some(nested) => {
                if ["items", "keys", "values"].contains(&field.name()) {
                    used.insert(field.name().to_owned());
                }
                names(nested, used);
            }
            None => {
                if field.name() == "pattern" {
                    assert!(regex::Regex::new(value.as_str().unwrap()).is_ok(), "{value:?}");
                }
                used.insert(field.name().to_owned());
            }
        }
    }
}

#[test]
fn a_missing_value_is_named_with_the_message_it_is_missing_in() {
    let text = listener("web", 80, &routes_to("*", "a"));
    assert_eq!(resource(&text).name, "web");
    let text = text.replace("      stat_prefix: web\n", "");
    assert_eq!(
        problem(&text),
        "edge.yaml, document 1, line 7, filter_chains[0].filters[0].typed_config.stat_prefix: \
         is empty [min_len]; give it a value"
    );
}

#[test]
fn constraints_hold_within_packed_messages_lists_and_maps() {
    let manager = "filter_chains[0].filters[0].typed_config";
    let host =
        |host: &str| listener("web", 80, &format!("route_config: {{virtual_hosts: [{host}]}}"));
    let hosts = [
        ("{name: a}", "min_items", "domains"),
        ("{name: \"\", domains: [a]}", "min_len", "name"),
        ("{name: a, domains: [\"a\\nb\"]}", "header-value", "domains[0]"),
        (
            "{name: a, domains: [a], routes: [{match: {}, route: {cluster: b}}]}",
            "required",
            "routes[0].match",
        ),
        ("{name: a, domains: [a], routes: [{match: {prefix: /}}]}", "required", "routes[0]"),
        ("{name: a, domains: [a], routes: [{route: {cluster: b}}]}", "required", "routes[0].match"),
        (
            "{name: a, domains: [a], request_headers_to_remove: [\"a\\nb\"]}",
            "header-name",
            "request_headers_to_remove[0]",
        ),
    ];
    for (written, rule, field) in hosts {
        let field = format!("{manager}.route_config.virtual_hosts[0].{field}");
        assert_eq!(broken(&host(written)), [(rule, field)], "{written}");
    }
}

#[test]
fn bounds_hold_for_numbers_wrappers_and_durations() {
    let wrong = [
        ("connect_timeout: 0s", "gt", "connect_timeout"),
        (
            "outlier_detection: {max_ejection_percent: 101}",
            "lte",
            "outlier_detection.max_ejection_percent",
        ),
        ("outlier_detection: {interval: -1s}", "gt", "outlier_detection.interval"),
        (
            "ring_hash_lb_config: {maximum_ring_size: 8388609}",
            "lte",
            "ring_hash_lb_config.maximum_ring_size",
        ),
        ("lb_policy: 77", "defined_only", "lb_policy"),
        ("dns_refresh_rate: 0.0005s", "gt", "dns_refresh_rate"),
    ];
    for (line, rule, field) in wrong {
        assert_eq!(broken(&cluster("a", line)), [(rule, field.to_owned())], "{line}");
    }
    assert_eq!(
        problem(&cluster("a", "connect_timeout: 0s\n")),
        "edge.yaml, document 1, line 3, connect_timeout: is 0s [gt]; it must be above 0s"
    );
    let right = "outlier_detection: {max_ejection_percent: 100, interval: 0.1s}\n";
    assert_eq!(resource(&cluster("a", right)).name, "a");
}

#[test]
fn a_field_whose_time_is_over_is_refused_or_warned_of() {
    let warned = resource(&cluster("a", "http2_protocol_options: {}\n")).warnings;
    let found: Vec<&str> = warned.iter().map(|it| it.rule).collect();
    assert_eq!(found, ["deprecated"]);
}

#[test]
fn what_is_no_regular_expression_is_warned_of() {
    let routes = "route_config: {virtual_hosts: [{name: a, domains: [a], routes: [{match: \
                  {safe_regex: {regex: \"a(b\"}}, route: {cluster: b}}]}]}";
    let warnings = resource(&listener("web", 80, routes)).warnings;
    let rules: Vec<&str> = warnings.iter().map(|it| it.rule).collect();
    assert_eq!(rules, ["regex"]);
}
