use prost::Message;
use prost_reflect::DynamicMessage;

use super::{broken, cluster, enveloped, problem, resource, resources};
use crate::{
    Client, ClientKind, Document, File, Selector, descriptors, parse, problem::nearest, type_url,
};

fn decoded(text: &str) -> DynamicMessage {
    let resource = resource(text);
    let name = resource.type_url.rsplit('/').next().unwrap();
    let descriptor = descriptors().get_message_by_name(name).unwrap();
    DynamicMessage::decode(descriptor, resource.bytes).unwrap()
}

#[test]
fn a_file_has_many_documents_and_empty_ones_count() {
    let text = format!("---\n{}---\n# nothing\n---\n{}", cluster("a", ""), cluster("b", ""));
    let resources = resources(&text);
    let found: Vec<(usize, &str)> =
        resources.iter().map(|it| (it.place.document, it.name.as_str())).collect();
    assert_eq!(found, [(1, "a"), (3, "b")]);
    assert_eq!(resources[0].type_url, type_url::CLUSTER);
}

#[test]
fn fields_may_be_written_in_both_of_their_names() {
    let snake = decoded(&cluster("a", "connect_timeout: 1.5s\nlb_policy: RING_HASH\n"));
    let camel = decoded(&cluster("a", "connectTimeout: 1.500s\nlbPolicy: 2\n"));
    assert_eq!(snake, camel);
}

#[test]
fn json_and_yaml_say_the_same() {
    let json = "\t{\n\t\"@type\": \"type.googleapis.com/envoy.config.cluster.v3.Cluster\",\r\n\
                \t\"name\": \"\\u0061\\ud83d\\ude00\", \"alt_stat_name\": \"x\\/y\"}\n{\"kind\": 1}";
    let documents = parse(&[File { name: "a.json", text: json }]).unwrap_err();
    assert_eq!(
        documents.to_string(),
        "a.json, document 2, line 4, kind: 1 is no kind of document [kind]; write `kind: Resource`"
    );
    let first = json.split_once("\n{").unwrap().0;
    let compiled =
        crate::compile(&parse(&[File { name: "a.json", text: first }]).unwrap()).unwrap();
    let yaml = resource(&cluster("\"a😀\"", "alt_stat_name: x/y\n"));
    assert_eq!(compiled[0].bytes, yaml.bytes);
}

#[test]
fn the_same_document_gives_the_same_bytes_whatever_its_order() {
    let entries: Vec<String> =
        (0..50).map(|it| format!("key{it}: {{a: {it}, b: [x, 1.5]}}")).collect();
    let write = |entries: &[String]| {
        let metadata = entries.join(", ");
        cluster("a", &format!("metadata: {{filter_metadata: {{envoy.lb: {{{metadata}}}}}}}\n"))
    };
    let mut turned = entries.clone();
    turned.reverse();
    let one = resource(&write(&entries)).bytes;
    assert_eq!(one, resource(&write(&turned)).bytes);
    let cluster = descriptors().get_message_by_name("envoy.config.cluster.v3.Cluster").unwrap();
    let message = DynamicMessage::decode(cluster, one.clone()).unwrap();
    assert_eq!(message.encode_to_vec().len(), one.len());
}

#[test]
fn an_unknown_field_is_named_with_its_line_and_its_neighbor() {
    let text =
        cluster("a", "load_assignment:\n  cluster_name: a\n  endpoints:\n  - lb_endpoint: []\n");
    assert_eq!(
        problem(&text),
        "edge.yaml, document 1, line 6, load_assignment.endpoints[0].lb_endpoint: \
         LocalityLbEndpoints has no field lb_endpoint [unknown-field]; write lb_endpoints"
    );
}

#[test]
fn a_type_that_envoy_does_not_have_is_named_with_its_neighbor() {
    let text = "\"@type\": type.googleapis.com/envoy.config.cluster.v2.Cluster\nname: a\n";
    assert_eq!(
        problem(text),
        "edge.yaml, document 1, line 1, @type: type.googleapis.com/envoy.config.cluster.v2.Cluster \
         is no type that Envoy's v3 API has [type]; \
         write type.googleapis.com/envoy.config.cluster.v3.Cluster"
    );
}

#[test]
fn a_message_that_is_no_resource_is_refused() {
    let text = "\"@type\": type.googleapis.com/envoy.config.core.v3.Address\n";
    assert_eq!(broken(text), [("type", "@type".to_owned())]);
}

#[test]
fn a_struct_stands_for_extensions_that_are_not_known() {
    let extension = "\"@type\": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig\n\
                     name: own\ntyped_config:\n  \"@type\": type.googleapis.com/xds.type.v3.TypedStruct\n  \
                     type_url: type.googleapis.com/own.Filter\n  value: {limit: 3, names: [a, null]}\n";
    assert_eq!(resource(extension).name, "own");
    let unknown = extension.replace("xds.type.v3.TypedStruct", "own.Filter");
    assert_eq!(broken(&unknown), [("type", "typed_config.@type".to_owned())]);
}

#[test]
fn values_of_another_kind_are_refused_where_yaml_would_guess() {
    let wrong = [
        ("alt_stat_name: 1.0", "type-of-value", "alt_stat_name"),
        ("alt_stat_name: true", "type-of-value", "alt_stat_name"),
        ("ignore_health_on_host_removal: on", "type-of-value", "ignore_health_on_host_removal"),
        (
            "ignore_health_on_host_removal: \"true\"",
            "type-of-value",
            "ignore_health_on_host_removal",
        ),
        ("connect_timeout: 5", "type-of-value", "connect_timeout"),
        ("connect_timeout: 99999999999999999999s", "type-of-value", "connect_timeout"),
        (
            "per_connection_buffer_limit_bytes: 010",
            "type-of-value",
            "per_connection_buffer_limit_bytes",
        ),
        (
            "per_connection_buffer_limit_bytes: -1",
            "type-of-value",
            "per_connection_buffer_limit_bytes",
        ),
        (
            "per_connection_buffer_limit_bytes: 1.5",
            "type-of-value",
            "per_connection_buffer_limit_bytes",
        ),
        ("lb_policy: ROUND_ROBBIN", "type-of-value", "lb_policy"),
        ("filters: {}", "type-of-value", "filters"),
        ("metadata: []", "type-of-value", "metadata"),
        ("type: STATIC\ncluster_type: {name: x}", "oneof", "cluster_type"),
    ];
    for (line, rule, field) in wrong {
        assert_eq!(broken(&cluster("a", line)), [(rule, field.to_owned())], "{line}");
    }
    let right =
        "alt_stat_name: no\nper_connection_buffer_limit_bytes: \"8192\"\nconnect_timeout: 1s\n";
    assert_eq!(resource(&cluster("a", right)).name, "a");
}

#[test]
fn every_problem_of_every_document_is_told() {
    let text = format!("{}---\n{}", cluster("a", "nme: x\ntype: NONE\n"), cluster("\"\"", ""));
    let fields: Vec<String> = broken(&text).into_iter().map(|(_, field)| field).collect();
    assert_eq!(fields, ["nme", "type", "name"]);
}

#[test]
fn broken_yaml_is_told_with_its_line() {
    let lines = [
        ("a: b\na: c\n", 2, "duplicate-key"),
        ("a:\n\t- b\n", 2, "yaml"),
        ("a: [b\n", 2, "yaml"),
        ("a: !!str b\n", 1, "yaml"),
        ("a: {b: c}\nd:\n  <<: x\n", 3, "yaml"),
        ("a: &x [*x]\n", 1, "alias"),
    ];
    for (text, line, rule) in lines {
        let errors = parse(&[File { name: "a.yaml", text }]).unwrap_err();
        let found = &errors.0[0];
        assert_eq!((found.place.line, found.rule), (Some(line), rule), "{text}: {errors}");
    }
    let tabs = parse(&[File { name: "a.yaml", text: "a:\n\t- b\n" }]).unwrap_err();
    assert!(tabs.to_string().ends_with("indent by spaces, not by tabs"), "{tabs}");
}

#[test]
fn broken_json_is_told_with_its_line() {
    let texts = [
        "{\n\"a\" 1}",
        "\n[1, ]",
        "\n\"\\ud800\"",
        "\n{\"a\": 1, \"a\": 2}",
        "\n\"",
        "\n}",
        "\nnul",
        "\n{\"a\": 1e999}",
        "\n[1 2]",
        "\n\"\\x\"",
    ];
    for text in texts {
        let errors = parse(&[File { name: "a.json", text }]).unwrap_err();
        assert_eq!(errors.0[0].place.line, Some(2), "{text}: {errors}");
    }
}

#[test]
fn few_lines_cannot_become_many_values_nor_deep_ones() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let deep_list = format!("a: {}", "[".repeat(100_000));
    let mut deep_alias = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        deep_alias.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    for (text, rule) in [(bomb, "size"), (deep_list, "depth"), (deep_alias, "depth")] {
        let errors = parse(&[File { name: "a.yaml", text: &text }]).unwrap_err();
        assert_eq!(errors.0[0].rule, rule, "{errors}");
    }
    let json = "[".repeat(100_000);
    let errors = parse(&[File { name: "a.json", text: &json }]).unwrap_err();
    assert_eq!(errors.0[0].rule, "depth");
}

#[test]
fn an_envelope_says_who_gets_it() {
    let selector = "{node_id: [a, b], cluster: edge, zone: z1, client: envoy, \
                    metadata: {team: {name: [x, y]}, canary: true}}";
    let selector = resource(&enveloped(selector, &cluster("a", ""))).selector;
    let client = Client {
        node_id: "b".to_owned(),
        cluster: "edge".to_owned(),
        zone: "z1".to_owned(),
        kind: ClientKind::Envoy,
        metadata: [
            (vec!["team".to_owned(), "name".to_owned()], "y".to_owned()),
            (vec!["canary".to_owned()], "true".to_owned()),
        ]
        .into(),
    };
    assert!(selector.matches(&client));
    assert!(Selector::default().matches(&client));
    for other in [
        Client { node_id: "c".to_owned(), ..client.clone() },
        Client { cluster: String::new(), ..client.clone() },
        Client { zone: "z2".to_owned(), ..client.clone() },
        Client { kind: ClientKind::Grpc, ..client.clone() },
        Client { metadata: [].into(), ..client.clone() },
    ] {
        assert!(!selector.matches(&other), "{other:?}");
    }
}

#[test]
fn selectors_overlap_unless_one_client_cannot_match_both() {
    let selector = |text: &str| {
        let text = enveloped(text, &cluster("a", ""));
        let mut documents = parse(&[File { name: "a.yaml", text: &text }]).unwrap();
        let Document::Resource(draft) = documents.remove(0);
        draft.selector
    };
    let overlap = |one: &str, other: &str| {
        let (one, other) = (selector(one), selector(other));
        assert_eq!(one.overlaps(&other), other.overlaps(&one));
        one.overlaps(&other)
    };
    assert!(overlap("{}", "{zone: z1}"));
    assert!(overlap("{zone: z1}", "{cluster: edge}"));
    assert!(overlap("{zone: [z1, z2]}", "{zone: [z2, z3]}"));
    assert!(!overlap("{zone: z1, cluster: edge}", "{zone: z2, cluster: edge}"));
    assert!(!overlap("{client: envoy}", "{client: grpc}"));
    assert!(!overlap("{metadata: {a: {b: 1}}}", "{metadata: {a: {b: 2}}}"));
    assert!(overlap("{metadata: {a: {b: 1}}}", "{metadata: {a: {c: 2}}}"));
}

#[test]
fn an_envelope_that_is_wrong_is_told() {
    let wrong = [
        ("{nodeId: a}", "unknown-field", "selector.nodeId"),
        ("{client: nginx}", "selector", "selector.client"),
        ("{zone: []}", "selector", "selector.zone"),
        ("{zone: {a: b}}", "selector", "selector.zone"),
        ("{metadata: [a]}", "selector", "selector.metadata"),
        ("[a]", "envelope", "selector"),
    ];
    for (selector, rule, field) in wrong {
        let found = broken(&enveloped(selector, &cluster("a", "")));
        assert_eq!(found, [(rule, field.to_owned())], "{selector}");
    }
    assert_eq!(broken("kind: Resource\n"), [("envelope", String::new())]);
    assert_eq!(
        broken("kind: Resource\nresource: {name: a}\n"),
        [("envelope", "resource".to_owned())]
    );
    assert_eq!(broken("kind: Servce\n"), [("kind", "kind".to_owned())]);
    assert_eq!(broken("name: a\n"), [("kind", String::new())]);
    assert_eq!(broken("- a\n"), [("kind", String::new())]);
}

#[test]
fn a_name_comes_from_its_field_or_from_the_envelope() {
    let host = "kind: Resource\nmetadata: {name: web/example}\nresource:\n  \
                \"@type\": type.googleapis.com/envoy.config.route.v3.VirtualHost\n  \
                name: example\n  domains: [example]\n";
    assert_eq!(resource(host).name, "web/example");
    let bare = "\"@type\": type.googleapis.com/envoy.config.route.v3.VirtualHost\n\
                name: example\ndomains: [example]\n";
    assert_eq!(broken(bare), [("name", String::new())]);
    let named = |name: &str| {
        format!(
            "kind: Resource\nmetadata: {{name: {name}}}\nresource:\n  \
             \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: a\n"
        )
    };
    assert_eq!(resource(&named("a")).name, "a");
    assert_eq!(broken(&named("b")), [("name", "name".to_owned())]);
}

#[test]
fn a_draft_is_a_document() {
    let documents = parse(&[File { name: "a.yaml", text: &cluster("a", "") }]).unwrap();
    assert!(matches!(documents[..], [Document::Resource(_)]));
}

#[test]
fn the_nearest_word_is_close() {
    let words = ["connect_timeout", "cleanup_interval", "name"];
    assert_eq!(nearest("conect_timeout", words), Some("connect_timeout"));
    assert_eq!(nearest("connectTimeout", words), Some("connect_timeout"));
    assert_eq!(nearest("something_else", words), None);
}
