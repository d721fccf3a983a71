//! DISCO fails in part and in whole: traffic and data go on, and its return disturbs nobody.

use std::time::Duration;

use harness::{
    Mesh, ads, eventually, http,
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
    let held = client.held.clone();
    drop(client);

    // To another server, which has been restarted meanwhile.
    mesh.disco[1].kill();
    mesh.disco[1].start();
    eventually("the server is ready", LATE, async || mesh.disco[1].is_ready().await).await;
    let mut client = ads::Client::open(mesh.disco[1].mesh(), &names, held.clone()).await;

    // What comes next is new. It comes after all that the server had to say before.
    let mut registry = Registry::at(mesh.disco[1].mesh());
    registry.register("three", "127.0.0.1:9".parse().unwrap()).await.unwrap();
    let mut sent = client.until(ads::CLUSTER, "three", SOON).await;
    if !client.held.get(ads::ENDPOINTS).is_some_and(|held| held.contains_key("three")) {
        sent.extend(client.until(ads::ENDPOINTS, "three", SOON).await);
    }
    let resent: Vec<_> = sent.iter().filter(|name| *name != "three").collect();
    assert_eq!(resent, Vec::<&String>::new(), "was held: {held:#?}");
}
