//! Three servers.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use proto::quorate::v1::{
    GroupMember, Health, HostedGroup, ListGroupsRequest, ListInstancesRequest, ListMembersRequest,
    ListServicesRequest, NodeHello,
};
use tokio::time::Instant;
use tonic::Code;

use crate::harness::{
    CLUSTER, Delta, Disk, ENDPOINTS, NodeClient, Server, Sotw, eventually, form, hello, instance,
    register, renew, versions,
};

/// Longer than the lease of a node.
const BEYOND_A_LEASE: Duration = Duration::from_secs(12);

struct Mesh {
    disks: Vec<Disk>,
    servers: Vec<Option<Server>>,
}

impl Mesh {
    async fn start() -> Self {
        let disks: Vec<Disk> = (0..3).map(|_| Disk::new()).collect();
        let mut servers = Vec::new();
        for disk in &disks {
            servers.push(Some(Server::member(disk, Vec::new()).await));
        }
        let mesh = Self { disks, servers };
        form(&mesh.up().collect::<Vec<_>>()).await;
        for server in mesh.up() {
            server.ready().await;
        }
        mesh
    }

    fn up(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().flatten()
    }

    fn at(&self, index: usize) -> &Server {
        self.servers[index].as_ref().unwrap()
    }

    async fn leader(&self) -> usize {
        eventually("somebody leads", || async {
            (0..3).find(|at| self.servers[*at].as_ref().is_some_and(Server::is_leader))
        })
        .await
    }

    /// Stops every server.
    async fn stop(&mut self) {
        for server in &mut self.servers {
            if let Some(server) = server.take() {
                server.stop().await;
            }
        }
    }

    async fn kill(&mut self, index: usize) {
        self.servers[index].take().unwrap().kill().await;
    }

    async fn restart(&mut self, index: usize) {
        let seeds: Vec<SocketAddr> = self.up().map(|it| it.address).collect();
        self.servers[index] = Some(Server::member(&self.disks[index], seeds).await);
    }
}

/// The state of a data node, as a server lists it.
async fn state_of(server: &Server, node_id: u64) -> String {
    let mut registry = server.registry();
    let reply = registry.list_members(ListMembersRequest {}).await.unwrap().into_inner();
    reply.members.into_iter().find(|it| it.node_id == node_id).unwrap().state
}

async fn instances(server: &Server) -> Vec<(String, Health)> {
    let request = ListInstancesRequest { service: "orders".to_owned() };
    let reply = server.registry().list_instances(request).await.unwrap().into_inner();
    reply.instances.iter().map(|it| (it.id.clone(), it.health())).collect()
}

#[tokio::test]
async fn any_server_takes_writes_and_serves_them_to_its_clients() {
    let mesh = Mesh::start().await;
    let leader = mesh.leader().await;
    let (here, there) = (mesh.at((leader + 1) % 3), mesh.at((leader + 2) % 3));
    let mut stream = Delta::open(there).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    stream.receive().await;

    let reply = here.registry().register(register(instance("orders", "o1", "10.0.0.1:80"))).await;
    let lease_id = reply.unwrap().into_inner().lease_id;
    assert_eq!(instances(here).await, [("o1".to_owned(), Health::Healthy)]);
    assert_eq!(stream.receive().await.resources[0].name, "orders");

    let request = renew(&[lease_id, 7]);
    let renewed = there.registry().renew(request).await.unwrap().into_inner();
    assert_eq!(renewed.unknown, [7], "the leader was asked");
    eventually("all servers are listed", || async {
        let mut registry = there.registry();
        let reply = registry.list_members(ListMembersRequest {}).await.unwrap().into_inner();
        let up = reply.members.iter().filter(|it| it.state == "up").count();
        let leaders = reply.members.iter().filter(|it| it.role == "leader").count();
        (up == 3 && leaders == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_a_quorum_streams_go_on_and_nothing_ends() {
    let mut mesh = Mesh::start().await;
    let leader = mesh.leader().await;
    let survivor = (leader + 1) % 3;
    let mut request = register(instance("orders", "o1", "10.0.0.1:80"));
    request.ttl_ms = 1;
    let reply = mesh.at(survivor).registry().register(request).await.unwrap().into_inner();
    let mut stream = Delta::open(mesh.at(survivor)).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    assert_eq!(stream.receive().await.resources[0].name, "orders");

    mesh.kill(leader).await;
    mesh.kill((leader + 2) % 3).await;
    let server = mesh.at(survivor);
    eventually("the lease's time has passed without a quorum", || async {
        let mut registry = server.registry();
        let reply = registry.list_services(ListServicesRequest {}).await.unwrap().into_inner();
        (reply.meta.unwrap().stale_for_ms > 2 * 3_000).then_some(())
    })
    .await;
    assert_eq!(instances(server).await, [("o1".to_owned(), Health::Healthy)]);
    let renewed = server.registry().renew(renew(&[reply.lease_id])).await;
    assert!(renewed.unwrap().into_inner().unknown.is_empty());
    let refused = register(instance("orders", "o2", "10.0.0.2:80"));
    let refused = server.registry().register(refused).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let standing = register(instance("orders", "o1", "10.0.0.1:80"));
    let refused = server.registry().register(standing).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "nobody has renewed it: {refused}");
    stream.subscribe(ENDPOINTS, &["orders"], BTreeMap::new()).await;
    stream.receive_endpoints("orders", &["10.0.0.1:80"]).await;
    clients_that_hold_something_are_sent_elsewhere(server).await;
    let mut new = Delta::open(server).await.unwrap();
    new.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    assert_eq!(new.receive().await.resources[0].name, "orders", "old is better than nothing");
    let mut new = Sotw::open(server).await.unwrap();
    new.subscribe(CLUSTER, &[]).await;
    assert_eq!(new.receive(&[]).await.resources.len(), 1);

    mesh.restart(leader).await;
    eventually("a quorum writes again", || async {
        let request = register(instance("orders", "o2", "10.0.0.2:80"));
        mesh.at(survivor).registry().register(request).await.ok()
    })
    .await;
    stream.receive_endpoints("orders", &["10.0.0.1:80", "10.0.0.2:80"]).await;
}

/// Such clients may have seen a later state at another server.
async fn clients_that_hold_something_are_sent_elsewhere(server: &Server) {
    let mut delta = Delta::open(server).await.unwrap();
    let has = BTreeMap::from([("payments".to_owned(), "1".to_owned())]);
    delta.subscribe(CLUSTER, &["*"], has).await;
    let mut sotw = Sotw::open(server).await.unwrap();
    sotw.subscribe_holding(CLUSTER, &[], "1").await;
    let refusals = [delta.receive_raw().await.err(), sotw.receive_raw().await.err()];
    for refused in refusals {
        let refused = refused.unwrap();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains("no quorum"), "{refused}");
    }
}

/// U2: all servers answer a question alike, at whichever server a node has its session.
#[tokio::test]
async fn every_server_knows_what_a_node_reported_to_any() {
    let mesh = Mesh::start().await;
    let leader = mesh.leader().await;
    let mut nodes = Vec::new();
    for node_id in 1..=3 {
        let at = mesh.at((leader + usize::try_from(node_id).unwrap()) % 3);
        let mut node = NodeClient::open(at, hello(node_id)).await.unwrap();
        node.try_directive().await.unwrap();
        nodes.push(node);
    }
    let group = nodes[0].directive("the group is decided", |it| !it.groups.is_empty()).await;
    let group = group.groups[0].group;
    let hosted = |role: &str, lag| {
        let members = (1..=3)
            .map(|node_id| GroupMember { node_id, voter: true, lag, silent: false })
            .collect();
        let role = role.to_owned();
        HostedGroup { group, role, term: 2, members, ..HostedGroup::default() }
    };
    eventually("all servers tell roles and lag alike", || async {
        for (at, node) in nodes.iter().enumerate() {
            let role = if at == 0 { "leader" } else { "follower" };
            node.report(vec![hosted(role, Some(5))]).await;
        }
        for server in mesh.up() {
            let mut registry = server.registry();
            let reply = registry.list_groups(ListGroupsRequest {}).await.unwrap().into_inner();
            let replicas = reply.groups.into_iter().next()?.replicas;
            let told: Vec<_> =
                replicas.iter().map(|it| (it.node_id, it.role.as_str(), it.lag)).collect();
            let expected =
                [(1, "leader", Some(5)), (2, "follower", Some(5)), (3, "follower", Some(5))];
            if told != expected {
                return None;
            }
            let reply = registry.list_members(ListMembersRequest {}).await.unwrap().into_inner();
            let (data, disco): (Vec<_>, Vec<_>) =
                reply.members.iter().partition(|it| it.services == ["data"]);
            let is_whole = data.iter().all(|it| it.version == "node-version")
                && disco.iter().all(|it| it.state == "up" && !it.role.is_empty());
            if !is_whole {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn streams_leave_a_server_that_is_cut_off_from_the_majority() {
    let mesh = Mesh::start().await;
    let leader = mesh.leader().await;
    let (cut, other) = (mesh.at((leader + 1) % 3), mesh.at((leader + 2) % 3));
    cut.registry().register(register(instance("orders", "o1", "10.0.0.1:80"))).await.unwrap();
    let mut delta = Delta::open(cut).await.unwrap();
    delta.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    let clusters = delta.receive().await;
    let has = versions(&clusters);
    let mut sotw = Sotw::open(cut).await.unwrap();
    sotw.subscribe(CLUSTER, &[]).await;
    sotw.receive(&[]).await;
    cut.cut_off();

    assert!(delta.receive_raw().await.expect("it ends in order").is_none());
    assert!(sotw.receive_raw().await.expect("it ends in order").is_none());
    let mut away = Delta::open(cut).await.unwrap();
    away.subscribe(CLUSTER, &["*"], has.clone()).await;
    let refused = away.receive_raw().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "it has not looked elsewhere: {refused}");
    let mut elsewhere = Delta::open(other).await.unwrap();
    elsewhere.subscribe(CLUSTER, &["*"], has.clone()).await;
    assert_eq!(elsewhere.receive().await.resources, [], "it has everything");

    // Once it has had the time to try others, it is served here, since it would lose nothing.
    eventually("it is served what is there", || async {
        let mut back = Delta::open(cut).await.unwrap();
        back.subscribe(CLUSTER, &["*"], has.clone()).await;
        back.subscribe(ENDPOINTS, &["orders"], BTreeMap::new()).await;
        back.receive_raw().await.ok()
    })
    .await;
    let mut seen_more = has;
    seen_more.insert("payments".to_owned(), "0123456789abcdef".to_owned());
    let mut ahead = Delta::open(cut).await.unwrap();
    ahead.subscribe(CLUSTER, &["*"], seen_more).await;
    let refused = ahead.receive_raw().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "it would lose payments: {refused}");
}

#[tokio::test]
async fn streams_stay_where_no_other_server_has_a_quorum() {
    let mut mesh = Mesh::start().await;
    let leader = mesh.leader().await;
    let survivor = (leader + 1) % 3;
    let request = register(instance("orders", "o1", "10.0.0.1:80"));
    mesh.at(survivor).registry().register(request).await.unwrap();
    let mut stream = Delta::open(mesh.at(survivor)).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    let clusters = stream.receive().await;
    let has = versions(&clusters);
    mesh.kill(leader).await;
    mesh.kill((leader + 2) % 3).await;
    let server = mesh.at(survivor);
    eventually("streams would have been ended by now", || async {
        let reply = server.registry().list_services(ListServicesRequest {}).await.unwrap();
        (reply.into_inner().meta.unwrap().stale_for_ms > 2 * 5_000).then_some(())
    })
    .await;
    stream.subscribe(ENDPOINTS, &["orders"], BTreeMap::new()).await;
    stream.receive_endpoints("orders", &["10.0.0.1:80"]).await;
    let mut back = Delta::open(server).await.unwrap();
    back.subscribe(CLUSTER, &["*"], has).await;
    assert_eq!(back.receive().await.resources, [], "it is served at once");
}

#[tokio::test]
async fn a_client_that_comes_back_is_not_taken_back() {
    let mesh = Mesh::start().await;
    let leader = mesh.leader().await;
    let (behind, other) = (mesh.at((leader + 1) % 3), mesh.at((leader + 2) % 3));
    other.registry().register(register(instance("orders", "o1", "10.0.0.1:80"))).await.unwrap();
    let mut stream = Delta::open(behind).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    stream.receive().await;
    behind.cut_off();
    other.registry().register(register(instance("payments", "p1", "10.0.0.2:80"))).await.unwrap();
    let mut stream = Delta::open(other).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    let clusters = stream.receive().await;
    let has = versions(&clusters);
    assert!(has.contains_key("payments"));

    // The server's quorum was confirmed a moment ago, yet it lacks a cluster that the client has.
    let mut back = Delta::open(behind).await.unwrap();
    back.subscribe(CLUSTER, &["*"], has).await;
    let refused = back.receive_raw().await.expect_err("payments is taken away");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

#[tokio::test]
async fn a_node_keeps_its_session_and_its_lease_through_a_change_of_leader() {
    let mut mesh = Mesh::start().await;
    let leader = mesh.leader().await;
    let follower = (leader + 1) % 3;
    let mut node = NodeClient::open(mesh.at(follower), hello(1)).await.unwrap();
    node.try_directive().await.unwrap();
    mesh.servers[leader].take().unwrap().stop().await;
    // Two more nodes make the three that the first group waits for.
    let _second = NodeClient::open(mesh.at(follower), hello(2)).await.unwrap();
    let _third = NodeClient::open(mesh.at((leader + 2) % 3), hello(3)).await.unwrap();
    let directive = node.directive("the group is decided", |it| !it.groups.is_empty()).await;
    assert_eq!(directive.groups[0].first_voters.len(), 3);
    assert_eq!(directive.members.len(), 3);

    let deadline = Instant::now() + BEYOND_A_LEASE;
    eventually("the lease has been kept beyond its time", || async {
        node.report(Vec::new()).await;
        (Instant::now() > deadline).then_some(())
    })
    .await;
    let mut registry = mesh.at(follower).registry();
    let reply = registry.list_members(ListMembersRequest {}).await.unwrap().into_inner();
    assert_eq!(reply.members.iter().find(|it| it.node_id == 1).unwrap().state, "up");
}

#[tokio::test]
async fn all_servers_return_with_other_addresses() {
    let mut mesh = Mesh::start().await;
    let request = register(instance("orders", "o1", "10.0.0.1:80"));
    mesh.at(0).registry().register(request).await.unwrap();
    for index in 0..3 {
        mesh.servers[index].take().unwrap().stop().await;
    }
    for index in [2, 0, 1] {
        mesh.restart(index).await;
    }
    for server in mesh.up() {
        server.ready().await;
        assert_eq!(instances(server).await, [("o1".to_owned(), Health::Healthy)]);
    }
}

#[tokio::test]
async fn a_server_that_was_away_serves_no_discovery_before_it_has_caught_up() {
    let mut mesh = Mesh::start().await;
    let away = (mesh.leader().await + 1) % 3;
    let others = [(away + 1) % 3, (away + 2) % 3];
    let mut node = NodeClient::open(mesh.at(away), hello(1)).await.unwrap();
    node.try_directive().await.unwrap();
    mesh.kill(away).await;
    let request = register(instance("orders", "o1", "10.0.0.1:80"));
    mesh.at(others[0]).registry().register(request).await.unwrap();
    let mut stream = Delta::open(mesh.at(others[0])).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], BTreeMap::new()).await;
    let clusters = stream.receive().await;
    let has = versions(&clusters);
    assert!(has.contains_key("orders"));
    mesh.stop().await;

    mesh.restart(away).await;
    let server = mesh.at(away);
    server.answers().await;
    let refused = Delta::open(server).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable, "it would take orders away: {refused}");
    let mut registry = server.registry();
    let reply = registry.list_services(ListServicesRequest {}).await.unwrap().into_inner();
    assert!(reply.services.is_empty() && reply.meta.unwrap().stale_for_ms > 0);
    // Data nodes still find each other, even one that was started again.
    let restarted = NodeHello { boot_epoch: 2, ..hello(1) };
    let mut node = NodeClient::open(server, restarted).await.unwrap();
    let directive = node.try_directive().await.unwrap();
    assert!(directive.meta.unwrap().stale_for_ms > 0);
    assert!(!directive.addresses.is_empty());

    for index in others {
        mesh.restart(index).await;
    }
    mesh.at(away).ready().await;
    node.directive("it is told anew", |it| it.meta.as_ref().unwrap().stale_for_ms == 0).await;
    let mut stream = Delta::open(mesh.at(away)).await.unwrap();
    stream.subscribe(CLUSTER, &["*"], has).await;
    stream.subscribe(ENDPOINTS, &["orders"], BTreeMap::new()).await;
    loop {
        let response = stream.receive().await;
        assert!(response.removed_resources.is_empty(), "{response:?}");
        if response.type_url == ENDPOINTS {
            break;
        }
    }
}

#[tokio::test]
async fn a_node_whose_server_is_cut_off_stays_up_at_the_others() {
    let mesh = Mesh::start().await;
    let leader = mesh.leader().await;
    let (cut, other) = (mesh.at((leader + 1) % 3), mesh.at((leader + 2) % 3));
    let request = register(instance("orders", "o1", "10.0.0.1:80"));
    let lease_id = cut.registry().register(request.clone()).await.unwrap().into_inner().lease_id;
    let mut node = NodeClient::open(cut, hello(1)).await.unwrap();
    let fresh = node.directive("it is recorded", |it| it.ttl_ms > 0).await;
    assert_eq!(fresh.meta.unwrap().stale_for_ms, 0);
    cut.cut_off();

    // An owner that renews there is told that the renewal was not counted, before any lease ends.
    eventually("the leader cannot be told", || async {
        let mut registry = cut.registry();
        let renewed = registry.renew(renew(&[lease_id])).await.unwrap();
        (renewed.into_inner().meta.unwrap().stale_for_ms > 0).then_some(())
    })
    .await;
    let old = node.directive("it is told", |it| it.meta.as_ref().unwrap().stale_for_ms > 0).await;
    assert_eq!((old.members, old.groups), (fresh.members, fresh.groups));
    assert_eq!(old.addresses.len(), fresh.addresses.len());
    let mut elsewhere = NodeClient::open(other, hello(1)).await.unwrap();
    assert_eq!(elsewhere.try_directive().await.unwrap().meta.unwrap().stale_for_ms, 0);
    let deadline = Instant::now() + BEYOND_A_LEASE;
    eventually("the lease has been kept beyond its time", || async {
        elsewhere.report(Vec::new()).await;
        assert_eq!(state_of(other, 1).await, "up");
        (Instant::now() > deadline).then_some(())
    })
    .await;
    // The session at the server without a quorum goes on, since no other server might have one.
    node.report(Vec::new()).await;
    assert_eq!(state_of(cut, 1).await, "up");
    let refused = cut.registry().register(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

#[tokio::test]
async fn a_leader_without_followers_ends_nothing_that_is_renewed_before_they_return() {
    let mut mesh = Mesh::start().await;
    let leader = mesh.leader().await;
    let mut request = register(instance("orders", "o1", "10.0.0.1:80"));
    request.ttl_ms = 1;
    let reply = mesh.at(leader).registry().register(request).await.unwrap().into_inner();
    let ttl = reply.ttl_ms;
    let renewal = renew(&[reply.lease_id]);
    let group = mesh.at(leader).group();
    // A new group writes that once by itself.
    eventually("the level is raised", || async { (group.level() > 1).then_some(()) }).await;
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    for index in followers {
        mesh.kill(index).await;
    }
    let written = mesh.at(leader).group().status().last_index;
    eventually("twice the lease's time has passed", || async {
        let mut registry = mesh.at(leader).registry();
        let reply = registry.list_services(ListServicesRequest {}).await.unwrap().into_inner();
        (reply.meta.unwrap().stale_for_ms > 2 * ttl).then_some(())
    })
    .await;
    let status = mesh.at(leader).group().status();
    assert_eq!(status.last_index, written, "nothing waits for a quorum: {status:?}");
    let mut registry = mesh.at(leader).registry();
    let renewed = registry.renew(renewal.clone()).await.unwrap().into_inner();
    assert!(renewed.unknown.is_empty(), "{renewed:?}");
    for index in followers {
        mesh.restart(index).await;
    }
    eventually("a quorum writes again", || async {
        let mut registry = mesh.at(leader).registry();
        let renewed = registry.renew(renewal.clone()).await.unwrap().into_inner();
        assert!(renewed.unknown.is_empty(), "{renewed:?}");
        assert_eq!(instances(mesh.at(leader)).await, [("o1".to_owned(), Health::Healthy)]);
        let request = register(instance("payments", "p1", "10.0.0.2:80"));
        registry.register(request).await.ok()
    })
    .await;
    assert_eq!(instances(mesh.at(leader)).await, [("o1".to_owned(), Health::Healthy)]);
}
