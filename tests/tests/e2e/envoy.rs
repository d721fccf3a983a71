//! How a real Envoy, configured by DISCO, treats callers and applications.

use std::{net::SocketAddr, process::Command};

use harness::{
    Mesh,
    address::{free, next_ip},
    app::{App, Manner, read_head},
    cli, eventually, http,
    kv::Kv,
    sidecar::Sidecar,
    wait::{LATE, SOON, eventually_eq, eventually_some},
};
use proto::quorate::v1::{Health, Instance};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;

/// Requests to see that none fails.
const REQUESTS: usize = 100;

#[tokio::test]
async fn callers_upgrade_to_websocket_and_speak_old_http() {
    let mesh = with_front().await;
    let app = App::start(Manner::Answers).await;
    register(&mesh, "web", app.address).await;
    let sidecar = Sidecar::start(&mesh, "sidecar", Some(app.address)).await;
    let outbound = local_port(&mesh, "web").await;
    for (who, address) in
        [("front", mesh.front().http), ("outbound", outbound), ("inbound", sidecar.inbound)]
    {
        answers(address, "web").await;
        let mut connection = TcpStream::connect(address).await.unwrap();
        let upgrade = "GET / HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\n\
                       upgrade: WebSocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        connection.write_all(upgrade.as_bytes()).await.unwrap();
        let head = timeout(SOON, read_head(&mut connection)).await.unwrap().unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{who}: {head}");
        connection.write_all(b"ping").await.unwrap();
        let mut echo = [0; 4];
        timeout(SOON, connection.read_exact(&mut echo)).await.unwrap().unwrap();
        assert_eq!(&echo, b"ping", "{who}");

        for upgrade in ["TLS/1.2", "h2c", "other", "websockets"] {
            let request = format!(
                "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade, close\r\nupgrade: {upgrade}\r\n\r\n"
            );
            let answer = http::send(address, &request).await.unwrap();
            assert_eq!(answer.status, 200, "{who}, upgrade to {upgrade}: {answer:?}");
        }
        let old = http::send(address, "GET / HTTP/1.0\r\nhost: web\r\n\r\n").await.unwrap();
        assert_eq!(old.status, 200, "{who}: {old:?}");
    }
    for address in [outbound, sidecar.inbound] {
        let nameless = http::send(address, "GET / HTTP/1.0\r\n\r\n").await.unwrap();
        assert_eq!(nameless.status, 200, "{nameless:?}");
    }
}

/// The dead are neighbors in Envoy's list, as those of one zone are.
#[tokio::test]
async fn no_request_fails_when_a_zone_is_gone() {
    let mesh = with_front().await;
    let mut apps = Vec::new();
    for _ in 0..16 {
        apps.push(App::start(Manner::Answers).await);
    }
    let dead: Vec<SocketAddr> = (0..8).map(|_| free(next_ip(), 8000)).collect();
    for _ in 0..16 {
        apps.push(App::start(Manner::Answers).await);
    }
    for address in apps.iter().map(|app| app.address).chain(dead) {
        register(&mesh, "web", address).await;
    }
    let listed = async || mesh.front().endpoints("web").await.len();
    eventually_eq("all are listed", SOON, 40, listed).await;
    let mut statuses = Vec::new();
    for _ in 0..REQUESTS {
        statuses.push(http::get(mesh.front().http, "web", "/").await.unwrap().status);
    }
    assert_eq!(statuses, [200; REQUESTS]);
}

#[tokio::test]
async fn connections_that_the_application_closes_cost_no_request() {
    let mesh = with_front().await;
    let app = App::start(Manner::ClosesReused).await;
    register(&mesh, "web", app.address).await;
    let sidecar = Sidecar::start(&mesh, "sidecar", Some(app.address)).await;
    let outbound = local_port(&mesh, "web").await;
    for address in [mesh.front().http, outbound, sidecar.inbound] {
        answers(address, "web").await;
        let mut statuses = Vec::new();
        for _ in 0..REQUESTS {
            statuses.push(http::get(address, "web", "/").await.unwrap().status);
        }
        assert_eq!(statuses, [200; REQUESTS], "{address}");

        // What may have been carried out and is not idempotent is sent once.
        let posts = || app.asked().iter().filter(|line| line.starts_with("POST")).count();
        let before = posts();
        let post = "POST / HTTP/1.1\r\nhost: web\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let mut failed = 0;
        for _ in 0..10 {
            failed += usize::from(http::send(address, post).await.unwrap().status != 200);
        }
        assert_eq!(posts() - before, 10, "{address}, of which {failed} failed");
    }
}

#[tokio::test]
async fn an_instance_that_fell_silent_is_given_up() {
    let mesh = with_front().await;
    let [app, stream] = [App::start(Manner::Hangs).await, App::start(Manner::Hangs).await];
    register(&mesh, "web", app.address).await;
    let tcp = Instance { protocol: "tcp".to_owned(), ..instance("stream", stream.address) };
    mesh.registry().register_instance(tcp).await.unwrap();
    let _sidecar = Sidecar::start(&mesh, "sidecar", None).await;
    let mut calls = Vec::new();
    for (service, app) in [("web", &app), ("stream", &stream)] {
        let address = local_port(&mesh, service).await;
        let connect = async || TcpStream::connect(address).await.ok();
        let mut call = eventually_some("the sidecar listens", SOON, connect).await;
        call.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await.unwrap();
        eventually("the instance has the call", SOON, async || !app.asked().is_empty()).await;
        calls.push(call);
    }
    let _cuts = [Cut::off(app.address), Cut::off(stream.address)];
    for mut call in calls {
        let mut rest = Vec::new();
        // Either it is answered by Envoy or it is closed.
        timeout(LATE, call.read_to_end(&mut rest)).await.expect("the call ends").unwrap_or(0);
    }
}

#[tokio::test]
async fn an_unhealthy_instance_gets_nothing_also_as_the_last() {
    let mesh = with_front().await;
    let [well, ill] = [App::start(Manner::Answers).await, App::start(Manner::Answers).await];
    register(&mesh, "web", well.address).await;
    let mut instance = instance("web", ill.address);
    instance.set_health(Health::Unhealthy);
    mesh.registry().register_instance(instance.clone()).await.unwrap();
    instance.service = "alone".to_owned();
    mesh.registry().register_instance(instance).await.unwrap();
    answers(mesh.front().http, "web").await;
    let status =
        async |host| http::get(mesh.front().http, host, "/").await.map(|it| it.status).ok();
    let refused = async || status("alone").await == Some(503);
    eventually("nobody serves the other", SOON, refused).await;
    for _ in 0..REQUESTS {
        assert_eq!(status("web").await, Some(200));
    }
    assert_eq!(ill.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_service_may_want_its_unhealthy_tried_and_its_silent_streams_cut() {
    let mesh = with_front().await;
    let [ill, mute] = [App::start(Manner::Answers).await, App::start(Manner::Hangs).await];
    let mut sick = instance("sick", ill.address);
    sick.set_health(Health::Unhealthy);
    mesh.registry().register_instance(sick).await.unwrap();
    register(&mesh, "mute", mute.address).await;
    let disco = mesh.disco_addresses()[0].to_string();
    let set = async |service, options: &[&str]| {
        let set = ["service", "set", service, "--disco", &disco];
        cli::quorate(&[&set[..], options].concat()).await
    };
    assert_eq!(set("nobody", &["--try-unhealthy"]).await.code, 3);
    assert_eq!(set("mute", &["--stream-idle", "0s"]).await.code, 2);
    let known = async || mesh.front().clusters().await.contains_key("sick");
    eventually("the front proxy knows the service", SOON, known).await;
    assert_eq!(http::get(mesh.front().http, "sick", "/").await.unwrap().status, 503);

    set("sick", &["--try-unhealthy"]).await.ok();
    answers(mesh.front().http, "sick").await;
    set("sick", &[]).await.ok();
    let refused = async || http::get(mesh.front().http, "sick", "/").await.unwrap().status == 503;
    eventually("without the option it is refused again", SOON, refused).await;

    set("mute", &["--stream-idle", "1s"]).await.ok();
    let listed = cli::quorate(&["services", "--format", "json", "--disco", &disco]).await.json();
    let options = |it: &Value| (it["name"] == "mute").then(|| it["options"].clone());
    let options = listed["services"].as_array().unwrap().iter().find_map(options).unwrap();
    assert_eq!(options, json!({ "timeouts": { "streamIdle": "1s" } }));
    let cut = async || {
        let call = http::get(mesh.front().http, "mute", "/");
        matches!(timeout(SOON, call).await, Ok(Ok(answer)) if answer.status == 504)
    };
    eventually("silence ends a call", LATE, cut).await;
}

#[tokio::test]
async fn no_service_takes_the_place_of_what_is_static() {
    let mesh = with_front().await;
    let [app, other] = [App::start(Manner::Answers).await, App::start(Manner::Answers).await];
    for name in ["application", "mesh", "quorate-disco", "inbound"] {
        register(&mesh, name, other.address).await;
    }
    let sidecar = Sidecar::start(&mesh, "sidecar", Some(app.address)).await;
    let known = async || sidecar.clusters().await.contains_key("application");
    eventually("the sidecar knows the service", SOON, known).await;
    answers(sidecar.inbound, "web").await;
    assert_eq!(other.asked(), Vec::<String>::new());
    // The sidecar is told of services that come later, so it still has DISCO.
    register(&mesh, "later", other.address).await;
    let known = async || sidecar.clusters().await.contains_key("later");
    eventually("it is told of another service", SOON, known).await;
}

#[tokio::test]
async fn the_etcd_port_says_that_there_is_no_namespace_yet() {
    let mut mesh = with_front().await;
    let told = async || match Kv::at(mesh.front().kv).put("a", "1").await {
        Err(status) if status.message().contains("no namespace yet") => Some(status.code()),
        _ => None,
    };
    assert_eq!(eventually_some("it says so", SOON, told).await, Code::Unavailable);
    mesh.add_data();
    mesh.add_data();
    mesh.add_data();
    let writes = async || Kv::at(mesh.front().kv).put("a", "1").await.is_ok();
    eventually("a write goes through, once there is one", LATE, writes).await;
}

#[tokio::test]
async fn a_second_sidecar_of_a_host_takes_no_calls_of_the_first() {
    let mesh = with_front().await;
    let app = App::start(Manner::Answers).await;
    register(&mesh, "web", app.address).await;
    let _first = Sidecar::start(&mesh, "first", None).await;
    let outbound = local_port(&mesh, "web").await;
    answers(outbound, "web").await;
    let second = Sidecar::start(&mesh, "second", Some(app.address)).await;
    let lacks = async || rejections(&second).await > 0;
    eventually("the second lacks the port", SOON, lacks).await;
    assert_eq!(second.stat("http.sidecar_web.downstream_rq_total").await.unwrap_or(0), 0);
    for _ in 0..20 {
        assert_eq!(http::get(outbound, "web", "/").await.unwrap().status, 200);
    }
    assert_eq!(second.stat("http.sidecar_web.downstream_rq_total").await.unwrap_or(0), 0);
    // Its own way in works all the same, and with --inbound-only it asks for no ports at all.
    answers(second.inbound, "web").await;
    let third = Sidecar::inbound_only(&mesh, "third", app.address).await;
    answers(third.inbound, "web").await;
    assert_eq!(rejections(&third).await, 0);
}

/// Of listeners, whether they could not be made or not be opened.
async fn rejections(sidecar: &Sidecar) -> u64 {
    let rejected = sidecar.stat("listener_manager.lds.update_rejected").await.unwrap_or(0);
    let failed = sidecar.stat("listener_manager.listener_create_failure").await.unwrap_or(0);
    rejected + failed
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

/// Where every sidecar of this machine takes calls for a service.
async fn local_port(mesh: &Mesh, service: &str) -> SocketAddr {
    let services = mesh.registry().services().await.unwrap();
    let it = services.iter().find(|it| it.name == service).expect("the service is registered");
    SocketAddr::from(([127, 0, 0, 1], u16::try_from(it.sidecar_port).unwrap()))
}

async fn answers(address: SocketAddr, host: &str) {
    let answers = async || http::get(address, host, "/").await.is_ok_and(|it| it.status == 200);
    eventually("requests are answered", SOON, answers).await;
}

/// Drops every packet from and to an address of this machine, while it lives.
struct Cut(SocketAddr);

impl Cut {
    fn off(address: SocketAddr) -> Self {
        let cut = Self(address);
        cut.rules("-I");
        cut
    }

    fn rules(&self, verb: &str) {
        for side in ["-s", "-d"] {
            let ip = self.0.ip().to_string();
            let mut command = match nix::unistd::geteuid().is_root() {
                true => Command::new("iptables"),
                false => {
                    let mut sudo = Command::new("sudo");
                    sudo.args(["-n", "iptables"]);
                    sudo
                }
            };
            let status = command.args(["-w", verb, "OUTPUT", side, &ip, "-j", "DROP"]).status();
            assert!(status.is_ok_and(|it| it.success()), "iptables {verb} for {ip}");
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.rules("-D");
    }
}
