//! What each option of a service becomes.

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{OutlierDetection, circuit_breakers::Thresholds},
            core::v3::health_check::HealthChecker,
            route::v3::{RouteAction, VirtualHost, route_action::hash_policy::PolicySpecifier},
        },
        extensions::load_balancing_policies::{
            least_request::v3::LeastRequest, maglev::v3::Maglev, ring_hash::v3::RingHash,
            round_robin::v3::RoundRobin,
        },
        r#type::v3::CodecClientType,
    },
    google::protobuf::{Any, Duration as WireDuration},
};
use proto::{
    millis,
    quorate::v1::{
        BalancingOptions, CookieOptions, GrpcCheckOptions, HashOptions, HealthCheckOptions,
        HttpCheckOptions, LimitOptions, OutlierOptions, RetryOptions, SlowStartOptions,
        StatusRange, TcpCheckOptions, hash_options::On, health_check_options::Check,
    },
};

use super::*;

#[test]
fn nothing_but_silence_ends_a_request_unless_the_service_says_otherwise() {
    let plain = actions(&with("http1", ServiceOptions::default()));
    for action in &plain {
        assert_eq!(action.timeout, Some(WireDuration::default()), "none would be 15 s");
        assert_eq!(action.max_stream_duration, None);
    }
    let bounded = ServiceOptions {
        request_timeout_ms: Some(2_500),
        stream_duration_ms: Some(60_000),
        connect_timeout_ms: Some(300),
        ..ServiceOptions::default()
    };
    let told = with("http1", bounded.clone());
    for action in actions(&told) {
        assert_eq!(action.timeout, Some(lasting(2_500)));
        let stream = action.max_stream_duration.unwrap();
        assert_eq!(stream.max_stream_duration, Some(lasting(60_000)));
        assert_eq!(stream.grpc_timeout_header_max, None);
    }
    assert_eq!(cluster(&told).connect_timeout, Some(lasting(300)));
    for action in actions(&with("http2", bounded)) {
        let stream = action.max_stream_duration.unwrap();
        assert_eq!(stream.grpc_timeout_header_max, Some(lasting(60_000)), "no call is longer");
    }
    for action in actions(&with("http2", ServiceOptions::default())) {
        let stream = action.max_stream_duration.unwrap();
        assert_eq!(stream.max_stream_duration, None);
        assert_eq!(stream.grpc_timeout_header_max, Some(lasting(0)), "a client's own deadline");
    }
}

#[test]
fn a_service_says_which_requests_are_tried_again_and_how_often() {
    let retries = |when: &str, attempts, per_try_timeout_ms| {
        let when = when.to_owned();
        let retries = RetryOptions { when, attempts, per_try_timeout_ms, ..Default::default() };
        let options = ServiceOptions { retries: Some(retries), ..ServiceOptions::default() };
        host(&with("http1", options))
    };
    for none in [retries("none", None, None), retries("idempotent", Some(0), None)] {
        assert_eq!((none.routes.len(), none.retry_policy), (1, None));
    }
    let safe = retries("safe", Some(2), Some(700));
    assert_eq!(safe.routes.len(), 1);
    let policy = safe.retry_policy.unwrap();
    assert_eq!(policy.num_retries, Some(UInt32Value { value: 2 }));
    assert_eq!(policy.per_try_timeout, Some(lasting(700)));
    assert!(!policy.retry_on.contains(",reset,") && !policy.retry_on.ends_with(",reset"));
    let both = retries("idempotent", Some(1), None);
    assert_eq!(both.routes.len(), 2);
    let Some(route::Action::Route(action)) = &both.routes[0].action else { panic!() };
    let policy = action.retry_policy.as_ref().unwrap();
    assert!(policy.retry_on.ends_with(",reset"));
    assert_eq!(policy.num_retries, Some(UInt32Value { value: 1 }));
}

#[test]
fn limits_become_circuit_breakers_and_options_of_connections() {
    let unlimited = thresholds(&with("http1", ServiceOptions::default()));
    assert_eq!(unlimited.max_requests, Some(UInt32Value { value: 1_000_000 }));
    assert_eq!(unlimited.retry_budget, None);
    let limits = LimitOptions {
        connections: Some(1),
        pending_requests: Some(2),
        requests: Some(3),
        retries: Some(4),
        requests_per_connection: Some(5),
        connection_duration_ms: Some(6_000),
    };
    let retries = RetryOptions { budget_percent: Some(20), ..RetryOptions::default() };
    let options = ServiceOptions {
        limits: Some(limits),
        retries: Some(retries),
        ..ServiceOptions::default()
    };
    for protocol in ["http1", "http2"] {
        let told = with(protocol, options.clone());
        let limited = thresholds(&told);
        let values = [
            limited.max_connections,
            limited.max_pending_requests,
            limited.max_requests,
            limited.max_retries,
        ];
        assert_eq!(values, [1, 2, 3, 4].map(|value| Some(UInt32Value { value })));
        let budget = limited.retry_budget.unwrap().budget_percent.unwrap();
        assert!((budget.value - 20.0).abs() < f64::EPSILON);
        let extension = cluster(&told).typed_extension_protocol_options.into_values().next();
        let common = decode_any::<HttpProtocolOptions>(&extension.unwrap())
            .common_http_protocol_options
            .unwrap();
        assert_eq!(common.max_requests_per_connection, Some(UInt32Value { value: 5 }));
        assert_eq!(common.max_connection_duration, Some(lasting(6_000)));
        assert_eq!(common.idle_timeout.is_some(), protocol == "http1");
    }
    let proxy = tcp_proxy(&with("tcp", options));
    assert_eq!(proxy.max_downstream_connection_duration, Some(lasting(6_000)));
}

/// What is more than 100 percent is refused by gRPC clients.
#[test]
fn outliers_are_ejected_as_the_service_says_or_not_at_all() {
    let of = |outliers| {
        let options =
            ServiceOptions { outlier_detection: Some(outliers), ..ServiceOptions::default() };
        cluster(&with("http1", options)).outlier_detection
    };
    assert_eq!(of(OutlierOptions { off: true, ..OutlierOptions::default() }), None);
    let value = |it: Option<UInt32Value>| it.unwrap().value;
    let enforced = |it: &OutlierDetection| {
        [
            value(it.enforcing_consecutive_local_origin_failure),
            value(it.enforcing_consecutive_gateway_failure),
            value(it.enforcing_consecutive_5xx),
        ]
    };
    let by_default = of(OutlierOptions::default()).unwrap();
    assert_eq!(enforced(&by_default), [100, 100, 0]);
    assert_eq!(value(by_default.max_ejection_percent), 50);
    let told = of(OutlierOptions {
        connect_failures: Some(0),
        gateway_failures: Some(0),
        server_errors: Some(7),
        interval_ms: Some(2_000),
        ejection_ms: Some(60_000),
        max_ejection_percent: Some(100),
        ..OutlierOptions::default()
    })
    .unwrap();
    assert_eq!(enforced(&told), [0, 0, 100]);
    assert_eq!(value(told.consecutive_5xx), 7);
    assert_eq!(value(told.max_ejection_percent), 100);
    assert_eq!(told.interval, Some(lasting(2_000)));
    assert_eq!(told.base_ejection_time, Some(lasting(60_000)));
    assert_eq!(told.max_ejection_time, Some(lasting(60_000)), "never less than the first");
}

#[test]
fn an_envoy_checks_instances_only_if_the_service_says_so_and_keeps_none_that_was_removed() {
    let of = |protocol: &str, check: Check| {
        let health_check = HealthCheckOptions {
            check: Some(check),
            interval_ms: Some(2_000),
            ..HealthCheckOptions::default()
        };
        let options =
            ServiceOptions { health_check: Some(health_check), ..ServiceOptions::default() };
        let cluster = cluster(&with(protocol, options));
        assert!(cluster.ignore_health_on_host_removal);
        let [check] = &*cluster.health_checks else { panic!() };
        assert_eq!(
            (check.interval, check.no_traffic_interval),
            (Some(lasting(2_000)), check.interval)
        );
        assert!(check.timeout.is_some() && check.healthy_threshold.is_some());
        check.health_checker.clone().unwrap()
    };
    assert_eq!(cluster(&with("http1", ServiceOptions::default())).health_checks, []);
    let http = HttpCheckOptions {
        path: "/ready".to_owned(),
        statuses: vec![StatusRange { first: 200, last: 299 }],
        ..HttpCheckOptions::default()
    };
    let HealthChecker::HttpHealthCheck(checked) = of("http2", Check::Http(http)) else { panic!() };
    assert_eq!((&*checked.path, &*checked.host), ("/ready", "orders"));
    let range = &checked.expected_statuses[0];
    assert_eq!((range.start, range.end), (200, 300), "the end is exclusive");
    assert_eq!(checked.codec_client_type, i32::from(CodecClientType::Http2));
    let grpc = GrpcCheckOptions { service: "orders.Orders".to_owned() };
    let HealthChecker::GrpcHealthCheck(checked) = of("http2", Check::Grpc(grpc)) else { panic!() };
    assert_eq!(checked.service_name, "orders.Orders");
    let checked = of("tcp", Check::Tcp(TcpCheckOptions {}));
    assert!(matches!(checked, HealthChecker::TcpHealthCheck(_)));
}

/// A gRPC client uses the first policy that it knows, and rejects a cluster of which it knows none.
#[test]
fn every_list_of_policies_has_one_that_all_grpc_clients_know() {
    let hash = Some(HashOptions { on: Some(On::Header("x-user".to_owned())) });
    for (policy, hash, names) in [
        ("", None, &["least_request", "wrr_locality"][..]),
        ("least-request", None, &["least_request", "wrr_locality"]),
        ("round-robin", None, &["round_robin", "wrr_locality"]),
        ("ring-hash", hash.clone(), &["ring_hash", "wrr_locality"]),
        ("maglev", hash, &["maglev", "ring_hash", "wrr_locality"]),
    ] {
        let told = balanced(BalancingOptions {
            policy: policy.to_owned(),
            hash,
            ..BalancingOptions::default()
        });
        let found: Vec<_> = policies(&told).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, names, "{policy}");
    }
}

#[test]
fn a_hash_is_of_a_header_a_cookie_or_the_source() {
    let of = |on: On| {
        let balancing = BalancingOptions {
            policy: "maglev".to_owned(),
            hash: Some(HashOptions { on: Some(on) }),
            ..BalancingOptions::default()
        };
        let told = balanced(balancing);
        let [(_, maglev), (_, ring), _] = &*policies(&told) else { panic!() };
        decode_any::<Maglev>(maglev);
        let ring = decode_any::<RingHash>(ring);
        assert_eq!(ring.hash_function, 1, "gRPC clients take XX_HASH alone");
        assert!(ring.minimum_ring_size.unwrap().value <= 8 << 20);
        let mut hashed = actions(&told).into_iter().map(|it| it.hash_policy);
        let first = hashed.next().unwrap();
        assert!(hashed.all(|it| it == first), "every route of the service hashes");
        first[0].policy_specifier.clone().unwrap()
    };
    let PolicySpecifier::Header(header) = of(On::Header("x-user".to_owned())) else { panic!() };
    assert_eq!(header.header_name, "x-user");
    let cookie = CookieOptions { name: "user".to_owned(), ttl_ms: Some(60_000) };
    let PolicySpecifier::Cookie(cookie) = of(On::Cookie(cookie)) else { panic!() };
    assert_eq!((&*cookie.name, cookie.ttl, &*cookie.path), ("user", Some(lasting(60_000)), "/"));
    let PolicySpecifier::ConnectionProperties(source) = of(On::SourceIp(true)) else { panic!() };
    assert!(source.source_ip);

    let hash = Some(HashOptions { on: Some(On::SourceIp(true)) });
    let balancing = BalancingOptions { policy: "ring-hash".to_owned(), hash, ..Default::default() };
    let options = ServiceOptions { load_balancing: Some(balancing), ..Default::default() };
    assert_eq!(tcp_proxy(&with("tcp", options)).hash_policy.len(), 1);
}

#[test]
fn an_instance_that_appears_is_spared_by_either_policy() {
    let slow_start = SlowStartOptions {
        window_ms: 30_000,
        aggression_percent: Some(150),
        min_weight_percent: Some(20),
    };
    for policy in ["least-request", "round-robin"] {
        let told = balanced(BalancingOptions {
            policy: policy.to_owned(),
            slow_start: Some(slow_start),
            ..BalancingOptions::default()
        });
        let (name, config) = policies(&told).remove(0);
        let spared = match &*name {
            "least_request" => decode_any::<LeastRequest>(&config).slow_start_config,
            _ => decode_any::<RoundRobin>(&config).slow_start_config,
        }
        .unwrap();
        assert_eq!(spared.slow_start_window, Some(lasting(30_000)));
        let aggression = spared.aggression.unwrap();
        assert!((aggression.default_value - 1.5).abs() < f64::EPSILON);
        assert!(!aggression.runtime_key.is_empty(), "Envoy refuses it without a key");
        assert!((spared.min_weight_percent.unwrap().value - 20.0).abs() < f64::EPSILON);
    }
}

/// `orders`, which speaks a protocol and has options, translated.
fn with(protocol: &str, options: ServiceOptions) -> Told {
    let mut mesh = speaking(protocol);
    mesh.run(set(options)).unwrap();
    Told::of(&mesh)
}

fn balanced(load_balancing: BalancingOptions) -> Told {
    let load_balancing = Some(load_balancing);
    with("http2", ServiceOptions { load_balancing, ..ServiceOptions::default() })
}

fn cluster(told: &Told) -> Cluster {
    told.get(ResourceType::Cluster, "orders")
}

fn thresholds(told: &Told) -> Thresholds {
    cluster(told).circuit_breakers.unwrap().thresholds.remove(0)
}

fn policies(told: &Told) -> Vec<(String, Any)> {
    let policies = cluster(told).load_balancing_policy.unwrap().policies;
    let configs = policies.into_iter().map(|it| it.typed_extension_config.unwrap());
    let plain =
        |name: String| name.strip_prefix("envoy.load_balancing_policies.").unwrap().to_owned();
    configs.map(|it| (plain(it.name), it.typed_config.unwrap())).collect()
}

fn host(told: &Told) -> VirtualHost {
    let routes: RouteConfiguration = told.get(ResourceType::Route, "orders");
    routes.virtual_hosts.into_iter().next().unwrap()
}

fn actions(told: &Told) -> Vec<RouteAction> {
    let action = |it| match it {
        Some(route::Action::Route(action)) => action,
        other => panic!("{other:?}"),
    };
    host(told).routes.into_iter().map(|it| action(it.action)).collect()
}

fn tcp_proxy(told: &Told) -> TcpProxy {
    let listener: Listener = told.get(ResourceType::Listener, "sidecar/orders");
    let Some(filter::ConfigType::TypedConfig(config)) =
        &listener.filter_chains[0].filters[0].config_type
    else {
        panic!()
    };
    decode_any(config)
}

fn lasting(for_millis: u64) -> WireDuration {
    let duration = std::time::Duration::from_millis(for_millis);
    assert_eq!(millis(duration), for_millis);
    build::duration(duration).unwrap()
}
