//! Two servers that were started from copies of one data directory: only one of the starts counts.

use std::{collections::BTreeSet, fs, path::Path};

use harness::disk;
use mesh::{DataDir, DataDirError, Overtaken};
use raft::Timing;

use crate::fleet::{Fleet, Server, Setup, put, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_started_beside_the_original_ends_both_for_good() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let id = fleet.follower().await.id();
    let path = fleet.stop(id).await;
    let copied = fleet.dir.path().join("copied");
    disk::copy(&path, &copied);
    fleet.start(&path).await;
    let original = fleet.servers.pop().unwrap();
    let start = original.host.identity().start();
    until("the others to count the original", || {
        fleet.servers.iter().all(|it| it.host.mesh().book().counts(id, start)).then_some(())
    })
    .await;
    let copy = Server::start(&copied, fleet.setup.clone()).await;
    let ended = Overtaken::Copy { epoch: start.epoch };
    assert_eq!(copy.overtaken().await, ended);
    assert_eq!(original.overtaken().await, ended);
    for path in [&path, &copied] {
        until("the directory to be closed and refused", || match open(path) {
            Err(DataDirError::Overtaken(_)) => Some(()),
            Err(DataDirError::Locked(_)) => None,
            other => panic!("{other:?}"),
        })
        .await;
    }
    // The other servers continue, and the copy that an operator reclaims comes back.
    put(&fleet.leader().await.group(), "put b 2").await;
    fs::remove_dir_all(&copied).unwrap();
    DataDir::reclaim(&path).unwrap();
    assert_eq!(fleet.start(&path).await.id(), id);
    let applied = put(&fleet.leader().await.group(), "put c 3").await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "b=2", "c=3"]);
}

/// The two sides of a network partition, one after the other: each of the other servers meets a
/// different copy first.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_counted_by_every_other_voter_before_it_takes_part() {
    let mut fleet = Fleet::form(3).await;
    let applied = put(&fleet.leader().await.group(), "put a 1").await;
    fleet.converged(applied.index).await;
    let mut paths = Vec::new();
    while let Some(server) = fleet.servers.pop() {
        paths.push(server.stop().await);
    }
    let (a, b, c) = (&paths[0], &paths[1], &paths[2]);
    let copied = fleet.dir.path().join("copied");
    disk::copy(b, &copied);

    // The original and one of the others are a quorum.
    fleet.setup.seeds = Vec::new();
    fleet.start(a).await;
    fleet.setup.seeds = vec![fleet.servers[0].address];
    fleet.start(b).await;
    put(&fleet.leader().await.group(), "put b 2").await;
    let (b_server, a_server) = (fleet.servers.pop().unwrap(), fleet.servers.pop().unwrap());
    let counted = b_server.host.identity().start();
    let (b_id, a_id) = (b_server.id(), a_server.id());
    b_server.stop().await;
    a_server.stop().await;

    // The copy and the third server: the third counts the copy, but one voter is not enough.
    let setup = Setup { timing: Timing::quick(), ..Setup::default() };
    let third = Server::start(c, setup.clone()).await;
    let setup = Setup { seeds: vec![third.address], ..setup };
    let copy = Server::start(&copied, setup).await;
    assert!(copy.host.identity().moved);
    let start = copy.host.identity().start();
    assert_eq!(start.epoch, counted.epoch, "nothing but the number tells them apart");
    until("the third to count the copy", || {
        third.host.mesh().book().counts(b_id, start).then_some(())
    })
    .await;
    let voters = copy.host.other_voters().await.unwrap();
    assert_eq!(voters, BTreeSet::from([a_id, third.id()]));
    let mesh = copy.host.mesh().clone();
    let mut gate = Box::pin(async move { mesh.await_counted(&voters).await });
    let only_third = BTreeSet::from([third.id()]);
    within(copy.host.mesh().await_counted_by(&only_third)).await;
    assert!(futures::poll!(&mut gate).is_pending(), "one of the other voters did not meet it");

    // The server that counted the original comes back. The copy learns of the original and ends.
    let setup = Setup { seeds: vec![third.address, copy.address], ..Setup::default() };
    let _first = Server::start(a, setup).await;
    assert_eq!(copy.overtaken().await, Overtaken::Copy { epoch: start.epoch });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_directory_takes_part_once_the_others_have_met_it() {
    let mut fleet = Fleet::form(3).await;
    let id = fleet.follower().await.id();
    let path = fleet.stop(id).await;
    let moved = fleet.dir.path().join("moved");
    disk::copy(&path, &moved);
    fs::remove_dir_all(&path).unwrap();
    let server = Server::start(&moved, fleet.setup.clone()).await;
    assert!(server.host.identity().moved);
    let voters = server.host.other_voters().await.unwrap();
    within(server.host.mesh().await_counted(&voters)).await.unwrap();
    let moved = server.stop().await;
    let server = fleet.start(&moved).await;
    assert!(!server.host.identity().moved, "it belongs there now");
    let applied = put(&fleet.leader().await.group(), "put a 1").await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1"]);
}

fn open(path: &Path) -> Result<DataDir, DataDirError> {
    DataDir::open(path, &BTreeSet::from(["data".to_owned()]), None)
}
