//! The figures that the closing notes give: run and printed by `scripts/measure`.

use std::{net::SocketAddr, time::Duration};

use harness::{
    Mesh, Server,
    etcd::Etcd,
    eventually,
    kv::Kv,
    stats::{Durations, Usage},
    wait::SOON,
};
use tempfile::TempDir;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Meshes started one after the other.
const STARTS: usize = 3;

/// Instances registered one after the other.
const REGISTRATIONS: usize = 20;

/// How long the mesh is left alone after the registrations, so that they are not counted as idle use.
const SETTLE: Duration = Duration::from_secs(3);

/// How long an idle mesh is watched.
const IDLE: Duration = Duration::from_secs(10);

/// Clients of a key-value store, each with one write under way.
const CLIENTS: usize = 64;

/// How long they write.
const WRITES: Duration = Duration::from_secs(5);

/// One server of each, which syncs every write to the same disk.
#[tokio::test]
async fn writes_beside_etcd() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "single", "all");
    server.start();
    eventually("the server is ready", SOON, async || server.is_ready().await).await;
    let ours = writes(server.kv()).await;
    server.kill();
    let theirs = writes(Etcd::start().await.address).await;
    eprintln!("measured: {CLIENTS} clients put 100 bytes: quorate {ours}");
    eprintln!("measured: {CLIENTS} clients put 100 bytes: etcd {theirs}");
}

/// What it takes to put keys that nobody else puts, as fast as the store answers.
async fn writes(store: SocketAddr) -> String {
    let (begun, value) = (Instant::now(), "x".repeat(100));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (mut kv, value) = (Kv::at(store), value.clone());
        clients.spawn(async move {
            let mut took = Vec::new();
            while begun.elapsed() < WRITES {
                let sent = Instant::now();
                kv.put(&format!("{client}/{}", took.len()), &value).await.unwrap();
                took.push(sent.elapsed());
            }
            took
        });
    }
    let took: Vec<Duration> = clients.join_all().await.into_iter().flatten().collect();
    let rate = took.len() as f64 / begun.elapsed().as_secs_f64();
    format!("{rate:.0} writes a second, {}", Durations::new(took))
}

#[tokio::test]
async fn cold_start_registration_and_idle_use() {
    let mut starts = Vec::new();
    for _ in 1..STARTS {
        let (_, took) = cold_start().await;
        starts.push(took);
    }
    let (mesh, took) = cold_start().await;
    starts.push(took);
    let starts = Durations::new(starts);
    eprintln!("measured: cold start of 3 + 3 to the first write through Envoy: {starts}");
    eprintln!("measured: register to endpoint in Envoy: {}", registrations(&mesh).await);
    sleep(SETTLE).await;
    idle(&mesh).await;
}

async fn cold_start() -> (Mesh, Duration) {
    let began = Instant::now();
    let mesh = Mesh::start_with_front(3, 3).await;
    (mesh, began.elapsed())
}

/// From the call of the registry to Envoy's own list, polled every few milliseconds.
async fn registrations(mesh: &Mesh) -> Durations {
    let mut registry = mesh.registry();
    let mut took = Vec::new();
    for count in 1..=REGISTRATIONS {
        let address = format!("127.0.0.1:{}", 10_000 + count).parse().unwrap();
        let began = Instant::now();
        registry.register("measured", address).await.unwrap();
        let listed = async || mesh.front().endpoints("measured").await.len() == count;
        eventually("Envoy lists the instance", SOON, listed).await;
        took.push(began.elapsed());
    }
    Durations::new(took)
}

async fn idle(mesh: &Mesh) {
    let servers = mesh.disco.iter().chain(&mesh.data);
    let mut processes: Vec<(String, u32)> =
        servers.map(|server| (server.name.clone(), server.id().unwrap())).collect();
    processes.push(("envoy".to_owned(), mesh.front().id()));
    let before: Vec<Usage> = processes.iter().map(|(_, id)| Usage::of(*id)).collect();
    sleep(IDLE).await;
    for ((name, id), before) in processes.iter().zip(before) {
        let after = Usage::of(*id);
        let percent = (after.cpu - before.cpu).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
        let resident = after.resident_kib / 1024;
        eprintln!("measured: idle {name}: {percent:.1} % of a core, {resident} MiB resident");
    }
}
