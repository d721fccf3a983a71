//! Two servers from copies of one data directory: nothing acknowledged is lost, and both end.

use std::path::Path;

use harness::{Mesh, Server, cli, eventually, kv::Kv, wait::LATE};
use tempfile::TempDir;

use crate::modes::{addresses, all_are_ready, started};

/// The two sides of a cut network, one after the other, without DISCO: each of the other two servers
/// meets another copy first.
#[tokio::test]
async fn a_copy_acknowledges_nothing_that_the_other_side_does_not_have() {
    let directory = TempDir::new().unwrap();
    let mut servers = formed(directory.path(), "data").await;
    for server in &mut servers {
        assert_eq!(server.terminate().await.code(), Some(0), "{}", server.output());
    }
    let mut copy = copied(&servers[1], directory.path(), "data");
    let [first, second, third] = &mut servers[..] else { panic!("there are three servers") };

    // The original and one of the others are a quorum, as ever.
    first.start();
    second.start();
    wrote(first, "original").await;
    assert_eq!(second.terminate().await.code(), Some(0), "{}", second.output());
    assert_eq!(first.terminate().await.code(), Some(0), "{}", first.output());

    // On the other side the third server and the copy would be one, too.
    third.reseed(&[copy.mesh()]);
    copy.reseed(&[third.mesh()]);
    third.start();
    copy.start();
    let waits = async || copy.output().contains("so it may be a copy");
    eventually("the copy says that it waits", LATE, waits).await;
    let refused = Kv::at(third.kv()).put("copy", "1").await;
    assert!(refused.is_err(), "acknowledged by a server and a copy: {refused:?}");
    assert!(!copy.is_ready().await, "it takes no part");

    // The network is whole again.
    first.reseed(&[third.mesh(), copy.mesh()]);
    first.start();
    assert_eq!(copy.ended().await.code(), Some(7), "{}", copy.output());
    let mut kv = Kv::at(third.kv());
    let kept = async || kv.get("original").await.ok().flatten().is_some();
    eventually("what was acknowledged is there", LATE, kept).await;
    refuses_until_reclaimed(&mut copy).await;
}

#[tokio::test]
async fn a_copied_data_server_and_its_original_both_end() {
    ends_both("data").await;
}

#[tokio::test]
async fn a_copied_disco_server_and_its_original_both_end() {
    ends_both("disco").await;
}

/// D1: DISCO counts the start of the original; it is ended all the same, since neither it nor the
/// copy knows which of them is to be kept.
#[tokio::test]
async fn a_copied_data_node_of_disco_and_its_original_both_end() {
    let mut mesh = Mesh::start(3, 3).await;
    all_are_ready(&mesh.data).await;
    wrote(&mesh.data[0], "before").await;
    assert_eq!(mesh.data[1].terminate().await.code(), Some(0), "{}", mesh.data[1].output());
    let copy = copied(&mesh.data[1], mesh.path(), "data");
    let mut copy = copy.seeded("--disco", &mesh.disco_addresses());
    mesh.data[1].start();
    all_are_ready(&mesh.data).await;
    copy.start();
    both_end(&mut copy, &mut mesh.data[1]).await;
    assert!(!copy.output().contains("ready=true"), "the copy served: {}", copy.output());

    for server in mesh.disco.iter().chain([&mesh.data[0], &mesh.data[2]]) {
        eventually("the others serve on", LATE, async || server.is_ready().await).await;
    }
    refuses_until_reclaimed(&mut mesh.data[1]).await;
    mesh.data[1].start();
    all_are_ready(&mesh.data).await;
    for server in &mesh.data {
        let mut kv = Kv::at(server.kv());
        let kept = async || kv.get("before").await.ok().flatten().is_some();
        eventually("what was acknowledged is there", LATE, kept).await;
    }
}

/// Starts a copy of a server beside it; the other two go on.
async fn ends_both(services: &str) {
    let directory = TempDir::new().unwrap();
    let mut servers = formed(directory.path(), services).await;
    assert_eq!(servers[1].terminate().await.code(), Some(0), "{}", servers[1].output());
    let mut copy = copied(&servers[1], directory.path(), services);
    copy.reseed(&addresses(&servers));
    servers[1].start();
    all_are_ready(&servers).await;
    copy.start();
    both_end(&mut copy, &mut servers[1]).await;
    let others = [&servers[0], &servers[2]];
    for server in others {
        eventually("the others serve on", LATE, async || server.is_ready().await).await;
    }
    refuses_until_reclaimed(&mut servers[1]).await;
    servers[1].start();
    all_are_ready(&servers).await;
}

/// Awaits that a copy and its original end, and that neither starts again.
async fn both_end(copy: &mut Server, original: &mut Server) {
    for server in [copy, original] {
        assert_eq!(server.ended().await.code(), Some(7), "{}", server.output());
        assert!(server.output().contains("REFUSED: "), "{}", server.output());
        // As a supervisor would, which must not make them take turns.
        server.start();
        assert_eq!(server.ended().await.code(), Some(7), "{}", server.output());
    }
}

/// Three servers, formed and ready, of one kind.
async fn formed(directory: &Path, services: &str) -> Vec<Server> {
    let servers = started(directory, services);
    harness::mesh::form(&addresses(&servers)).await;
    all_are_ready(&servers).await;
    servers
}

/// A server on a copy of a stopped server's data directory, not started.
fn copied(server: &Server, directory: &Path, services: &str) -> Server {
    let copy = Server::new(directory, &format!("{}-copy", server.name), services);
    let copy = copy.seeded("--peers", &[server.mesh()]);
    let (from, to) = (server.data_dir(), copy.data_dir());
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
    copy
}

async fn wrote(server: &Server, key: &str) {
    let mut kv = Kv::at(server.kv());
    eventually("a write succeeds", LATE, async || kv.put(key, "1").await.is_ok()).await;
}

async fn refuses_until_reclaimed(server: &mut Server) {
    server.start();
    assert_eq!(server.ended().await.code(), Some(7), "{}", server.output());
    let dir = server.data_dir().display().to_string();
    let reclaimed = cli::quorate(&["reclaim", "--data-dir", &dir]).await;
    assert_eq!(reclaimed.code, 0, "{reclaimed:#?}");
}
