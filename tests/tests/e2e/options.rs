//! What the options of a service do at a real Envoy.

use std::{fs, net::SocketAddr};

use harness::{
    Mesh,
    address::{free, next_ip},
    app::{App, Manner, PIECES},
    cli, eventually, http,
    sidecar::Sidecar,
    wait::{LATE, SOON, eventually_some},
};
use proto::quorate::v1::{
    Health, HealthCheckOptions, HttpCheckOptions, Instance, ListServicesRequest, ServiceOptions,
    SetHealthRequest, health_check_options::Check, registry_client::RegistryClient,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tonic::{Code, transport::Endpoint};

/// Where every sidecar of this machine serves all HTTP services.
const OUTBOUND: &str = "127.0.0.1:20000";

/// Requests to see that none fails, or that some do.
const REQUESTS: usize = 60;

#[tokio::test]
async fn a_request_ends_when_its_time_is_over_and_by_default_with_its_answer() {
    let mesh = with_front().await;
    let [slow, mute] = [App::start(Manner::Trickles).await, App::start(Manner::Hangs).await];
    register(&mesh, "slow", slow.address).await;
    register(&mesh, "mute", mute.address).await;
    let whole = async || get(&mesh, "slow").await.is_some_and(|it| it.body == PIECES);
    eventually("the answer comes to its end", SOON, whole).await;
    let dump = mesh.front().config_dump().await;
    assert!(dump.contains(r#""timeout": "0s""#), "none would be 15 s");

    set(&mesh, "slow", &["--request-timeout", "1s"]).await;
    set(&mesh, "mute", &["--request-timeout", "1s"]).await;
    let timed_out = async || status(&mesh, "mute").await == Some(504);
    eventually("a call without an answer is told so", LATE, timed_out).await;
    assert!(!whole().await, "the answer is cut in its midst");

    set(&mesh, "slow", &[]).await;
    eventually("without an option it is whole again", SOON, whole).await;
    set(&mesh, "slow", &["--option", "timeouts.stream=1s"]).await;
    eventually("it is cut if its stream may not live longer", SOON, async || !whole().await).await;
}

#[tokio::test]
async fn what_is_beyond_a_limit_is_refused_at_once() {
    let mesh = with_front().await;
    let app = App::start(Manner::Hangs).await;
    register(&mesh, "web", app.address).await;
    set(&mesh, "web", &["--option", "limits.requests=1"]).await;
    let limited = async || mesh.front().config_dump().await.contains(r#""max_requests": 1,"#);
    eventually("the front proxy has the limit", SOON, limited).await;
    let first = get(&mesh, "web");
    let second = async {
        eventually("the first call is under way", SOON, async || !app.asked().is_empty()).await;
        status(&mesh, "web").await
    };
    let (_, second) = tokio::join!(first, second);
    // Nobody but the front proxy answers: the application never does.
    assert_eq!(second, Some(503));
}

#[tokio::test]
async fn retries_hide_a_dead_instance_unless_the_service_wants_none() {
    let mesh = with_front().await;
    let app = App::start(Manner::Answers).await;
    register(&mesh, "web", app.address).await;
    register(&mesh, "web", free(next_ip(), 8000)).await;
    let alone = "outlierDetection.off=true";
    set(&mesh, "web", &["--option", alone, "--option", "retries.when=none"]).await;
    let failed = async || {
        let mut failed = 0;
        for _ in 0..REQUESTS {
            failed += usize::from(status(&mesh, "web").await != Some(200));
        }
        failed
    };
    let some_fail = async || (1..REQUESTS).contains(&failed().await);
    eventually("calls to the dead instance fail", SOON, some_fail).await;
    set(&mesh, "web", &["--option", alone, "--option", "retries.when=safe"]).await;
    let none_fails = async || failed().await == 0;
    eventually("calls are tried again at the other", SOON, none_fails).await;
}

#[tokio::test]
async fn an_envoy_that_checks_takes_an_instance_out_and_back() {
    let mesh = with_front().await;
    let well = App::start(Manner::Answers).await;
    let other = free(next_ip(), 8000);
    // The options come with the registration of the instances.
    for address in [well.address, other] {
        let instance = Instance { options: Some(checked_at("/ready")), ..instance("web", address) };
        mesh.registry().register_instance(instance).await.unwrap();
    }
    let healthy = async |wanted: u64| {
        let known = mesh.front().stat("cluster.web.membership_healthy").await;
        let total = mesh.front().stat("cluster.web.membership_total").await;
        (known, total) == (Some(wanted), Some(2))
    };
    eventually("the dead one is out", LATE, async || healthy(1).await).await;
    for _ in 0..REQUESTS {
        assert_eq!(status(&mesh, "web").await, Some(200));
    }
    let back = App::start_at(other, Manner::Answers).await;
    eventually("it is back once it answers", LATE, async || healthy(2).await).await;
    let called = async || {
        status(&mesh, "web").await;
        back.asked().iter().any(|line| line.starts_with("GET / "))
    };
    eventually("it is called", SOON, called).await;
}

#[tokio::test]
async fn one_port_of_a_sidecar_serves_services_by_name_also_when_others_are_taken() {
    let mesh = Mesh::start(1, 0).await;
    let [web, shop] = [App::start(Manner::Answers).await, App::start(Manner::Answers).await];
    register(&mesh, "web", web.address).await;
    register(&mesh, "shop", shop.address).await;
    let services = mesh.registry().services().await.unwrap();
    let port = services.iter().find(|it| it.name == "web").unwrap().sidecar_port;
    let _taken = TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).await.unwrap();
    let sidecar = Sidecar::start(&mesh, "sidecar", None).await;
    let outbound: SocketAddr = OUTBOUND.parse().unwrap();
    for (host, app) in [("web", &web), ("shop", &shop)] {
        let status = async || http::get(outbound, host, "/").await.ok().map(|it| it.status);
        eventually("the service answers", SOON, async || status().await == Some(200)).await;
        // As with HTTP_PROXY.
        let request = format!(
            "GET http://{host}/proxied HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(http::send(outbound, &request).await.unwrap().status, 200);
        assert!(app.asked().iter().any(|line| line.starts_with("GET /proxied ")), "{host}");
    }
    assert_eq!(http::get(outbound, "nobody", "/").await.unwrap().status, 404);
    let rejected = async || {
        sidecar.stat("listener_manager.lds.update_rejected").await.unwrap_or(0)
            + sidecar.stat("listener_manager.listener_create_failure").await.unwrap_or(0)
    };
    assert!(rejected().await > 0, "the port of one service is taken");
}

#[tokio::test]
async fn calls_are_logged_at_every_way_in_if_the_service_says_so() {
    let mesh = with_front().await;
    let app = App::start(Manner::Answers).await;
    register(&mesh, "web", app.address).await;
    register(&mesh, "quiet", app.address).await;
    let file = mesh.path().join("web.log");
    let to = format!("accessLog.to={}", file.display());
    set(&mesh, "web", &["--option", &to, "--option", "accessLog.format=json"]).await;
    let _sidecar = Sidecar::start(&mesh, "sidecar", None).await;
    let services = mesh.registry().services().await.unwrap();
    let port = services.iter().find(|it| it.name == "web").unwrap().sidecar_port;
    let own = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
    let outbound: SocketAddr = OUTBOUND.parse().unwrap();
    for (way, address) in [("own", own), ("outbound", outbound), ("front", mesh.front().http)] {
        for host in ["quiet", "web"] {
            let host = if way == "own" { "web" } else { host };
            let path = format!("/{way}");
            let answered = async || http::get(address, host, &path).await.is_ok();
            eventually("the call is answered", SOON, answered).await;
        }
        let logged = async || {
            let text = match way {
                "front" => mesh.front().output(),
                _ => fs::read_to_string(&file).unwrap_or_default(),
            };
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.into_iter().find(|it| it["path"].as_str().is_some_and(|it| it.contains(way)))
        };
        let line = eventually_some("the call is logged", LATE, logged).await;
        assert_eq!((&line["status"], &line["service"]), (&200.into(), &"web".into()), "{line}");
        assert!(line["duration_ms"].is_u64() && line["time"].is_string(), "{line}");
    }
}

/// Status and message of gRPC come in trailers, also those that Envoy itself makes.
#[tokio::test]
async fn grpc_passes_with_status_and_trailers() {
    let mesh = with_front().await;
    let disco = mesh.disco[0].mesh();
    let grpc = Instance { protocol: "http2".to_owned(), ..instance("registry", disco) };
    mesh.registry().register_instance(grpc).await.unwrap();
    let dead = Instance { protocol: "http2".to_owned(), ..instance("dead", free(next_ip(), 80)) };
    mesh.registry().register_instance(dead).await.unwrap();
    let at = |service: &str| {
        let front = Endpoint::from_shared(format!("http://{}", mesh.front().http)).unwrap();
        let origin = format!("http://{service}").parse().unwrap();
        RegistryClient::new(front.origin(origin).connect_lazy())
    };
    let mut registry = at("registry");
    let listed = async || {
        let reply = registry.clone().list_services(ListServicesRequest {}).await.ok()?;
        Some(reply.into_inner().services.len())
    };
    assert_eq!(eventually_some("an answer comes through", SOON, listed).await, 2);
    let unknown = SetHealthRequest {
        service: "registry".to_owned(),
        id: "nobody".to_owned(),
        lease_id: 1,
        health: Health::Healthy.into(),
        ..SetHealthRequest::default()
    };
    let refused = registry.set_health(unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("nobody"), "{refused}");
    let gone = at("dead").list_services(ListServicesRequest {}).await.unwrap_err();
    assert_eq!(gone.code(), Code::Unavailable, "{gone}");
}

#[tokio::test]
async fn a_service_is_forgotten_everywhere_when_its_last_instance_is_long_gone() {
    let mesh = with_front().await;
    let app = App::start(Manner::Answers).await;
    for service in ["brief", "kept"] {
        register(&mesh, service, app.address).await;
    }
    set(&mesh, "brief", &["--option", "forgetAfter=1s"]).await;
    set(&mesh, "kept", &[]).await;
    let disco = mesh.disco_addresses()[0].to_string();
    let known = async |service: &str| mesh.front().clusters().await.contains_key(service);
    eventually("the front proxy knows them", SOON, async || known("brief").await).await;
    for service in ["brief", "kept"] {
        let id = app.address.to_string();
        let gone =
            cli::quorate(&["deregister", "--service", service, "--id", &id, "--disco", &disco])
                .await;
        assert_eq!(gone.code, 0, "{gone:?}");
    }
    eventually("it is forgotten", LATE, async || !known("brief").await).await;
    assert!(known("kept").await, "somebody wants it");
    let services = mesh.registry().services().await.unwrap();
    assert_eq!(services.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["kept"]);
}

#[tokio::test]
async fn a_wrong_option_is_refused_by_the_command_and_by_the_server() {
    let mesh = Mesh::start(1, 0).await;
    let disco = mesh.disco_addresses()[0].to_string();
    let args = ["service", "set", "web", "--disco", &disco, "--option", "retries.attempts=99"];
    let refused = cli::quorate(&args).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("option retries.attempts is 99: it is 0 to 20"), "{refused:?}");
    let too_long = ServiceOptions { request_timeout_ms: Some(u64::MAX), ..Default::default() };
    let address = SocketAddr::from(([10, 0, 0, 1], 80));
    let instance = Instance { options: Some(too_long), ..instance("web", address) };
    let refused = mesh.registry().register_instance(instance).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("option timeouts.request is "), "{refused}");
}

fn checked_at(path: &str) -> ServiceOptions {
    let http = HttpCheckOptions { path: path.to_owned(), ..HttpCheckOptions::default() };
    let check = HealthCheckOptions {
        check: Some(Check::Http(http)),
        interval_ms: Some(500),
        timeout_ms: Some(400),
        ..HealthCheckOptions::default()
    };
    ServiceOptions { health_check: Some(check), ..ServiceOptions::default() }
}

async fn with_front() -> Mesh {
    let mut mesh = Mesh::start(1, 0).await;
    mesh.add_front().await;
    mesh
}

fn instance(service: &str, address: SocketAddr) -> Instance {
    Instance {
        service: service.to_owned(),
        id: address.to_string(),
        address: address.to_string(),
        ..Instance::default()
    }
}

async fn register(mesh: &Mesh, service: &str, address: SocketAddr) {
    mesh.registry().register(service, address).await.unwrap();
}

async fn set(mesh: &Mesh, service: &str, options: &[&str]) {
    let disco = mesh.disco_addresses()[0].to_string();
    let set = ["service", "set", service, "--disco", &disco];
    cli::quorate(&[&set[..], options].concat()).await.ok();
}

async fn get(mesh: &Mesh, host: &str) -> Option<http::Answer> {
    http::get(mesh.front().http, host, "/").await.ok()
}

async fn status(mesh: &Mesh, host: &str) -> Option<u16> {
    get(mesh, host).await.map(|it| it.status)
}
