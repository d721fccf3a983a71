//! What registers is routed to, and leaves without a failed request.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use harness::{
    Mesh,
    envoy::{Endpoint, Envoy},
    eventually, http,
    registry::Replica,
    wait::{LATE, SOON, eventually_eq},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Callers at once while a replica drains.
const CALLERS: usize = 4;

#[tokio::test]
async fn instances_come_and_go_in_envoy() {
    let mesh = Mesh::start_with_front(1, 3).await;
    let envoy = mesh.front();
    let disco = mesh.disco_addresses();
    let first = Replica::start(mesh.path(), "orders", &disco);
    let second = Replica::start(mesh.path(), "orders", &disco);
    let third = Replica::start(mesh.path(), "orders", &disco);
    let endpoints = async || envoy.endpoints("orders").await;
    let sorted = |replicas: &[&Replica]| {
        let mut endpoints: Vec<_> = replicas.iter().copied().map(healthy).collect();
        endpoints.sort();
        endpoints
    };
    let all = sorted(&[&first, &second, &third]);
    eventually_eq("all appear in /clusters", SOON, all, endpoints).await;
    let (one, other) = (first.address, second.address);
    let dumped = async || {
        let dump = envoy.config_dump().await;
        [one, other].map(|address| dump.contains(&format!("\"{}\"", address.ip())))
    };
    assert_eq!(dumped().await, [true, true]);

    assert_eq!(first.terminate().await, Some(0));
    let left = sorted(&[&second, &third]);
    eventually_eq("the first vanishes", SOON, left, endpoints).await;
    eventually_eq("also from the dump", SOON, [false, true], dumped).await;

    // One that dies without a word goes when its lease ends; another one is left to serve.
    let left = sorted(&[&third]);
    second.kill();
    eventually_eq("the second vanishes", LATE + Replica::LEASE, left, endpoints).await;
    eventually_eq("also from the dump", SOON, [false, false], dumped).await;
}

#[tokio::test]
async fn the_leader_comes_first_in_its_cluster() {
    let mesh = Mesh::start_with_front(3, 3).await;
    let leader = mesh.data[mesh.data_leader().await].kv();
    let mut everybody = mesh.data.iter().map(|server| healthy_at(server.kv())).collect::<Vec<_>>();
    everybody.sort();
    let all = async || mesh.front().endpoints("kv/default").await;
    eventually_eq("every replica is in the namespace's cluster", SOON, everybody.clone(), all)
        .await;
    for endpoint in &mut everybody {
        endpoint.priority = u64::from(endpoint.address != leader);
    }
    let first = async || mesh.front().endpoints("kv/default/leader").await;
    eventually_eq("the leader comes first", SOON, everybody, first).await;
}

#[tokio::test]
async fn both_variants_of_ads_tell_envoy_the_same() {
    let mesh = Mesh::start_with_front(1, 3).await;
    let replica = Replica::start(mesh.path(), "web", &mesh.disco_addresses());
    let sotw = Envoy::front(mesh.path(), "sotw", "sotw", &mesh.disco_addresses()).await;
    let listed = async || sotw.endpoints("web").await;
    eventually_eq("SotW tells of the service", SOON, vec![healthy(&replica)], listed).await;
    let delta = async || mesh.front().clusters().await;
    eventually_eq("delta tells the same", SOON, sotw.clusters().await, delta).await;
    let answers = async || http::get(sotw.http, "web", "/").await.is_ok_and(|it| it.status == 200);
    eventually("requests are routed", SOON, answers).await;
    assert_eq!(replica.terminate().await, Some(0));
    eventually_eq("the service's last endpoint vanishes", SOON, Vec::new(), listed).await;
}

#[tokio::test]
async fn no_request_fails_while_a_replica_drains() {
    let mesh = Mesh::start_with_front(3, 3).await;
    let disco = mesh.disco_addresses();
    let replicas = [(); 3].map(|()| Replica::start(mesh.path(), "web", &disco));
    let listed = async || mesh.front().endpoints("web").await.len();
    eventually_eq("three replicas are routed to", SOON, 3, listed).await;
    let address = mesh.front().http;
    let answers = async || http::get(address, "web", "/").await.is_ok_and(|it| it.status == 200);
    eventually("the route answers", SOON, answers).await;

    let stop = CancellationToken::new();
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (stop, asked) = (stop.clone(), Arc::clone(&asked));
        callers.spawn(async move {
            let mut answers = Vec::new();
            while !stop.is_cancelled() {
                answers.push(match http::get(address, "web", "/").await {
                    Ok(answer) => (answer.status, answer.body),
                    Err(error) => (0, error.to_string()),
                });
                asked.lock().unwrap().extend(answers.last().cloned());
            }
            answers
        });
    }
    // By the callers, so that the one that leaves is in use when it does.
    let all_asked = async || {
        let asked = asked.lock().unwrap().clone();
        replicas.iter().all(|replica| {
            let name = replica.address.to_string();
            asked.iter().any(|(status, body)| *status == 200 && body.contains(&name))
        })
    };
    eventually("every replica is asked", SOON, all_asked).await;
    let [leaving, _staying, _other] = replicas;
    assert_eq!(leaving.terminate().await, Some(0));
    eventually_eq("two replicas are left", SOON, 2, listed).await;
    let since = Instant::now();
    eventually("requests go on", SOON, async || since.elapsed() > Duration::from_secs(1)).await;
    stop.cancel();
    let answers = callers.join_all().await.concat();
    let failed: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert_eq!(failed, Vec::<&(u16, String)>::new(), "of {} requests", answers.len());
}

fn healthy(replica: &Replica) -> Endpoint {
    healthy_at(replica.address)
}

fn healthy_at(address: SocketAddr) -> Endpoint {
    Endpoint { address, priority: 0, health: "HEALTHY".to_owned() }
}
