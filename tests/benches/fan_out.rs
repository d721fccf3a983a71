//! How long a change of one endpoint takes to reach many clients of delta xDS, and what it costs.
//!
//! `cargo bench --workspace --bench fan_out`, with the binary to measure in QUORATE_BIN. The clients run
//! beside the server, and share the machine with it.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark measures and tells")]

use std::time::Duration;

use harness::{
    Mesh,
    ads::{CLUSTER, Client, ENDPOINTS, Held},
    registry::Registry,
    stats::{Durations, Usage},
    wait::LATE,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

const SERVICES: u16 = 1_000;
const INSTANCES: u16 = 5;
const CLIENTS: u16 = 1_000;
const CHANGES: u16 = 20;

#[tokio::main]
async fn main() {
    let mesh = Mesh::start(1, 0).await;
    let (server, process) = (mesh.disco_addresses()[0], mesh.disco[0].id().unwrap());
    let mut registry = mesh.registry();
    let begun = Instant::now();
    for service in 0..SERVICES {
        for instance in 0..INSTANCES {
            register(&mut registry, service, instance).await;
        }
    }
    println!("measured: {SERVICES} services of {INSTANCES} instances: {:?}", begun.elapsed());

    let names: Vec<String> = (0..SERVICES).map(name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (begun, before) = (Instant::now(), Usage::of(process));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::open(server, &names, Held::default()).await);
    }
    let mut syncing = JoinSet::new();
    for client in clients {
        syncing.spawn(synced(client));
    }
    let clients = syncing.join_all().await;
    let after = Usage::of(process);
    println!(
        "measured: {CLIENTS} clients of {SERVICES} services, first sync: {:?}, server {:?} of CPU, {} KiB \
         a client",
        begun.elapsed(),
        after.cpu - before.cpu,
        after.resident_kib.saturating_sub(before.resident_kib) / u64::from(CLIENTS)
    );

    let (told, mut arrivals) = mpsc::channel(usize::from(CLIENTS));
    let mut following = JoinSet::new();
    for client in clients {
        following.spawn(follow(client, told.clone()));
    }
    let before = Usage::of(process);
    let mut took = Vec::new();
    for change in 0..CHANGES {
        let begun = Instant::now();
        register(&mut registry, change, INSTANCES).await;
        let mut last = begun;
        for _ in 0..CLIENTS {
            last = arrivals.recv().await.expect("the clients follow");
        }
        took.push(last - begun);
    }
    let cpu = (Usage::of(process).cpu - before.cpu) / u32::from(CHANGES);
    println!(
        "measured: one endpoint changes, {CLIENTS} clients, to the last: {}; server {cpu:?} of CPU a change",
        Durations::new(took)
    );
}

fn name(service: u16) -> String {
    format!("service-{service}")
}

async fn register(registry: &mut Registry, service: u16, instance: u16) {
    let [high, low] = service.to_be_bytes();
    let address = format!("10.{high}.{low}.{}:80", instance + 1).parse().unwrap();
    registry.register(&name(service), address).await.unwrap();
}

/// Reads until the client has every cluster and its endpoints.
async fn synced(mut client: Client) -> Client {
    let has_all = |held: &Held, kind: &str| {
        held.get(kind).is_some_and(|held| held.len() >= usize::from(SERVICES))
    };
    while !has_all(&client.held, CLUSTER) || !has_all(&client.held, ENDPOINTS) {
        client.next(LATE).await.expect("the server is not silent");
    }
    client
}

/// Tells when each response arrives.
async fn follow(mut client: Client, told: mpsc::Sender<Instant>) {
    while client.next(Duration::from_secs(600)).await.is_some() {
        if told.send(Instant::now()).await.is_err() {
            return;
        }
    }
}
