use serde_json::{Value, json};

use super::*;

/// Every option once.
fn everything() -> Value {
    json!({
        "timeouts": { "request": "5s", "streamIdle": "never", "stream": "2h", "connect": "250ms" },
        "retries": {
            "when": "safe", "attempts": 3, "perTry": "1500ms",
            "budgetPercent": 20, "budgetMin": 5,
        },
        "limits": {
            "connections": 100, "pendingRequests": 10, "requests": 200, "retries": 7,
            "requestsPerConnection": 1000, "connectionDuration": "30m",
        },
        "outlierDetection": {
            "connectFailures": 3, "gatewayFailures": 0, "serverErrors": 10, "interval": "2s",
            "ejection": "30s", "maxEjection": "5m", "maxEjectionPercent": 100,
        },
        "healthCheck": {
            "http": { "path": "/ready", "host": "check", "statuses": "200-299,404" },
            "interval": "1s", "timeout": "500ms", "healthyAfter": 1, "unhealthyAfter": 2,
        },
        "loadBalancing": {
            "policy": "round-robin",
            "slowStart": { "window": "1m", "aggressionPercent": 150, "minWeightPercent": 10 },
        },
        "accessLog": { "to": "/var/log/orders.log", "format": "json" },
        "tryUnhealthy": true,
        "forgetAfter": "7d",
    })
}

#[test]
fn options_are_the_same_in_a_document_and_on_the_wire() {
    let hashes = |hash: Value| json!({ "policy": "ring-hash", "hash": hash, "ringSize": 4096 });
    let checks = [json!({ "grpc": { "service": "orders.v1.Orders" } }), json!({ "tcp": {} })];
    let balancings = [
        hashes(json!({ "header": "x-user" })),
        hashes(json!({ "cookie": { "name": "user", "ttl": "1h" } })),
        hashes(json!({ "sourceIp": true })),
    ];
    let mut documents = vec![json!({}), everything()];
    documents.push(json!({ "outlierDetection": { "off": true } }));
    documents.push(json!({ "accessLog": { "to": "stdout", "format": "text" } }));
    documents.extend(checks.map(|it| json!({ "healthCheck": it })));
    documents.extend(balancings.map(|it| json!({ "loadBalancing": it })));
    for document in documents {
        let options: ServiceOptions = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(options.check(), Ok(()), "{document}");
        assert_eq!(ServiceOptions::parse(options.to_proto()).as_ref(), Ok(&options));
        assert_eq!(serde_json::to_value(&options).unwrap(), document);
    }
}

#[test]
fn an_option_that_is_not_allowed_is_told_with_its_value_and_what_is() {
    for (path, value, told) in [
        (
            "timeouts/request",
            json!("31d"),
            "option timeouts.request is 31d: it is 1ms to 30d, or never",
        ),
        ("timeouts/connect", json!("never"), "option timeouts.connect is never: it is 10ms to 1m"),
        ("retries/attempts", json!(21), "option retries.attempts is 21: it is 0 to 20"),
        ("retries/perTry", json!("6s"), "option retries.perTry is 6s: it is 1ms to 5s"),
        ("limits/requests", json!(0), "option limits.requests is 0: it is 1 to 1000000"),
        (
            "outlierDetection/maxEjectionPercent",
            json!(101),
            "option outlierDetection.maxEjectionPercent is 101: it is 0 to 100",
        ),
        (
            "outlierDetection/maxEjection",
            json!("29s"),
            "option outlierDetection.maxEjection is 29s: it is 30s to 1d",
        ),
        ("healthCheck/http/path", json!("ready"), "it begins with a `/`"),
        ("healthCheck/http/statuses", json!("99"), "of 100 to 599, like 200-299,404"),
        ("healthCheck/tcp", json!({}), "it has one of http, grpc and tcp"),
        ("loadBalancing/policy", json!("maglev"), "option loadBalancing.hash is missing"),
        ("loadBalancing/ringSize", json!(1024), "it goes with ring-hash"),
        ("loadBalancing/hash", json!({ "sourceIp": true }), "it goes with ring-hash and maglev"),
        ("loadBalancing/slowStart/window", json!("2h"), "it is 1s to 1h"),
        ("accessLog/to", json!("orders.log"), "begins with a `/`"),
        ("accessLog/to", json!("/it's"), "without quotes"),
        ("forgetAfter", json!("1ms"), "option forgetAfter is 1ms: it is 1s to 365d, or never"),
    ] {
        let mut document = everything();
        put(&mut document, path, value);
        let options: ServiceOptions = serde_json::from_value(document).unwrap();
        let wrong = options.check().unwrap_err().to_string();
        assert!(wrong.contains(told), "{path}: {wrong}");
        assert_eq!(ServiceOptions::parse(options.to_proto()).is_err(), path != "healthCheck/tcp");
    }
}

#[test]
fn the_ring_is_as_large_as_every_client_takes() {
    for (size, fine) in [(0, false), (1, true), (8 << 20, true), ((8 << 20) + 1, false)] {
        let balancing = LoadBalancing {
            policy: Some(Policy::RingHash),
            hash: Some(Hash { source_ip: true, ..Hash::default() }),
            ring_size: Some(size),
            slow_start: None,
        };
        assert_eq!(balancing.check().is_ok(), fine, "{size}");
    }
}

#[test]
fn a_document_has_no_other_fields_and_says_which_there_are() {
    let parse = |spec: Value| {
        let document = json!({
            "kind": "Service", "metadata": { "name": "orders" }, "spec": spec,
        });
        serde_json::from_value::<ServiceDocument>(document).map_err(|it| it.to_string())
    };
    let mut spec = everything();
    put(&mut spec, "protocol", json!("http2"));
    let document = parse(spec.clone()).unwrap();
    assert_eq!(document.metadata.name, "orders");
    assert_eq!(document.spec.protocol.as_deref(), Some("http2"));
    assert_eq!(serde_json::to_value(&document).unwrap()["spec"], spec);
    let options: ServiceOptions = serde_json::from_value(everything()).unwrap();
    assert_eq!(document.spec.into_options(), Ok(options));

    for (spec, told) in [
        (json!({ "timeout": "5s" }), "unknown field `timeout`, expected one of `protocol`"),
        (json!({ "retries": { "on": "safe" } }), "unknown field `on`, expected one of `when`"),
        (json!({ "retries": { "when": "always" } }), "unknown variant `always`"),
        (json!({ "timeouts": { "request": "soon" } }), "`soon` is no duration"),
        (json!({ "timeouts": { "request": "0s" } }), "`0s` is no duration"),
        (json!({ "limits": { "requests": -1 } }), "invalid value"),
    ] {
        let refused = parse(spec.clone()).unwrap_err();
        assert!(refused.contains(told), "{spec}: {refused}");
    }
}

#[test]
fn durations_are_written_in_the_longest_unit_that_loses_nothing() {
    for (text, written) in
        [("90s", "90s"), ("120", "2m"), ("24h", "1d"), ("1500ms", "1500ms"), ("1000ms", "1s")]
    {
        assert_eq!(duration::written(parse_duration(text).unwrap()), written);
    }
    assert_eq!(parse_duration_or_never("never"), Ok(Duration::ZERO));
    for text in ["", "s", "5 s", "5x", "-1s", "1.5s", "99999999999999999d"] {
        assert_eq!(parse_duration(text), Err(NotADuration(text.trim().to_owned())));
    }
}

#[test]
fn the_page_tells_every_option() {
    let page = include_str!("../../../docs/services.md");
    let mut paths = vec![
        "outlierDetection.off".to_owned(),
        "healthCheck.grpc.service".to_owned(),
        "healthCheck.tcp".to_owned(),
        "loadBalancing.hash.header".to_owned(),
        "loadBalancing.hash.cookie.name".to_owned(),
        "loadBalancing.hash.cookie.ttl".to_owned(),
        "loadBalancing.hash.sourceIp".to_owned(),
        "loadBalancing.ringSize".to_owned(),
    ];
    leaves("", &everything(), &mut paths);
    assert!(paths.len() > 40, "{paths:?}");
    for path in paths {
        assert!(page.contains(&format!("| `{path}`")), "{path} is not in docs/services.md");
    }
}

fn leaves(path: &str, value: &Value, found: &mut Vec<String>) {
    let Value::Object(fields) = value else {
        found.push(path.to_owned());
        return;
    };
    for (name, value) in fields {
        let dot = if path.is_empty() { "" } else { "." };
        leaves(&format!("{path}{dot}{name}"), value, found);
    }
}

/// Puts a value at a path whose parts are divided by slashes.
fn put(document: &mut Value, path: &str, value: Value) {
    let at = path.split('/').fold(document, |at, part| &mut at[part]);
    *at = value;
}
