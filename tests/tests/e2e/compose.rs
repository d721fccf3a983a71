//! The mesh of compose.yaml, as `docker compose up` makes it.
//!
//! One test, since the mesh takes long to make; its parts stand below in their order.

use std::{collections::BTreeMap, net::IpAddr};

use harness::{
    compose::{Capture, Compose, Container},
    eventually, eventually_some, http,
    kv::Kv,
    wait::{LATE, SOON, eventually_eq},
};
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

/// Everything that runs; `init` has ended.
const SERVICES: [&str; 11] = [
    "disco-1",
    "disco-2",
    "disco-3",
    "data-1",
    "data-2",
    "data-3",
    "data",
    "front",
    "web",
    "web-sidecar",
    "web-registrar",
];

/// Data nodes: the three with disks of their own, and those that `--scale` adds.
const DATA_SERVICES: [&str; 4] = ["data-1", "data-2", "data-3", "data"];

#[tokio::test]
async fn the_local_mesh() {
    let mesh = Compose::create().await;
    let capture = mesh.capture_dns().await;
    let began = Instant::now();
    mesh.run(&["up", "-d", "--no-build"]).await.ok();
    serves(&mesh).await;
    eprintln!("measured: compose up to the first write through Envoy: {:?}", began.elapsed());
    all_are_healthy(&mesh).await;
    the_application_is_reached_both_ways(&mesh).await;

    what_was_written_outlives_the_containers(&mesh).await;
    more_data_nodes_join(&mesh).await;
    a_leader_that_is_cut_off_comes_back(&mesh).await;
    every_container_comes_back_with_another_address(&mesh).await;
    the_application_is_reached_both_ways(&mesh).await;

    assert_eq!(capture.packets().await, Vec::<String>::new());
    for container in running(&mesh).await {
        assert_eq!(container.look_ups().await, 0, "{} looked up a name", container.name);
    }
    the_capture_would_have_seen_a_look_up(&mesh, &capture).await;
}

/// A write and the application answer at the published ports.
async fn serves(mesh: &Compose) {
    let mut kv = Kv::at(mesh.kv);
    eventually("a write goes through Envoy", LATE, async || kv.put("up", "1").await.is_ok()).await;
    let answers = async || http::get(mesh.http, "web", "/").await.is_ok_and(|it| it.status == 200);
    eventually("the application answers through Envoy", LATE, answers).await;
}

async fn all_are_healthy(mesh: &Compose) {
    for container in running(mesh).await {
        let health = async || container.health().await;
        let what = format!("{} is healthy", container.name);
        eventually_eq(&what, LATE, "healthy".to_owned(), health).await;
    }
}

/// From outside through the front, and from inside through the sidecar's port for the service.
async fn the_application_is_reached_both_ways(mesh: &Compose) {
    let answers = async || http::get(mesh.http, "web", "/").await.is_ok_and(|it| it.status == 200);
    eventually("the application answers through Envoy", LATE, answers).await;
    let services =
        eventually_some("the registry answers", SOON, async || mesh.quorate(&["services"]).await);
    let services = services.await;
    let web = find(&services["services"], "name", "web");
    let port = web["sidecar_port"].as_u64().expect("a service has a port on every sidecar");
    let container = mesh.container("web").await;
    let ask = format!("127.0.0.1:{port}");
    let check = ["python3", "/srv/web.py", "--check", &ask];
    let answers = async || container.exec(&check).await.code == 0;
    eventually("the application answers through its sidecar", LATE, answers).await;
}

/// Every container is removed, and others are made with the same disks, as by `down` and `up`; only
/// the network stays, since the capture listens on it.
async fn what_was_written_outlives_the_containers(mesh: &Compose) {
    let mut kv = Kv::at(mesh.kv);
    kv.put("before", "down").await.expect("the mesh is healthy");
    mesh.run(&["rm", "--stop", "--force"]).await.ok();
    mesh.run(&["up", "-d", "--no-build"]).await.ok();
    serves(mesh).await;
    let kept = kv.get("before").await.expect("the mesh serves").expect("it was acknowledged");
    assert_eq!(kept.value, "down");
    all_are_healthy(mesh).await;
}

async fn more_data_nodes_join(mesh: &Compose) {
    let up = ["up", "-d", "--no-build", "--no-recreate", "--scale", "data=2"];
    mesh.run(&up).await.ok();
    let replicas = async || match mesh.quorate(&["group", "show", "default"]).await {
        Some(group) => array(&group["replicas"]).iter().filter(|it| it["up"] == true).count(),
        None => 0,
    };
    eventually_eq("five replicas are up", LATE, 5, replicas).await;
    for container in data_nodes(mesh).await {
        let ip = container.ip().await.expect("it is in the network");
        let mut kv = Kv::at((ip, 2379).into());
        let read = async || kv.get("up").await.is_ok_and(|it| it.is_some_and(|it| it.value == "1"));
        eventually(&format!("{} has the data", container.name), LATE, read).await;
    }
}

async fn a_leader_that_is_cut_off_comes_back(mesh: &Compose) {
    let leader = leader(mesh).await;
    let ip = leader.ip().await.expect("it is in the network");
    let cut = Instant::now();
    leader.disconnect(&mesh.network()).await;
    let mut kv = Kv::at(mesh.kv);
    eventually("writes go on", LATE, async || kv.put("cut", "1").await.is_ok()).await;
    eprintln!("measured: leader cut off to the next write through Envoy: {:?}", cut.elapsed());
    leader.connect(&mesh.network(), ip).await;
    let mut returned = Kv::at((ip, 2379).into());
    let read = async || returned.get("cut").await.is_ok_and(|it| it.is_some());
    eventually("the old leader has what it missed", LATE, read).await;
    all_are_healthy(mesh).await;
}

async fn every_container_comes_back_with_another_address(mesh: &Compose) {
    let before = members(mesh).await;
    let mut kv = Kv::at(mesh.kv);
    kv.put("before", "the restart").await.expect("the mesh is healthy");
    let containers = running(mesh).await;
    let mut stops = JoinSet::new();
    for container in containers.clone() {
        stops.spawn(async move { container.stop().await });
    }
    stops.join_all().await;
    for container in &containers {
        assert_ne!(container.exit_code().await, "137", "{} had to be killed", container.name);
    }
    relocate(mesh).await;
    let began = Instant::now();
    // The application's container first: its neighbours share its network.
    for name in ["web-1", "front-1", "data-2", "data-1", "data-3-1", "data-2-1", "data-1-1"] {
        named(&containers, name).start().await;
    }
    for name in ["disco-3-1", "disco-1-1", "disco-2-1", "web-sidecar-1", "web-registrar-1"] {
        named(&containers, name).start().await;
    }
    serves(mesh).await;
    eprintln!(
        "measured: every container with another address, serving after {:?}",
        began.elapsed()
    );
    let kept = kv.get("before").await.expect("the mesh serves").expect("it was acknowledged");
    assert_eq!(kept.value, "the restart");
    all_are_healthy(mesh).await;
    let after = members(mesh).await;
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (node, address) in &after {
        assert_ne!(before[node], *address, "{node} has its old address");
    }
}

/// Takes every stopped container out of the network and puts it back elsewhere. The addresses at
/// which DISCO is looked for stay in use, each by another server than before.
async fn relocate(mesh: &Compose) {
    let network = mesh.network();
    let mut moves: Vec<(Container, IpAddr)> = Vec::new();
    for (service, next) in [("disco-1", 12), ("disco-2", 13), ("disco-3", 11)] {
        moves.push((mesh.container(service).await, IpAddr::from([10, 77, 0, next])));
    }
    let mut others = data_nodes(mesh).await;
    others.extend([mesh.container("front").await, mesh.container("web").await]);
    for (container, last) in others.into_iter().zip(50..) {
        moves.push((container, IpAddr::from([10, 77, 0, last])));
    }
    for (container, _) in &moves {
        container.disconnect(&network).await;
    }
    for (container, ip) in &moves {
        container.connect(&network, *ip).await;
    }
}

async fn the_capture_would_have_seen_a_look_up(mesh: &Compose, capture: &Capture) {
    let web = mesh.container("web").await;
    let look_up =
        "import socket\ntry: socket.getaddrinfo('name.example', 80)\nexcept OSError: pass";
    web.exec(&["timeout", "3", "python3", "-c", look_up]).await;
    assert_ne!(web.look_ups().await, 0, "the count of look-ups counts none");
    eventually("the look-up is captured", SOON, async || !capture.packets().await.is_empty()).await;
}

/// The container of the data node that leads, by the registry.
async fn leader(mesh: &Compose) -> Container {
    let address = async || {
        let group = mesh.quorate(&["group", "show", "default"]).await?;
        let replicas = array(&group["replicas"]);
        let leader = replicas.iter().find(|replica| replica["role"] == "leader")?;
        leader["kv_address"].as_str().map(|address| address.replace(":2379", ""))
    };
    let ip: IpAddr =
        eventually_some("a data node leads", LATE, address).await.parse().expect("an IP");
    for container in data_nodes(mesh).await {
        if container.ip().await == Some(ip) {
            return container;
        }
    }
    panic!("no container is at {ip}");
}

/// The servers of the mesh and where each is reached, once all eight are up.
async fn members(mesh: &Compose) -> BTreeMap<String, String> {
    let listed = async || {
        let members = mesh.quorate(&["members"]).await?;
        let up = array(&members["members"]).iter().filter(|member| member["state"] == "up");
        let addresses: BTreeMap<_, _> =
            up.map(|it| (text(&it["node_id"]), text(&it["mesh_address"]))).collect();
        (addresses.len() == 8).then_some(addresses)
    };
    eventually_some("all servers are listed as up", LATE, listed).await
}

async fn running(mesh: &Compose) -> Vec<Container> {
    containers(mesh, &SERVICES).await
}

async fn data_nodes(mesh: &Compose) -> Vec<Container> {
    containers(mesh, &DATA_SERVICES).await
}

async fn containers(mesh: &Compose, services: &[&str]) -> Vec<Container> {
    let mut all = Vec::new();
    for service in services {
        all.extend(mesh.containers(service).await);
    }
    all
}

fn named<'a>(containers: &'a [Container], name: &str) -> &'a Container {
    containers
        .iter()
        .find(|container| container.name == name)
        .unwrap_or_else(|| panic!("there is no container {name}"))
}

fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    array(list)
        .iter()
        .find(|it| it[key] == value)
        .unwrap_or_else(|| panic!("no {key} {value} in {list:#}"))
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
