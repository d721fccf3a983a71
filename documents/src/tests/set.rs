use std::collections::BTreeSet;

use super::{RDS, cluster, enveloped, listener, resources, routes_to};
use crate::{
    Guard, Resource, SIZE_WARNING, Selector, clashes, dangling, duplicates, overrides, oversized,
    type_url,
};

fn set(documents: &[String]) -> Vec<Resource> {
    resources(&documents.join("---\n"))
}

#[test]
fn one_name_belongs_to_one_resource_of_a_client() {
    let both = set(&[cluster("a", ""), cluster("b", ""), cluster("a", "")]);
    let found = duplicates(&both);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "edge.yaml, document 3, line 7: the Cluster \"a\" is also in edge.yaml, document 1, line 1 \
         [duplicate]; leave one of them, or give them selectors that exclude each other"
    );
    let apart = set(&[
        enveloped("{zone: z1}", &cluster("a", "")),
        enveloped("{zone: z2}", &cluster("a", "")),
    ]);
    assert_eq!(duplicates(&apart), []);
}

#[test]
fn one_address_belongs_to_one_listener_of_a_client() {
    let one = listener("one", 80, RDS);
    let found = clashes(&set(&[one.clone(), listener("two", 80, RDS)]));
    let fields: Vec<&str> = found.iter().map(|it| it.place.field.as_str()).collect();
    assert_eq!(fields, ["address.socket_address"]);
    assert_eq!(found[0].rule, "port-clash");
    let right = [
        listener("two", 81, RDS),
        listener("two", 80, RDS).replace("0.0.0.0", "127.0.0.1"),
        listener("two", 80, RDS).replace("port_value", "protocol: UDP, port_value"),
        format!("{}bind_to_port: false\n", listener("two", 80, RDS)),
        enveloped("{client: grpc}", &listener("two", 80, RDS)),
    ];
    for other in right {
        let one = enveloped("{client: envoy}", &one);
        assert_eq!(clashes(&set(&[one, other.clone()])), [], "{other}");
    }
    let mapped = listener("two", 80, RDS).replace("0.0.0.0", "\"::ffff:0.0.0.0\"");
    assert_eq!(clashes(&set(&[one, mapped])).len(), 1);
}

#[test]
fn a_reference_leads_to_a_resource_that_the_same_clients_get() {
    let listener = listener("web", 80, &routes_to("*", "a"));
    let found = dangling(&set(std::slice::from_ref(&listener)), |_, _| false);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "edge.yaml, document 1, line 10, filter_chains[0].filters[0].typed_config.route_config.\
         virtual_hosts[0].routes[0].route.cluster: names the Cluster \"a\", which its clients are \
         not sent [dangling]; add the Cluster, or correct the name"
    );
    let elsewhere = |type_url: &str, name: &str| type_url == type_url::CLUSTER && name == "a";
    assert_eq!(dangling(&set(std::slice::from_ref(&listener)), elsewhere), []);
    assert_eq!(dangling(&set(&[listener.clone(), cluster("a", "")]), |_, _| false), []);
    let apart = [enveloped("{zone: z1}", &listener), enveloped("{zone: z2}", &cluster("a", ""))];
    assert_eq!(dangling(&set(&apart), |_, _| false).len(), 1);
}

#[test]
fn a_glob_leads_to_whatever_it_covers() {
    let assignment =
        "\"@type\": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment\n\
                      cluster_name: a\nendpoints:\n- leds_cluster_locality_config: \
                      {leds_config: {ads: {}}, leds_collection_name: \"l/*\"}\n"
            .to_owned();
    let endpoint = "kind: Resource\nmetadata: {name: l/1}\nresource:\n  \
                    \"@type\": type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint\n"
        .to_owned();
    assert_eq!(dangling(&set(std::slice::from_ref(&assignment)), |_, _| false).len(), 1);
    assert_eq!(dangling(&set(&[assignment, endpoint]), |_, _| false), []);
}

#[test]
fn a_set_that_is_too_large_for_one_message_is_warned_of() {
    let filler = "x".repeat(SIZE_WARNING / 3);
    let large = |name: &str, zone: &str| {
        enveloped(
            &format!("{{zone: {zone}}}"),
            &cluster(name, &format!("alt_stat_name: {filler}\n")),
        )
    };
    let apart = set(&[large("a", "z1"), large("b", "z1"), large("c", "z2")]);
    assert_eq!(oversized(&apart), []);
    let together = set(&[large("a", "z1"), large("b", "z1"), large("c", "z1")]);
    let rules: Vec<&str> = oversized(&together).iter().map(|it| it.rule).collect();
    assert_eq!(rules, ["size"]);
}

#[test]
fn a_resource_of_a_generated_name_says_that_it_replaces_it() {
    let found = overrides(&set(&[cluster("a", ""), cluster("b", "")]), |_, name| name == "b");
    let causes: Vec<&str> = found.iter().map(|it| it.cause.as_str()).collect();
    assert_eq!(causes, ["replaces the generated Cluster \"b\""]);
}

#[test]
fn a_change_that_removes_much_is_held() {
    let names =
        |range: std::ops::Range<usize>| range.map(|it| format!("c{it}")).collect::<BTreeSet<_>>();
    let guard = Guard { most_percent: 20, always_allowed: 3 };
    assert_eq!(guard.check(&names(0..10), &names(2..50)), None);
    assert_eq!(guard.check(&names(0..3), &names(0..0)), None);
    let held = guard.check(&names(0..30), &names(7..30)).unwrap();
    assert_eq!(
        held.to_string(),
        "removes 7 of 30 clusters (c0, c1, c2, c3, c4, …), more than 20 %; confirm it if that is meant"
    );
}

#[test]
fn a_stored_resource_is_as_it_was_compiled() {
    for compiled in set(&[
        listener("web", 80, &routes_to("*", "a")),
        cluster("a", "type: EDS\neds_cluster_config: {eds_config: {ads: {}}}\n"),
    ]) {
        let mut restored = Resource::restore(
            compiled.place.clone(),
            compiled.type_url,
            compiled.name.clone(),
            Selector::default(),
            compiled.bytes.clone(),
        )
        .unwrap();
        // All that it does not know is where its fields stand.
        for (restored, compiled) in restored.references.iter_mut().zip(&compiled.references) {
            restored.line = compiled.line;
        }
        for (restored, compiled) in restored.sockets.iter_mut().zip(&compiled.sockets) {
            restored.line = compiled.line;
        }
        assert_eq!(restored, compiled);
    }
}
