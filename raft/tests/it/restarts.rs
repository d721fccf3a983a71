//! Coming back: other addresses, a long absence, a wiped disk.

use std::fs;

use harness::disk;
use mesh::Overtaken;
use proto::quorate::v1::{self as pb, raft_client::RaftClient};
use raft::Timing;
use tonic::Code;

use crate::fleet::{DEADLINE, Fleet, Server, Setup, put, rows, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_returns_under_another_address() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let (id, old) = {
        let follower = fleet.follower().await;
        (follower.id(), follower.address)
    };
    let path = fleet.stop(id).await;
    let applied = put(&fleet.leader().await.group(), "put b 2").await;
    let returned = fleet.start(&path).await;
    assert_eq!(returned.id(), id);
    assert_ne!(returned.address, old);
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "b=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_return_under_other_addresses() {
    let mut fleet = Fleet::form(3).await;
    let before = put(&fleet.leader().await.group(), "put a 1").await;
    fleet.converged(before.index).await;
    let mut paths = Vec::new();
    while let Some(server) = fleet.servers.pop() {
        paths.push(server.stop().await);
    }
    for path in &paths {
        // All servers know one seed, as they know the DISCO servers.
        fleet.setup.seeds = fleet.servers.first().map(|first| first.address).into_iter().collect();
        fleet.start(path).await;
    }
    let applied = put(&fleet.servers[2].group(), "put b 2").await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "b=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_catches_up_from_the_log() {
    let mut fleet = Fleet::form(3).await;
    let id = fleet.follower().await.id();
    let path = fleet.stop(id).await;
    let leader = fleet.leader().await.group();
    let mut last = 0;
    for number in 0..300 {
        last = put(&leader, &format!("put key{number:03} {number}")).await.index;
    }
    fleet.start(&path).await;
    assert_eq!(fleet.converged(last).await.len(), 300);
    assert_eq!(leader.status().purged, 0, "the log sufficed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_catches_up_from_a_snapshot_without_stale_rows() {
    let timing = Timing { snapshot_entries: 50, log_kept: 10, ..Timing::quick() };
    let mut fleet = Fleet::form_with(3, timing).await;
    let applied = put(&fleet.leader().await.group(), "put stale row").await;
    fleet.converged(applied.index).await;
    let id = fleet.follower().await.id();
    let path = fleet.stop(id).await;
    let leader = fleet.leader().await.group();
    put(&leader, "delete stale").await;
    let mut last = 0;
    for number in 0..200 {
        last = put(&leader, &format!("put key{number:03} {number}")).await.index;
    }
    let mut written = 200;
    // The log is purged only some time after something was applied.
    while leader.status().purged <= applied.index + 1 {
        last = put(&leader, &format!("put key{written:03} {written}")).await.index;
        written += 1;
    }
    let returned = fleet.start(&path).await;
    let group = returned.group();
    until("a snapshot", || (group.status().purged > applied.index).then_some(())).await;
    // A handle to the group keeps its data directory open.
    drop(group);
    let rows = fleet.converged(last).await;
    assert_eq!(rows.len(), written);
    assert!(!rows.iter().any(|row| row.starts_with("stale")));

    // The installed state is there after another start, too.
    let path = fleet.stop(id).await;
    let returned = fleet.start(&path).await;
    assert_eq!(returned.rows(), rows);
    let applied = put(&fleet.leader().await.group(), "put z 1").await;
    assert_eq!(fleet.converged(applied.index).await.len(), written + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_server_is_a_new_one_and_never_stands_in_for_the_old() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let (id, address, member) = {
        let follower = fleet.follower().await;
        (follower.id(), follower.address, follower.member())
    };
    let mesh = fleet.servers[0].host.identity().mesh_id.unwrap();
    let path = fleet.stop(id).await;
    // The stores close a little after the server has stopped.
    until("the directory to be removed", || fs::remove_dir_all(&path).ok()).await;
    // Same address, same configuration, empty disk.
    let wiped = Server::start_on(&path, Setup::default(), address).await;
    assert_ne!(wiped.id(), id);
    wiped.host.mesh().adopt_mesh(&mesh).unwrap();
    let group = wiped.start_group().await;

    let vote = pb::VoteRequest {
        envelope: Some(pb::Envelope {
            mesh_id: mesh.to_string(),
            group: 2,
            source_id: fleet.servers[0].id(),
            target_id: id,
            target_store_id: member.store_id,
            ..pb::Envelope::default()
        }),
        vote: Some(pb::Vote { term: 99, node_id: fleet.servers[0].id(), committed: false }),
        ..pb::VoteRequest::default()
    };
    let mut client = RaftClient::connect(format!("http://{address}")).await.unwrap();
    let refused = client.vote(vote).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("the address is another server's"), "{refused}");

    let leader = fleet.leader().await.group();
    for number in 0..20 {
        put(&leader, &format!("put key{number} 1")).await;
    }
    assert!(group.is_blank(), "nothing reached the new server");
    assert_eq!(rows(&leader).len(), 21);
    assert!(leader.read_barrier(DEADLINE).await.is_ok());
    wiped.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_was_restored_ends_itself() {
    let mut fleet = Fleet::form(3).await;
    let id = fleet.follower().await.id();
    let path = fleet.stop(id).await;
    let backup = fleet.dir.path().join("backup");
    disk::copy(&path, &backup);
    for _ in 0..2 {
        let epoch = fleet.start(&path).await.host.identity().boot_epoch;
        until("the others to learn of the start", || {
            let others = fleet.servers.iter().filter(|it| it.id() != id);
            let mut hints = others.map(|it| it.host.mesh().book().hint(id));
            hints.all(|it| it.is_some_and(|it| it.boot_epoch == epoch)).then_some(())
        })
        .await;
        fleet.stop(id).await;
    }
    let restored = Server::start(&backup, fleet.setup.clone()).await;
    let ours = restored.host.identity().boot_epoch;
    let error = restored.overtaken().await;
    assert_eq!(error, Overtaken::Later { ours, seen: ours + 1 });
}
