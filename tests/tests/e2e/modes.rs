//! HA mode and the mode without DISCO: servers that are told of each other by `--peers`.

use std::{net::SocketAddr, path::Path};

use harness::{
    Server, cli, eventually, eventually_some,
    kv::{Kv, Writers},
    mesh::form,
    registry::Registry,
    wait::{LATE, SOON},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::Instant;

#[tokio::test]
async fn three_servers_with_all_services_survive_the_loss_of_any() {
    let directory = TempDir::new().unwrap();
    let mut servers = started(directory.path(), "all");
    assert!(!servers[0].is_ready().await, "nothing is formed before init");
    form(&addresses(&servers)).await;
    all_are_ready(&servers).await;
    let mut written = Vec::new();
    for lost in 0..servers.len() {
        servers[lost].kill();
        let left = (lost + 1) % servers.len();
        let service = format!("service-{lost}");
        let mut registry = Registry::at(servers[left].mesh());
        let address = "127.0.0.1:9".parse().unwrap();
        let registered = async || registry.register(&service, address).await.is_ok();
        eventually("the registry takes a registration", LATE, registered).await;
        let mut kv = Kv::at(servers[left].kv());
        let wrote = async || kv.put(&service, "1").await.is_ok();
        eventually("a write succeeds without one server", LATE, wrote).await;
        written.push(service);
        servers[lost].start();
        all_are_ready(&servers).await;
    }
    for server in &servers {
        let kept = Kv::at(server.kv()).all("service-", false).await.unwrap();
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), written, "{}", server.name);
        let endpoint = server.mesh().to_string();
        for service in &written {
            let listed = cli::quorate(&["endpoints", service, "--disco", &endpoint]).await;
            assert!(listed.ok().contains("127.0.0.1:9"), "{}", server.name);
        }
    }
}

#[tokio::test]
async fn three_data_servers_need_no_disco() {
    let directory = TempDir::new().unwrap();
    let mut servers = started(directory.path(), "data");
    let refused = Kv::at(servers[0].kv()).put("too", "early").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
    form(&addresses(&servers)).await;
    all_are_ready(&servers).await;
    let members = cli::etcdctl(servers[1].kv(), &["member", "list"]).await.ok();
    assert_eq!(members.lines().count(), 3, "{members}");

    // Any replica takes any call; the one that is asked here stays up.
    let mut writers = Writers::start(servers[0].kv(), "key/", 2);
    writers.first_after(Instant::now(), LATE).await;
    let leader = leader(&servers[1..]).await.map_or(1, |position| position + 1);
    servers[leader].kill();
    writers.first_after(Instant::now(), LATE).await;
    servers[leader].start();
    all_are_ready(&servers).await;
    for server in &mut servers {
        assert_eq!(server.terminate().await.code(), Some(0), "{}", server.output());
    }
    let written = writers.stop().await;

    for server in servers.iter_mut().rev() {
        server.start();
    }
    all_are_ready(&servers).await;
    let kept = Kv::at(servers[2].kv()).all("key/", false).await.unwrap();
    let lost: Vec<_> = written.iter().filter(|(key, it)| kept.get(*key) != Some(it)).collect();
    assert_eq!(lost, [], "of {} acknowledged writes", written.len());
}

#[tokio::test]
async fn a_second_signal_ends_a_server_at_once() {
    let directory = TempDir::new().unwrap();
    let mut servers = started(directory.path(), "data");
    form(&addresses(&servers)).await;
    all_are_ready(&servers).await;
    let found = async || leader(&servers).await;
    let leader = eventually_some("one of them leads", LATE, found).await;
    // With nobody to hand its leadership to, the leader takes its time to stop.
    for server in servers.iter().filter(|server| server.name != servers[leader].name) {
        server.signal(Signal::SIGSTOP);
    }
    servers[leader].signal(Signal::SIGTERM);
    let stopping = async || servers[leader].output().contains("stopping");
    eventually("the leader begins to stop", SOON, stopping).await;
    let ended = servers[leader].terminate().await;
    assert_eq!(ended.code(), None, "it ends by the signal, not by itself: {ended}");
    assert!(!servers[leader].output().contains("stopped"), "{}", servers[leader].output());
}

/// Three servers that are told of each other, started and not formed.
pub(crate) fn started(directory: &Path, services: &str) -> Vec<Server> {
    let servers: Vec<Server> =
        (1..=3).map(|n| Server::new(directory, &format!("server-{n}"), services)).collect();
    let peers = addresses(&servers);
    let mut servers: Vec<Server> =
        servers.into_iter().map(|server| server.seeded("--peers", &peers)).collect();
    servers.iter_mut().for_each(Server::start);
    servers
}

pub(crate) fn addresses(servers: &[Server]) -> Vec<SocketAddr> {
    servers.iter().map(Server::mesh).collect()
}

pub(crate) async fn all_are_ready(servers: &[Server]) {
    for server in servers {
        eventually(&format!("{} is ready", server.name), LATE, async || server.is_ready().await)
            .await;
    }
}

/// The position of the server that leads the namespace `default`, by its own word.
pub(crate) async fn leader(servers: impl IntoIterator<Item = &Server>) -> Option<usize> {
    for (position, server) in servers.into_iter().enumerate() {
        let Ok(status) = Kv::at(server.kv()).status().await else { continue };
        if status.header.is_some_and(|it| it.member_id == status.leader) {
            return Some(position);
        }
    }
    None
}
