//! The data service with DISCO: what is ordered is hosted, and losing DISCO costs nothing.

use std::path::Path;

use mesh::MeshId;
use node::{DataError, session::SessionError};
use proto::quorate::v1::{AddressHint, node_report::Report};
use tempfile::tempdir;

use crate::{disco::Disco, server::Server};

#[tokio::test]
async fn a_node_hosts_what_disco_orders_and_reports_it() {
    let directory = tempdir().unwrap();
    let mesh = MeshId::generate();
    let mut disco = Disco::start(&mesh).await;
    let server = Server::join(directory.path(), &[disco.address]).await;
    let hello = disco.hears_hello().await;
    assert_eq!(hello.node_id, server.identity.node_id);
    assert_eq!((hello.mesh_id.as_str(), hello.groups_on_disk.len()), ("", 0));

    server.is_ready().await;
    server.put("key", "value").await;
    let term = disco.hears(leads).await;
    assert!(term > 0);

    let stopping = server.stop();
    let heard = disco.hears(|report| matches!(report, Report::Stopping(_)).then_some(()));
    tokio::join!(stopping, heard);
}

#[tokio::test]
async fn a_node_restarts_and_serves_while_disco_is_gone() {
    let directory = tempdir().unwrap();
    let disco = Disco::start(&MeshId::generate()).await;
    let address = disco.address;
    let server = Server::join(directory.path(), &[address]).await;
    server.is_ready().await;
    server.put("key", "value").await;
    disco.kill().await;
    server.put("later", "value").await;
    server.stop().await;

    let server = Server::join(directory.path(), &[address]).await;
    server.is_ready().await;
    assert_eq!(server.get("key").await.as_deref(), Some("value"));
    assert_eq!(server.get("later").await.as_deref(), Some("value"));
    server.stop().await;
}

/// Starts a server that knows two DISCO servers. Returns it, the DISCO server that it has a session
/// with, and the other one.
async fn joined_one_of_two(directory: &Path, mesh: &MeshId) -> (Server, Disco, Disco) {
    let mut first = Disco::start(mesh).await;
    let mut second = Disco::start(mesh).await;
    let server = Server::join(directory, &[first.address, second.address]).await;
    server.is_ready().await;
    let (with, other) = tokio::select! {
        _ = first.hears_hello() => (first, second),
        _ = second.hears_hello() => (second, first),
    };
    (server, with, other)
}

#[tokio::test]
async fn a_node_that_loses_its_disco_server_goes_to_another() {
    let directory = tempdir().unwrap();
    let mesh = MeshId::generate();
    let (server, lost, mut left) = joined_one_of_two(directory.path(), &mesh).await;
    lost.kill().await;
    let hello = left.hears_hello().await;
    assert_eq!(hello.mesh_id, mesh.to_string());
    assert_eq!(hello.groups_on_disk, [2]);
    server.stop().await;
}

#[tokio::test]
async fn a_node_prefers_a_disco_server_with_a_quorum() {
    let directory = tempdir().unwrap();
    let mesh = MeshId::generate();
    let mut first = Disco::start(&mesh).await;
    let mut second = Disco::start(&mesh).await;
    let server = Server::join(directory.path(), &[first.address, second.address]).await;
    server.is_ready().await;
    let (mut here, mut there) = tokio::select! {
        () = first.hears_status() => (first, second),
        () = second.hears_status() => (second, first),
    };
    // None has a quorum: the node asks again and again, and stays where it is.
    there.set_quorum(false);
    here.set_quorum(false);
    for _ in 0..2 {
        let asks = there.hears(|report| match report {
            Report::Hello(_) => Some(()),
            Report::Status(_) | Report::Stopping(_) => panic!("the node has moved: {report:?}"),
        });
        asks.await;
        here.hears_status().await;
    }
    // One has: the node goes there.
    there.set_quorum(true);
    there.hears_status().await;
    server.put("key", "value").await;
    server.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_after_its_disco_server_tells_another() {
    let directory = tempdir().unwrap();
    let (server, stopping, mut left) =
        joined_one_of_two(directory.path(), &MeshId::generate()).await;
    let heard = left.hears(|report| matches!(report, Report::Stopping(_)).then_some(()));
    stopping.kill().await;
    tokio::join!(server.stop(), heard);
}

#[tokio::test]
async fn a_node_of_another_mesh_is_stopped_with_both_ids() {
    let directory = tempdir().unwrap();
    let ours = MeshId::generate();
    let disco = Disco::start(&ours).await;
    let server = Server::join(directory.path(), &[disco.address]).await;
    server.is_ready().await;
    server.stop().await;

    let theirs = MeshId::generate();
    let foreign = Disco::start(&theirs).await;
    let server = Server::join(directory.path(), &[foreign.address]).await;
    let refused = server.refusal().await;
    assert!(refused.is_refusal());
    let DataError::Session(SessionError::AnotherMesh { ours: here, theirs: there, address }) =
        refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!((here, there, address), (ours, theirs, foreign.address));
}

/// S17: only DISCO may remember the later starts of a node whose disk went back in time.
#[tokio::test]
async fn a_node_of_which_disco_knows_a_later_start_is_stopped() {
    let directory = tempdir().unwrap();
    let disco = Disco::start(&MeshId::generate()).await;
    let server = Server::join(directory.path(), &[disco.address]).await;
    server.is_ready().await;
    let own = server.identity.boot_epoch;
    disco.tell_address(AddressHint {
        node_id: server.identity.node_id,
        boot_epoch: own + 1,
        address: server.mesh_address.to_string(),
        ..AddressHint::default()
    });
    let refused = server.refusal().await;
    assert!(refused.is_refusal() && refused.is_overtaken());
    let DataError::Session(SessionError::RolledBack { ours, seen, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((ours, seen), (own, own + 1));
}

/// D12: an address that was given to another mesh must not end a node whose own mesh is down.
#[tokio::test]
async fn one_seed_of_another_mesh_ends_no_node_while_others_may_be_its_own() {
    let directory = tempdir().unwrap();
    let ours = MeshId::generate();
    let first = Disco::start(&ours).await;
    let own = first.address;
    let server = Server::join(directory.path(), &[own]).await;
    server.is_ready().await;
    server.put("key", "value").await;
    server.stop().await;
    first.kill().await;

    let mut foreign = Disco::start(&MeshId::generate()).await;
    let server = Server::join(directory.path(), &[foreign.address, own]).await;
    for _ in 0..3 {
        foreign.hears_hello().await;
    }
    server.is_ready().await;
    assert_eq!(server.get("key").await.as_deref(), Some("value"));
    let mut returned = Disco::start_at(&ours, own).await;
    returned.hears_status().await;
    server.stop().await;
}

/// The term of a group that a node reports to lead.
fn leads(report: Report) -> Option<u64> {
    match report {
        Report::Status(status) => {
            status.groups.iter().find(|group| group.role == "leader").map(|group| group.term)
        }
        Report::Hello(_) | Report::Stopping(_) => None,
    }
}
