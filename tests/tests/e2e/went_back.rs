//! Disks that were restored from a backup (D2, D3), and servers that were wiped and formed anew (D12).
//!
//! What was acknowledged is there afterwards, or a server says that it is not and what to do; nobody
//! serves the past without a word.

use std::net::SocketAddr;

use harness::{
    Mesh, Server, cli, eventually, eventually_some, http,
    kv::{Kv, channel, timed},
    mesh::form,
    registry::Registry,
    wait::{LATE, SOON},
};
use proto::quorate::v1::{HostedGroupsRequest, mesh_client::MeshClient};
use tempfile::TempDir;

use crate::modes::{addresses, all_are_ready, started};

/// The DISCO group, and the group of the namespace `default`.
const DISCO: u32 = 1;
const DEFAULT: u32 = 2;

const KEYS: usize = 50;

#[tokio::test]
async fn two_restored_data_disks_lose_nothing_while_the_third_runs() {
    let mut mesh = Mesh::start(3, 3).await;
    back_up(&mut mesh.data, &[0, 1]).await;
    write_after_the_backup(&mesh).await;
    restore(&mut mesh.data, &[0, 1]);

    for restored in [0, 1] {
        is_refused(&mut mesh.data[restored], "default").await;
    }
    assert!(mesh.data[2].goes_on(), "{}", mesh.data[2].output());
    let is_alone = async || !mesh.data[2].is_ready().await;
    eventually("it has no quorum", LATE, is_alone).await;

    // One of them may vote again: the third has everything, and leads.
    accept_loss(&mut mesh.data[0], "default");
    mesh.data[0].start();
    nothing_is_lost(&mesh.data[2]).await;
    nothing_is_lost(&mesh.data[0]).await;
}

#[tokio::test]
async fn restored_data_disks_serve_the_past_only_if_the_loss_is_accepted() {
    let mut mesh = Mesh::start(3, 3).await;
    back_up(&mut mesh.data, &[0, 1]).await;
    write_after_the_backup(&mesh).await;
    mesh.data[2].kill();
    restore(&mut mesh.data, &[0, 1]);
    for restored in [0, 1] {
        is_refused(&mut mesh.data[restored], "default").await;
        accept_loss(&mut mesh.data[restored], "default");
        mesh.data[restored].start();
    }
    let mut kv = Kv::at(mesh.data[0].kv());
    eventually("the past is served", LATE, async || kv.put("later", "1").await.is_ok()).await;
    assert_eq!(kv.get("before").await.unwrap().unwrap().value, "1");
    assert!(mesh.data[0].output().contains("LOSS ACCEPTED"), "{}", mesh.data[0].output());

    // DISCO has forgotten what was given up, so the word is needed once.
    let forgotten = async || remembered(&mesh.disco_addresses(), DEFAULT).await < KEYS as u64;
    eventually("DISCO follows the accepted leader", LATE, forgotten).await;
    for restored in [0, 1] {
        mesh.data[restored].kill();
        mesh.data[restored].with_flags(&[]);
        mesh.data[restored].start();
    }
    eventually("they serve again", LATE, async || kv.put("more", "1").await.is_ok()).await;

    // The one that has it all keeps it, and says why it does not follow.
    mesh.data[2].start();
    let told = async || reason(&mesh.data[2]).await.contains("does not follow the leader");
    eventually("the third says why it is not ready", LATE, told).await;
    assert!(mesh.data[2].goes_on(), "{}", mesh.data[2].output());
}

#[tokio::test]
async fn all_data_disks_restored_are_refused_by_what_disco_remembers() {
    let mut mesh = Mesh::start(3, 3).await;
    back_up(&mut mesh.data, &[0, 1, 2]).await;
    write_after_the_backup(&mesh).await;
    restore(&mut mesh.data, &[0, 1, 2]);
    for server in &mut mesh.data {
        is_refused(server, "default").await;
    }
}

#[tokio::test]
async fn restored_disks_without_disco_lose_nothing_while_the_third_runs() {
    let directory = TempDir::new().unwrap();
    let mut servers = started(directory.path(), "data");
    form(&addresses(&servers)).await;
    all_are_ready(&servers).await;
    back_up(&mut servers, &[0, 1]).await;
    all_are_ready(&servers).await;
    let mut kv = Kv::at(servers[2].kv());
    for n in 0..KEYS {
        put(&mut kv, &format!("after/{n}")).await;
    }
    restore(&mut servers, &[0, 1]);
    // Whoever led or voted for the third is known by it and refused; the other one votes for it.
    for restored in [0, 1] {
        let settled = async || {
            !servers[restored].goes_on() || Kv::at(servers[restored].kv()).status().await.is_ok()
        };
        eventually("a restored server is refused or takes part", LATE, settled).await;
    }
    for restored in [0, 1] {
        if !servers[restored].goes_on() {
            is_refused(&mut servers[restored], "default").await;
            accept_loss(&mut servers[restored], "default");
            servers[restored].start();
        }
    }
    assert!(servers[2].goes_on(), "{}", servers[2].output());
    let mut kv = Kv::at(servers[2].kv());
    let kept = async || kv.all("after/", false).await.is_ok_and(|kept| kept.len() == KEYS);
    eventually("every acknowledged write is there", LATE, kept).await;
}

/// D3: the leader ended, since openraft takes a follower that lost entries for its own defect.
#[tokio::test]
async fn a_disco_server_whose_disk_went_back_is_refused_and_the_leader_goes_on() {
    let mut mesh = Mesh::start(3, 0).await;
    let leader = mesh.disco_leader().await;
    let restored = (leader + 1) % 3;
    back_up(&mut mesh.disco, &[restored]).await;
    let mut registry = Registry::at(mesh.disco[leader].mesh());
    for n in 0..KEYS {
        register(&mut registry, n).await;
    }
    restore(&mut mesh.disco, &[restored]);
    is_refused(&mut mesh.disco[restored], "disco").await;
    assert!(mesh.disco[leader].goes_on(), "{}", mesh.disco[leader].output());
    register(&mut registry, KEYS).await;
}

#[tokio::test]
async fn two_restored_disco_disks_lose_nothing_while_the_third_runs() {
    let mut mesh = Mesh::start(3, 0).await;
    back_up(&mut mesh.disco, &[0, 1]).await;
    let mut registry = Registry::at(mesh.disco[2].mesh());
    for n in 0..KEYS {
        register(&mut registry, n).await;
    }
    restore(&mut mesh.disco, &[0, 1]);
    for restored in [0, 1] {
        let settled =
            async || !mesh.disco[restored].goes_on() || mesh.disco[restored].is_alive().await;
        eventually("a restored server is refused or takes part", LATE, settled).await;
    }
    let all = async || {
        for restored in [0, 1] {
            if !mesh.disco[restored].goes_on() {
                accept_loss(&mut mesh.disco[restored], "disco");
                mesh.disco[restored].start();
            }
        }
        registry.instances("web").await.is_ok_and(|them| them.len() == KEYS)
            && mesh.disco[2].is_ready().await
    };
    eventually("every registration is there, with a quorum", LATE, all).await;
    assert!(mesh.disco[2].goes_on(), "{}", mesh.disco[2].output());
}

#[tokio::test]
async fn all_disco_disks_restored_do_not_lead_while_data_nodes_know_better() {
    let mut mesh = Mesh::start(3, 1).await;
    back_up(&mut mesh.disco, &[0, 1, 2]).await;
    let mut registry = mesh.registry();
    for n in 0..KEYS {
        register(&mut registry, n).await;
    }
    let known = async || remembered(&[mesh.data[0].mesh()], DISCO).await >= KEYS as u64;
    eventually("the data node is told how far DISCO has come", LATE, known).await;
    for server in &mut mesh.disco {
        server.kill();
    }
    restore(&mut mesh.disco, &[0, 1, 2]);
    for server in &mesh.disco {
        let told = async || reason(server).await.contains("--accept-loss");
        eventually("a restored server says why it does not lead", LATE, told).await;
    }
    for server in &mut mesh.disco {
        let index = accepted_index(&reason(server).await);
        server.kill();
        server.with_flags(&["--accept-loss", &format!("disco@{index}")]);
        server.start();
    }
    let ready = async || mesh.disco[0].is_ready().await;
    eventually("the past is served once the loss is accepted", LATE, ready).await;
}

/// D12: `init` over one wiped server formed a second mesh; Envoys took its empty configuration.
#[tokio::test]
async fn init_over_a_wiped_server_forms_no_second_mesh() {
    let mut mesh = Mesh::start_with_front(3, 3).await;
    mesh.disco[0].kill();
    mesh.disco[0].wipe();
    mesh.disco[0].start();
    let alone = mesh.disco[0].mesh().to_string();
    for flags in [&[][..], &["--subset"]] {
        let tried = async || {
            let init =
                cli::quorate(&[&["init", "--servers", &alone, "--wait", "20s"], flags].concat())
                    .await;
            (init.code != 4).then_some(init)
        };
        let init = eventually_some("init reaches the server", SOON, tried).await;
        assert_eq!(init.code, 7, "{init:#?}");
        assert!(init.stderr.contains("mesh"), "{init:#?}");
    }
    for restarted in [1, 2] {
        mesh.disco[restarted].kill();
        mesh.disco[restarted].start();
    }
    let mut kv = Kv::at(mesh.front().kv);
    eventually("Envoy serves", LATE, async || kv.put("kept", "1").await.is_ok()).await;
    for node in &mut mesh.data {
        assert!(node.goes_on(), "{}", node.output());
    }
}

/// D12: the address of a DISCO server goes to another mesh, as when a fleet is torn down in part.
#[tokio::test]
async fn another_mesh_at_an_address_takes_no_envoy_and_ends_no_node() {
    let mut mesh = Mesh::start_with_front(3, 3).await;
    mesh.disco[0].kill();
    mesh.disco[0].wipe();
    let alone = [mesh.disco[0].mesh()];
    mesh.disco[0].reseed(&alone);
    mesh.disco[0].start();
    form(&alone).await;
    let ready = async || mesh.disco[0].is_ready().await;
    eventually("the other mesh is there", LATE, ready).await;
    for server in mesh.disco[1..].iter_mut().chain(&mut mesh.data) {
        server.kill();
    }
    // For a while the only servers that answer are of the other mesh.
    for node in &mut mesh.data {
        node.start();
    }
    let told = async || mesh.data.iter().all(|node| node.output().contains("refused by one DISCO"));
    eventually("the nodes meet the other mesh", LATE, told).await;
    for server in &mut mesh.disco[1..] {
        server.start();
    }
    let mut kv = Kv::at(mesh.front().kv);
    eventually("Envoy serves its own mesh", LATE, async || kv.put("kept", "1").await.is_ok()).await;
    for node in &mut mesh.data {
        assert!(node.goes_on(), "{}", node.output());
    }
    assert!(!mesh.front().clusters().await.is_empty());
}

/// Backs the disks of some servers up, one after the other, and waits until all are there again.
async fn back_up(servers: &mut [Server], which: &[usize]) {
    for position in which {
        let server = &servers[*position];
        let ready = async || server.is_ready().await;
        eventually("the server is ready before its backup", LATE, ready).await;
    }
    if let Some(first) = servers.iter().find(|server| server.kv_is_served()) {
        let mut kv = Kv::at(first.kv());
        put(&mut kv, "before").await;
    }
    for position in which {
        servers[*position].terminate().await;
        servers[*position].back_up();
        servers[*position].start();
        let server = &servers[*position];
        let ready = async || server.is_ready().await;
        eventually("the server is ready after its backup", LATE, ready).await;
    }
}

/// Kills the servers, puts their disks back and starts them.
fn restore(servers: &mut [Server], which: &[usize]) {
    for position in which {
        if servers[*position].is_running() {
            servers[*position].kill();
        }
    }
    for position in which {
        servers[*position].restore();
        servers[*position].start();
    }
}

/// Writes keys, and waits until DISCO remembers that they are there.
async fn write_after_the_backup(mesh: &Mesh) {
    let mut kv = Kv::at(mesh.data[2].kv());
    for n in 0..KEYS {
        put(&mut kv, &format!("after/{n}")).await;
    }
    let committed = kv.status().await.unwrap().raft_applied_index;
    let known = async || remembered(&mesh.disco_addresses(), DEFAULT).await >= committed;
    eventually("DISCO remembers the writes", LATE, known).await;
    let replicas = async || replicas_remembered(&mesh.disco_addresses(), committed).await == 3;
    eventually("DISCO remembers every replica", LATE, replicas).await;
}

async fn nothing_is_lost(server: &Server) {
    let mut kv = Kv::at(server.kv());
    let kept = async || kv.all("after/", false).await.is_ok_and(|kept| kept.len() == KEYS);
    eventually("every acknowledged write is there", LATE, kept).await;
}

async fn put(kv: &mut Kv, key: &str) {
    eventually("a write is acknowledged", LATE, async || kv.put(key, "1").await.is_ok()).await;
}

async fn register(registry: &mut Registry, n: usize) {
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(10_000 + n).unwrap()));
    let registered = async || registry.register("web", address).await.is_ok();
    eventually("a registration is acknowledged", LATE, registered).await;
}

/// Up to where servers remember a group to be committed.
async fn remembered(servers: &[SocketAddr], group: u32) -> u64 {
    let mut latest = 0;
    for address in servers {
        let mut mesh = MeshClient::new(channel(*address));
        let Ok(reply) = mesh.hosted_groups(timed(HostedGroupsRequest { group })).await else {
            continue;
        };
        let told = reply.into_inner().remembered.map_or(0, |it| it.committed_index);
        latest = latest.max(told);
    }
    latest
}

/// How many replicas of the data group DISCO remembers to have entries up to an index.
async fn replicas_remembered(servers: &[SocketAddr], index: u64) -> usize {
    let mut most = 0;
    for address in servers {
        let mut mesh = MeshClient::new(channel(*address));
        let request = timed(HostedGroupsRequest { group: DEFAULT });
        let Ok(reply) = mesh.hosted_groups(request).await else { continue };
        let replicas = reply.into_inner().remembered.unwrap_or_default().replicas;
        most = most.max(replicas.iter().filter(|it| it.index >= index).count());
    }
    most
}

/// Awaits the end of a server whose disk went back, by name and with what to do.
async fn is_refused(server: &mut Server, namespace: &str) {
    let ended = server.ends().await;
    let output = server.output();
    assert_eq!(ended.code(), Some(7), "{output}");
    assert!(output.contains("REFUSED"), "{output}");
    assert!(output.contains(namespace) && output.contains("--accept-loss"), "{output}");
}

/// Starts a refused server with the flag that its refusal names, the next time.
fn accept_loss(server: &mut Server, namespace: &str) {
    let index = accepted_index(&server.output());
    if server.is_running() {
        server.kill();
    }
    server.with_flags(&["--accept-loss", &format!("{namespace}@{index}")]);
}

/// The index in the last advice to accept a loss.
fn accepted_index(text: &str) -> u64 {
    let (_, advice) = text.rsplit_once("--accept-loss NAMESPACE@").expect("there is such advice");
    let digits: String = advice.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// What a server that is not ready says.
async fn reason(server: &Server) -> String {
    let answer = http::get(server.admin(), "admin", "/ready").await;
    answer.map_or_else(|_| String::new(), |answer| answer.body)
}
