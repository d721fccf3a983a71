//! The data service without DISCO: formed once, then on its own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use harness::disk;
use node::{
    DataError,
    namespaces::{DEFAULT_GROUP, DEFAULT_NAMESPACE},
};
use raft::{
    Role,
    start::{LostProgress, StartRefusal},
};
use tempfile::{TempDir, tempdir};

use crate::server::{Ports, Server, form, open_host, until};

const SERVERS: usize = 3;

#[tokio::test]
async fn a_server_that_is_not_formed_says_what_it_waits_for() {
    let directory = tempdir().unwrap();
    let server = Server::start(directory.path(), Ports::bind(), &[]).await;
    server.waits("quorate init").await;
    server.stop().await;
}

#[tokio::test]
async fn what_is_written_through_any_server_is_read_through_any_other() {
    let (_directories, servers) = formed().await;
    for (index, server) in servers.iter().enumerate() {
        server.put(&format!("key{index}"), "value").await;
    }
    for server in &servers {
        for index in 0..SERVERS {
            assert_eq!(server.get(&format!("key{index}")).await.as_deref(), Some("value"));
        }
    }
    stop(servers).await;
}

#[tokio::test]
async fn a_leader_that_stops_and_returns_elsewhere_has_missed_nothing() {
    let (_directories, mut servers) = formed().await;
    servers[0].put("before", "1").await;
    let leader = servers.iter().position(Server::leads).unwrap();
    let directory = servers.remove(leader).stop().await;
    servers[0].put("during", "2").await;

    let ports = Ports::bind();
    let returned = Server::start(&directory, ports, &addresses(&servers)).await;
    returned.is_ready().await;
    assert_eq!(returned.get("before").await.as_deref(), Some("1"));
    assert_eq!(returned.get("during").await.as_deref(), Some("2"));
    returned.put("after", "3").await;
    assert_eq!(servers[0].get("after").await.as_deref(), Some("3"));
    servers.push(returned);
    stop(servers).await;
}

#[tokio::test]
async fn a_leader_that_is_killed_takes_nothing_acknowledged_with_it() {
    let (_directories, mut servers) = formed().await;
    servers[0].put("before", "1").await;
    let leader = servers.iter().position(Server::leads).unwrap();
    let directory = servers.remove(leader).kill().await;
    assert_eq!(servers[0].get("before").await.as_deref(), Some("1"));
    servers[1].put("during", "2").await;

    let returned = Server::start(&directory, Ports::bind(), &addresses(&servers)).await;
    assert_eq!(returned.get("during").await.as_deref(), Some("2"));
    servers.push(returned);
    stop(servers).await;
}

#[tokio::test]
async fn all_servers_return_with_other_addresses() {
    let (_directories, servers) = formed().await;
    servers[0].put("key", "value").await;
    let ids: Vec<u64> = servers.iter().map(|server| server.identity.node_id).collect();
    let mut homes = Vec::new();
    for server in servers {
        homes.push(server.stop().await);
    }

    let servers = start(homes).await;
    let returned: Vec<u64> = servers.iter().map(|server| server.identity.node_id).collect();
    assert_eq!(returned, ids);
    for server in &servers {
        server.is_ready().await;
        assert_eq!(server.get("key").await.as_deref(), Some("value"));
    }
    servers[2].put("key", "other").await;
    assert_eq!(servers[0].get("key").await.as_deref(), Some("other"));
    stop(servers).await;
}

#[tokio::test]
async fn a_server_whose_store_lost_the_group_refuses_to_vote() {
    let directory = tempdir().unwrap();
    let mesh_id = formed_alone(&directory).await;
    note_held(&directory, &mesh_id);
    let server = Server::start(directory.path(), Ports::bind(), &[]).await;
    let refused = server.refusal().await;
    assert!(refused.is_refusal());
    let DataError::Refused { group: DEFAULT_GROUP, refusal, .. } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refusal, StartRefusal::StoreLost);
}

#[tokio::test]
async fn a_copy_of_a_disk_is_refused_once_more_was_acknowledged() {
    let (_directories, mut servers) = formed().await;
    servers[0].put("before", "1").await;
    let (copy, home) = copied_follower(&mut servers).await;
    restore(&copy, &home);

    let server = Server::start(&home, Ports::bind(), &addresses(&servers)).await;
    let refused = server.refusal().await;
    assert!(refused.is_refusal());
    let DataError::Refused { refusal: StartRefusal::Reverted(later), .. } = refused else {
        panic!("{refused:?}");
    };
    let LostProgress::Entries { acknowledged, last_index } = later else { panic!("{later:?}") };
    assert!(acknowledged > last_index, "{later:?}");
    servers[0].put("after", "3").await;
    stop(servers).await;
}

#[tokio::test]
async fn a_server_that_reaches_nobody_starts_from_its_disk() {
    let (_directories, mut servers) = formed().await;
    servers[0].put("before", "1").await;
    let (copy, home) = copied_follower(&mut servers).await;
    let others = addresses(&servers);
    stop(servers).await;
    restore(&copy, &home);

    let server = Server::start(&home, Ports::bind(), &others).await;
    until("the replica to run", || server.status().is_some_and(|it| it.members.len() == SERVERS))
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_replica_is_noted_before_it_can_vote() {
    let directories = [tempdir().unwrap(), tempdir().unwrap(), tempdir().unwrap()];
    let servers = start(directories.iter().map(|it| it.path().to_owned()).collect()).await;
    form(&servers.iter().collect::<Vec<_>>()).await;
    for server in &servers {
        until("the replica to run", || server.status().is_some()).await;
        let notes = fs::read_to_string(server.directory().join("groups.json")).unwrap();
        assert!(notes.contains(r#""placed": true"#), "{notes}");
    }
    stop(servers).await;
}

#[tokio::test]
async fn a_process_that_ended_before_its_replica_voted_comes_back() {
    let directory = tempdir().unwrap();
    let address = Ports::bind().mesh_address();
    let host = open_host(directory.path(), address, Vec::new()).await;
    let mesh_id = host.mesh().form_alone().unwrap().mesh_id;
    host.make_room(DEFAULT_GROUP, DEFAULT_NAMESPACE).await.unwrap();
    drop(host);
    note(&directory, &mesh_id, r#""placed": true, "held": false"#);
    let server = Server::start(directory.path(), Ports::bind(), &[]).await;
    server.is_ready().await;
    server.put("key", "value").await;
    server.stop().await;
}

#[tokio::test]
async fn a_store_that_lost_the_room_of_a_group_refuses_to_vote() {
    let directory = tempdir().unwrap();
    let mesh_id = formed_alone(&directory).await;
    note(&directory, &mesh_id, r#""placed": true, "held": false"#);
    let server = Server::start(directory.path(), Ports::bind(), &[]).await;
    let DataError::Refused { refusal, .. } = server.refusal().await else {
        panic!("not refused");
    };
    assert_eq!(refusal, StartRefusal::StoreLost);
}

#[tokio::test]
async fn of_four_servers_three_vote_and_all_take_any_call() {
    let (_directories, servers) = formed_of(4).await;
    let mut ids: Vec<u64> = servers.iter().map(|server| server.identity.node_id).collect();
    ids.sort_unstable();
    let learner = servers.iter().find(|server| server.identity.node_id == ids[3]).unwrap();
    learner.put("key", "value").await;
    assert_eq!(learner.get("key").await.as_deref(), Some("value"));
    let status = learner.status().unwrap();
    let voters: Vec<u64> =
        status.members.iter().filter(|it| it.voter).map(|it| it.node_id).collect();
    assert_eq!((status.role, voters.as_slice()), (Role::Learner, &ids[..3]));
    stop(servers).await;
}

#[tokio::test]
async fn notes_from_another_mesh_are_refused() {
    let directory = tempdir().unwrap();
    formed_alone(&directory).await;
    note_held(&directory, "8b0a4b5a-6d6a-4b3c-9a55-0d6f0e6a7c11");
    let server = Server::start(directory.path(), Ports::bind(), &[]).await;
    let refused = server.refusal().await;
    let DataError::Refused { refusal, .. } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refusal, StartRefusal::AnotherMesh);
}

async fn formed() -> (Vec<TempDir>, Vec<Server>) {
    formed_of(SERVERS).await
}

async fn formed_of(count: usize) -> (Vec<TempDir>, Vec<Server>) {
    let directories: Vec<TempDir> = (0..count).map(|_| tempdir().unwrap()).collect();
    let homes = directories.iter().map(|it| it.path().to_owned()).collect();
    let servers = start(homes).await;
    form(&servers.iter().collect::<Vec<_>>()).await;
    for server in &servers {
        server.is_ready().await;
    }
    (directories, servers)
}

/// Starts servers that know each other's addresses.
async fn start(homes: Vec<PathBuf>) -> Vec<Server> {
    let ports: Vec<Ports> = homes.iter().map(|_| Ports::bind()).collect();
    let peers: Vec<SocketAddr> = ports.iter().map(Ports::mesh_address).collect();
    let mut servers = Vec::new();
    for (home, ports) in homes.iter().zip(ports) {
        servers.push(Server::start(home, ports, &peers).await);
    }
    servers
}

async fn stop(servers: Vec<Server>) {
    for server in servers {
        server.stop().await;
    }
}

fn addresses(servers: &[Server]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.mesh_address).collect()
}

/// Forms a mesh in a directory that has hosted no group yet. Returns the mesh id.
async fn formed_alone(directory: &TempDir) -> String {
    let address = Ports::bind().mesh_address();
    let host = open_host(directory.path(), address, Vec::new()).await;
    host.mesh().form_alone().unwrap().mesh_id
}

/// Copies the directory of a follower while it runs, has it acknowledge more, and stops it.
async fn copied_follower(servers: &mut Vec<Server>) -> (TempDir, PathBuf) {
    let follower = servers.iter().position(|server| !server.leads()).unwrap();
    let follower = servers.remove(follower);
    let leader = servers.iter().find(|server| server.leads()).unwrap();
    follower.caught_up_with(leader).await;
    let copy = tempdir().unwrap();
    disk::copy(follower.directory(), copy.path());
    leader.put("since", "2").await;
    follower.caught_up_with(leader).await;
    (copy, follower.stop().await)
}

fn restore(copy: &TempDir, home: &Path) {
    fs::remove_dir_all(home).unwrap();
    disk::copy(copy.path(), home);
}

/// Notes in a directory that it has held the group of the namespace `default`.
fn note_held(directory: &TempDir, mesh_id: &str) {
    note(directory, mesh_id, r#""placed": true, "held": true"#);
}

fn note(directory: &TempDir, mesh_id: &str, what: &str) {
    let notes = format!(
        r#"{{
            "format": 1,
            "mesh": "{mesh_id}",
            "groups": {{
                "2": {{
                    "namespace": "default",
                    "first_voters": [],
                    "replicas": [],
                    "voters_wanted": 1,
                    "formed": true,
                    {what}
                }}
            }},
            "nodes": []
        }}"#
    );
    fs::write(directory.path().join("groups.json"), notes).unwrap();
}
