//! Single mode: one server, all services, no configuration.

use std::time::Duration;

use harness::{
    Server, cli, eventually,
    kv::{Kv, Writers},
    wait::SOON,
};
use tempfile::TempDir;
use tokio::time::Instant;

/// Kills in a row, each under writes.
const ROUNDS: usize = 5;

#[tokio::test]
async fn what_was_acknowledged_survives_kills() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "single", "all");
    server.start();
    let mut kv = Kv::at(server.kv());
    eventually("a write succeeds", SOON, async || kv.put("first", "1").await.is_ok()).await;
    let mut writers = Writers::start(server.kv(), "key/", 8);
    for _ in 0..ROUNDS {
        let now = Instant::now();
        writers.first_after(now + Duration::from_millis(200), SOON).await;
        server.kill();
        server.start();
        writers.first_after(Instant::now(), SOON).await;
    }
    server.kill();
    let written = writers.stop().await;
    server.start();
    eventually("the server is ready", SOON, async || server.is_ready().await).await;
    let kept = kv.all("key/", false).await.unwrap();
    let lost: Vec<_> = written.iter().filter(|(key, it)| kept.get(*key) != Some(it)).collect();
    assert_eq!(lost, [], "of {} acknowledged writes", written.len());
    let loud = server.output().lines().filter(|line| line.starts_with("NEW mesh ")).count();
    assert_eq!(loud, 1, "only the first start makes a mesh");
}

#[tokio::test]
async fn etcdctl_works_as_against_etcd() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "single", "all");
    server.start();
    let endpoint = server.kv();
    let mut kv = Kv::at(endpoint);
    eventually("a write succeeds", SOON, async || kv.put("0", "0").await.is_ok()).await;
    let etcdctl = async |args: &[&str]| cli::etcdctl(endpoint, args).await.ok();
    assert_eq!(etcdctl(&["put", "a", "1"]).await, "OK\n");
    assert_eq!(etcdctl(&["put", "b", "2"]).await, "OK\n");
    assert_eq!(etcdctl(&["get", "a"]).await, "a\n1\n");
    assert_eq!(etcdctl(&["get", "", "--prefix", "--keys-only"]).await, "0\n\na\n\nb\n\n");
    let txn = "value(\"a\") = \"1\"\n\nput a 3\nget b\n\nput a 4\n\n";
    let done = cli::etcdctl_input(endpoint, &["txn"], txn).await.ok();
    assert_eq!(done, "SUCCESS\n\nOK\n\nb\n2\n");
    assert_eq!(etcdctl(&["get", "a", "--print-value-only"]).await, "3\n");
    assert_eq!(etcdctl(&["del", "a", "c"]).await, "2\n");
    assert_eq!(etcdctl(&["get", "a"]).await, "");
    let members = etcdctl(&["member", "list"]).await;
    assert_eq!(members.lines().count(), 1, "{members}");
    assert!(members.contains(&endpoint.to_string()), "{members}");
    let status = etcdctl(&["endpoint", "status"]).await;
    assert!(status.contains("true"), "the only member leads: {status}");
}

#[tokio::test]
async fn a_clean_stop_takes_less_than_ten_seconds() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "single", "all");
    server.start();
    eventually("the server is ready", SOON, async || server.is_ready().await).await;
    let asked = Instant::now();
    assert_eq!(server.terminate().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
