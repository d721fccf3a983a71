//! DISCO fails in part and in whole: traffic and data go on, and its return disturbs nobody.

use std::time::Duration;

use harness::{
    Mesh, Server, ads, eventually, http,
    kv::Kv,
    registry::{Registry, Replica},
    wait::{LATE, SOON, eventually_eq},
};
use tokio::time::Instant;

/// How long everything must go on without any DISCO server: longer than every lease.
const WITHOUT_DISCO: Duration = Duration::from_secs(25);

#[tokio::test]
async fn traffic_and_data_go_on_without_disco() {
    let mut mesh = Mesh::start_with_front(3, 3).await;
    let front = mesh.front();
    let (http, kv) = (front.http, front.kv);
    let replica = Replica::start(mesh.path(), "web", &mesh.disco_addresses());
    let answers = async || http::get(http, "web", "/").await.is_ok_and(|it| it.status == 200);
    eventually("the application answers through Envoy", SOON, answers).await;

    // One is lost, the one that leads: another takes over, and the registry takes writes.
    let leader = mesh.disco_leader().await;
    mesh.disco[leader].kill();
    let successor = mesh.disco_leader().await;
    assert_ne!(successor, leader);
    let second = Replica::start(mesh.path(), "web", &mesh.disco_addresses());
    let both = async || mesh.front().endpoints("web").await.len();
    eventually_eq("Envoy learns of the second replica", LATE, 2, both).await;

    // All are lost: what was there goes on.
    for server in &mut mesh.disco {
        if server.is_running() {
            server.kill();
        }
    }
    let dark = Instant::now();
    let mut requests = 0;
    while dark.elapsed() < WITHOUT_DISCO {
        let answer = http::get(http, "web", "/").await.expect("Envoy keeps its configuration");
        assert_eq!(answer.status, 200, "{answer:?}");
        let value = format!("{requests}");
        Kv::at(kv).put("dark", &value).await.expect("the data group needs no DISCO");
        assert_eq!(Kv::at(kv).get("dark").await.unwrap().unwrap().value, value);
        requests += 1;
    }
    assert_eq!(mesh.front().endpoints("web").await.len(), 2);

    // A leader dies meanwhile, and comes back by its own disk and what it knew of addresses.
    let leader = mesh.data_leader().await;
    mesh.data[leader].kill();
    let writes = async || Kv::at(kv).put("dark", "elected").await.is_ok();
    eventually("the data group elects without DISCO", LATE, writes).await;
    mesh.data[leader].start();
    mesh.caught_up().await;

    // All are back: the same mesh, and nothing was lost meanwhile.
    for server in &mut mesh.disco {
        server.start();
    }
    mesh.disco_leader().await;
    let third = Replica::start(mesh.path(), "web", &mesh.disco_addresses());
    let all = async || mesh.front().endpoints("web").await.len();
    eventually_eq("Envoy learns of the third replica", LATE, 3, all).await;
    assert_eq!(third.terminate().await, Some(0));
    eventually_eq("Envoy forgets the third replica", LATE, 2, all).await;
    for replica in [replica, second] {
        assert_eq!(replica.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn a_client_that_reconnects_is_sent_nothing_that_it_has() {
    let mut mesh = Mesh::start(3, 3).await;
    let mut registry = mesh.registry();
    for service in ["one", "two"] {
        registry.register(service, "127.0.0.1:9".parse().unwrap()).await.unwrap();
    }
    let names = ["kv/default/leader", "one", "three", "two"];
    let mut client = ads::Client::open(mesh.disco[0].mesh(), &names, ads::Held::new()).await;
    // The data group tells DISCO of its leader and of each replica that serves; after that, a
    // second of silence means that there is nothing more to say.
    for server in &mesh.data {
        eventually("a data node is ready", SOON, async || server.is_ready().await).await;
    }
    mesh.caught_up().await;
    let complete = async || {
        if client.next(Duration::from_secs(1)).await.is_some() {
            return false;
        }
        let endpoints = client.held.get(ads::ENDPOINTS).map_or(0, |held| held.len());
        let clusters = client.held.get(ads::CLUSTER).map_or(0, |held| held.len());
        endpoints == 3 && clusters == 4
    };
    eventually("the client holds all there is", SOON, complete).await;
    let metrics = http::get(mesh.disco[0].admin(), "admin", "/metrics").await.unwrap().body;
    let counts = metrics.lines().any(|line| line == "quorate_disco_services 2");
    assert!(counts, "{metrics}");
    let held = client.held.clone();
    drop(client);

    // To another server, which has been restarted meanwhile.
    mesh.disco[1].kill();
    mesh.disco[1].start();
    let held = nothing_is_resent(&mesh, &names, held, "three").await;

    // After all of DISCO was gone.
    mesh.disco.iter_mut().for_each(Server::kill);
    mesh.disco.iter_mut().for_each(Server::start);
    nothing_is_resent(&mesh, &names, held, "two").await;
}

/// A client that holds what there is subscribes at a DISCO server, and is sent nothing before what
/// a registration of `service` then changes. Returns what it holds in the end.
async fn nothing_is_resent(
    mesh: &Mesh,
    names: &[&str],
    held: ads::Held,
    service: &str,
) -> ads::Held {
    let server = &mesh.disco[1];
    eventually("the server is ready", LATE, async || server.is_ready().await).await;
    let mut client = ads::Client::open(server.mesh(), names, held.clone()).await;
    // What comes next is new. It comes after all that the server had to say before.
    let before = held.get(ads::ENDPOINTS).and_then(|held| held.get(service)).cloned();
    let mut registry = Registry::at(server.mesh());
    registry.register(service, "127.0.0.1:10".parse().unwrap()).await.unwrap();
    let mut sent = Vec::new();
    let current = |client: &ads::Client| {
        client.held.get(ads::ENDPOINTS).and_then(|held| held.get(service)).cloned()
    };
    while current(&client) == before {
        let update = client.next(SOON).await;
        sent.extend(update.unwrap_or_else(|| panic!("{service} does not come")).put);
    }
    let resent: Vec<_> = sent.iter().filter(|name| *name != service).collect();
    assert_eq!(resent, Vec::<&String>::new(), "was held: {held:#?}");
    client.held
}
