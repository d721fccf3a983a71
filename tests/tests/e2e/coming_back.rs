//! Identity lives in the data directory, addresses do not.

use std::collections::BTreeMap;

use harness::{
    Mesh,
    address::list,
    cli, eventually, eventually_some, http,
    kv::{Kv, Writers},
    registry::Registry,
    wait::{LATE, SOON},
};
use tokio::time::Instant;

#[tokio::test]
async fn every_server_comes_back_with_another_address() {
    let mut mesh = Mesh::start_with_front(3, 3).await;
    let mut writers = Writers::start(mesh.front().kv, "key/", 2);
    writers.first_after(Instant::now(), SOON).await;
    let written = writers.stop().await;
    let before = nodes(&mesh).await;

    restart_elsewhere(&mut mesh, 0);
    let stopped = Instant::now();
    mesh.add_front().await;
    let mut kv = Kv::at(mesh.front().kv);
    eventually("writes go through Envoy", LATE, async || kv.put("back", "1").await.is_ok()).await;
    eprintln!("measured: all servers with other addresses, writable after {:?}", stopped.elapsed());

    let kept = kv.all("key/", false).await.unwrap();
    let lost: Vec<_> = written.iter().filter(|(key, it)| kept.get(*key) != Some(it)).collect();
    assert_eq!(lost, [], "of {} acknowledged writes", written.len());
    // Until its lease is renewed from there, a node is listed where it was.
    let moved = async || {
        let after = nodes(&mesh).await;
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        after.iter().all(|(node, address)| before[node] != *address)
    };
    eventually("every server is listed at its other address", LATE, moved).await;
}

#[tokio::test]
async fn the_mesh_comes_back_without_one_server_of_each_kind() {
    let mut mesh = Mesh::start(3, 3).await;
    let mut kv = Kv::at(mesh.data[1].kv());
    eventually("a write succeeds", LATE, async || kv.put("kept", "1").await.is_ok()).await;
    mesh.caught_up().await;
    restart_elsewhere(&mut mesh, 1);
    let mut kv = Kv::at(mesh.data[1].kv());
    eventually("a write succeeds", LATE, async || kv.put("more", "2").await.is_ok()).await;
    assert_eq!(kv.get("kept").await.unwrap().unwrap().value, "1");
    let mut registry = Registry::at(mesh.disco[1].mesh());
    let registered = async || registry.register("web", mesh.data[1].kv()).await.is_ok();
    eventually("the registry takes a registration", LATE, registered).await;
}

#[tokio::test]
async fn a_disco_server_with_a_wiped_disk_forms_nothing() {
    let mut mesh = Mesh::start(3, 0).await;
    let before = nodes(&mesh).await;
    mesh.disco[0].kill();
    mesh.disco[0].wipe();
    mesh.disco[0].start();
    let told = async || {
        let answer = http::get(mesh.disco[0].admin(), "admin", "/ready").await.ok()?;
        answer.body.contains("not among the DISCO servers").then_some(answer.status)
    };
    let status = eventually_some("it says why it is not ready", LATE, told).await;
    assert_eq!(status, 503);
    let init = cli::quorate(&["init", "--servers", &list(&mesh.disco_addresses())]).await;
    assert_eq!(init.code, 7, "{init:#?}");
    let mut registry = Registry::at(mesh.disco[1].mesh());
    // It may have been the leader that lost its disk.
    let registered = async || registry.register("web", mesh.disco[1].mesh()).await.is_ok();
    eventually("two of three are a quorum", LATE, registered).await;
    let members = registry.members().await.unwrap();
    assert!(members.iter().all(|it| before.contains_key(&it.node_id)), "{members:#?}");
}

#[tokio::test]
async fn a_node_with_a_wiped_disk_is_another_node() {
    let mut mesh = Mesh::start(3, 3).await;
    let mut kv = Kv::at(mesh.data[0].kv());
    eventually("a write succeeds", LATE, async || kv.put("kept", "1").await.is_ok()).await;
    mesh.caught_up().await;
    let before = nodes(&mesh).await;
    let lost = Kv::at(mesh.data[2].kv()).status().await.unwrap().header.unwrap().member_id;

    mesh.data[2].kill();
    mesh.data[2].wipe();
    mesh.data[2].start();
    let mut kv = Kv::at(mesh.data[2].kv());
    let status = eventually_some("the wiped node serves", LATE, async || kv.status().await.ok());
    let found = status.await.header.unwrap().member_id;
    assert!(!before.contains_key(&found), "{found:016x} was there before");
    assert_ne!(found, lost);
    let group = mesh.registry().groups().await.unwrap().remove(0);
    let replica = group.replicas.iter().find(|replica| replica.node_id == found).unwrap();
    assert_ne!(replica.role, "follower", "it has not earned a vote: {group:#?}");
    let value = eventually_some("the wiped node has the data", LATE, async || {
        kv.get("kept").await.ok().flatten()
    });
    assert_eq!(value.await.value, "1");
}

/// Kills every server and starts them with other addresses in another order, but for the first
/// `missing` of each kind.
fn restart_elsewhere(mesh: &mut Mesh, missing: usize) {
    for server in mesh.disco.iter_mut().chain(&mut mesh.data) {
        server.kill();
        server.relocate();
    }
    let seeds = mesh.disco_addresses();
    for server in
        mesh.data.iter_mut().skip(missing).rev().chain(mesh.disco.iter_mut().skip(missing))
    {
        server.reseed(&seeds);
        server.start();
    }
}

/// The servers of the mesh and where each is reached, once all are up.
async fn nodes(mesh: &Mesh) -> BTreeMap<u64, String> {
    let expected = mesh.disco.len() + mesh.data.len();
    let listed = async || {
        let members = mesh.registry().members().await.ok()?;
        let up = members.into_iter().filter(|member| member.state == "up");
        let addresses: BTreeMap<_, _> = up.map(|it| (it.node_id, it.mesh_address)).collect();
        (addresses.len() == expected).then_some(addresses)
    };
    eventually_some("every server is listed as up", LATE, listed).await
}
