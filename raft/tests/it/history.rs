//! Disks that were restored to an earlier state: acknowledged writes are not lost as long as one
//! disk has them, and a healthy server never ends because another one forgot entries.

use std::{fs, net::SocketAddr, path::Path};

use harness::disk;
use mesh::{DataDir, NodeId};
use proto::quorate::v1::GroupProgress;
use raft::Applied;

use crate::fleet::{Fleet, Server, put, rows, until};

/// D2: two of three disks are restored while the third server runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_forgot_does_not_lead_a_member_that_remembers() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let third = fleet.follower().await.id();
    let (homes, _) = write_after_a_backup(&mut fleet, third).await;
    restore(&mut fleet, &homes).await;

    let applied = put(&server(&fleet, third).group(), "put c 3").await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "b=2", "c=3"]);
}

/// D2: the third server is down, and only others remember what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_that_forgot_does_not_lead_against_what_is_remembered() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let third = fleet.follower().await.id();
    let (homes, lost) = write_after_a_backup(&mut fleet, third).await;
    let address = server(&fleet, third).address;
    let home = fleet.stop(third).await;
    // It does not run the group and reports what it remembers, as DISCO does.
    let memory = Server::start_on(&home, fleet.setup.clone(), address).await;
    let progress = GroupProgress { committed_index: lost.index, ..GroupProgress::default() };
    memory.host.add_progress_source(move |_| Some(progress.clone()));
    restore(&mut fleet, &homes).await;

    for server in &fleet.servers {
        let doubt = until("a doubt", || server.group().status().doubt).await.to_string();
        assert!(doubt.contains("--accept-loss"), "{doubt}");
        assert!(doubt.contains(&format!("up to {}", lost.index)), "{doubt}");
        assert_ne!(server.group().status().role, raft::Role::Leader);
    }

    // An operator accepts the loss on one of the two.
    let (accepting, address) = (fleet.servers[0].id(), fleet.servers[0].address);
    let last_index = fleet.servers[0].group().status().last_index;
    let home = fleet.stop(accepting).await;
    let server = Server::start_on(&home, fleet.setup.clone(), address).await;
    server.host.accept_losses([("words".to_owned(), last_index)].into());
    server.start_group().await;
    fleet.servers.push(server);
    let applied = put(&fleet.servers[0].group(), "put c 3").await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "c=3"]);
    memory.stop().await;
}

/// D2: the restored disks served writes while the server that has every write was away. Before
/// restored disks raised their terms, an entry of each side had the same term and index, and the
/// sides differed for good without an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_keeps_its_committed_entries_from_a_leader_that_forgot_them() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let third = fleet.follower().await.id();
    let (homes, _) = write_after_a_backup(&mut fleet, third).await;
    let address = server(&fleet, third).address;
    let home = fleet.stop(third).await;
    restore(&mut fleet, &homes).await;
    put(&fleet.servers[0].group(), "put c 3").await;

    let returned = Server::start_on(&home, fleet.setup.clone(), address).await;
    let group = returned.start_group().await;
    let doubt = until("a doubt", || group.status().doubt).await.to_string();
    assert!(doubt.contains("does not follow the leader"), "{doubt}");
    put(&fleet.servers[0].group(), "put d 4").await;
    assert_eq!(rows(&group), ["a=1", "b=2"], "nothing of it is taken back");
    returned.stop().await;
}

/// D3: openraft by default treats a follower that lost entries as a bug and panics.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_outlives_a_follower_whose_disk_went_back() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let (leader, follower) = (fleet.leader().await.id(), fleet.follower().await.id());
    let copy = fleet.dir.path().join("copy");
    let address = server(&fleet, follower).address;
    let home = fleet.stop(follower).await;
    disk::copy(&home, &copy);
    start_at(&mut fleet, &home, address).await;
    let lost = put(&server(&fleet, leader).group(), "put b 2").await;
    fleet.converged(lost.index).await;

    fleet.stop(follower).await;
    replace(&home, &copy);
    start_at(&mut fleet, &home, address).await;
    let applied = put(&server(&fleet, leader).group(), "put c 3").await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "b=2", "c=3"]);
}

/// Has a command acknowledged that is missing in the backups of all disks but one. Returns the
/// servers that have such a backup, and the command.
async fn write_after_a_backup(fleet: &mut Fleet, third: NodeId) -> (Vec<NodeId>, Applied) {
    let homes = back_up_others(fleet, third).await;
    let lost = put(&server(fleet, third).group(), "put b 2").await;
    fleet.converged(lost.index).await;
    (homes, lost)
}

/// Backs up the other disks, each while its server is stopped.
async fn back_up_others(fleet: &mut Fleet, third: NodeId) -> Vec<NodeId> {
    let others: Vec<NodeId> =
        fleet.servers.iter().map(Server::id).filter(|id| *id != third).collect();
    for id in &others {
        let address = server(fleet, *id).address;
        let home = fleet.stop(*id).await;
        disk::copy(&home, &home.with_extension("backup"));
        start_at(fleet, &home, address).await;
    }
    others
}

/// Stops the servers and starts them on their backups.
async fn restore(fleet: &mut Fleet, ids: &[NodeId]) {
    let mut homes = Vec::new();
    for id in ids {
        let address = server(fleet, *id).address;
        homes.push((fleet.stop(*id).await, address));
    }
    for (home, address) in homes {
        replace(&home, &home.with_extension("backup"));
        start_at(fleet, &home, address).await;
    }
}

/// Starts a server at its old address, since the backups know no later one.
async fn start_at(fleet: &mut Fleet, home: &Path, address: SocketAddr) {
    let server = Server::start_on(home, fleet.setup.clone(), address).await;
    server.start_group().await;
    fleet.servers.push(server);
}

fn server(fleet: &Fleet, id: NodeId) -> &Server {
    fleet.servers.iter().find(|server| server.id() == id).unwrap()
}

/// Restores a backup. It is a copy, so it must be reclaimed before it can start.
fn replace(home: &Path, copy: &Path) {
    fs::remove_dir_all(home).unwrap();
    disk::copy(copy, home);
    DataDir::reclaim(home).unwrap();
}
