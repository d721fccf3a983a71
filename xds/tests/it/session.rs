//! Sessions of data nodes.

use proto::quorate::v1::{
    GroupMember, HostedGroup, ListGroupsRequest, ListMembersRequest, NodeHello,
};
use tonic::Code;

use crate::harness::{Disk, NodeClient, Server, eventually, hello};

fn leads(group: u32, term: u64, node_id: u64) -> HostedGroup {
    HostedGroup {
        group,
        namespace: "default".to_owned(),
        role: "leader".to_owned(),
        term,
        leader_id: node_id,
        members: vec![GroupMember { node_id, voter: true, lag: Some(0), silent: false }],
        ..HostedGroup::default()
    }
}

#[tokio::test]
async fn a_node_is_recorded_and_told_what_it_hosts() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut node = NodeClient::open(&server, hello(1)).await.unwrap();
    let directive = node.directive("it hosts a group", |it| !it.groups.is_empty()).await;

    let meta = directive.meta.unwrap();
    assert_eq!(meta.mesh_id, server.mesh_id());
    assert!(directive.ttl_ms > 0);
    let group = &directive.groups[0];
    assert_eq!((group.namespace.as_str(), group.voters_wanted), ("default", 1));
    assert_eq!(group.first_voters[0].node_id, 1);
    let own_id = server.host.identity().node_id;
    assert!(directive.addresses.iter().any(|it| it.node_id == own_id));
    assert_eq!(directive.members[0].kv_address, "127.0.0.1:2379");

    let group_number = group.group;
    node.report(vec![leads(group_number, 3, 1)]).await;
    let led = node.directive("its leadership is noted", |it| it.groups[0].leader_id == 1).await;
    assert_eq!(led.groups[0].term, 3);
    node.report(vec![leads(group_number, 3, 1)]).await;
    node.assert_quiet().await;
    let reply = server.registry().list_groups(ListGroupsRequest {}).await.unwrap().into_inner();
    let replica = &reply.groups[0].replicas[0];
    assert_eq!((replica.role.as_str(), replica.lag, replica.up), ("leader", Some(0), true));

    node.stop().await;
    node.directive("its stopping is noted", |it| it.stopping_noted).await;
    let reply = server.registry().list_members(ListMembersRequest {}).await.unwrap().into_inner();
    let member = reply.members.iter().find(|it| it.node_id == 1).unwrap();
    assert_eq!(member.state, "stopping");
}

#[tokio::test]
async fn a_node_that_comes_back_is_told_the_same_and_takes_its_new_address_along() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut first = NodeClient::open(&server, hello(1)).await.unwrap();
    let before = first.directive("it hosts a group", |it| !it.groups.is_empty()).await;
    drop(first);
    let moved = NodeHello { boot_epoch: 2, mesh_address: "127.0.0.9:7400".to_owned(), ..hello(1) };
    let mut second = NodeClient::open(&server, moved).await.unwrap();
    let after = second.try_directive().await.unwrap();
    assert_eq!(after.groups, before.groups);
    assert_eq!(after.members[0].mesh_address, "127.0.0.9:7400");
}

#[tokio::test]
async fn nodes_that_do_not_belong_here_are_refused_by_name() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut node = NodeClient::open(&server, hello(1)).await.unwrap();
    node.try_directive().await.unwrap();

    let other = "6c6f6f6b-6174-4a6d-9965-6f7572706f73".to_owned();
    let stranger = NodeHello { mesh_id: other.clone(), ..hello(2) };
    let mut stranger = NodeClient::open(&server, stranger).await.unwrap();
    let refused = stranger.try_directive().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let ours = server.mesh_id();
    assert!(refused.message().contains(&other) && refused.message().contains(&ours));

    let mesh_address = "127.0.0.7:7400".to_owned();
    let swapped = NodeHello { store_id: 5, boot_epoch: 2, mesh_address, ..hello(1) };
    let mut swapped = NodeClient::open(&server, swapped).await.unwrap();
    let refused = swapped.try_directive().await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    let known = server.host.mesh().book().hint(1).unwrap();
    assert_eq!((known.boot_epoch, known.address), (1, "127.0.0.1:7400".parse().unwrap()));

    let cloned = NodeHello { mesh_address: "127.0.0.8:7400".to_owned(), ..hello(1) };
    let mut cloned = NodeClient::open(&server, cloned).await.unwrap();
    let refused = cloned.try_directive().await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");

    let nameless = NodeHello { mesh_address: "n1:7400".to_owned(), ..hello(3) };
    let mut nameless = NodeClient::open(&server, nameless).await.unwrap();
    assert_eq!(nameless.try_directive().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_broken_session_leaves_it_to_the_lease() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut node = NodeClient::open(&server, hello(1)).await.unwrap();
    node.directive("it hosts a group", |it| !it.groups.is_empty()).await;
    drop(node);
    let state = || async {
        let mut registry = server.registry();
        let reply = registry.list_members(ListMembersRequest {}).await.unwrap().into_inner();
        reply.members.into_iter().find(|it| it.node_id == 1).unwrap().state
    };
    assert_eq!(state().await, "up");
    eventually("the lease ends", || async { (state().await == "down").then_some(()) }).await;
    let mut node = NodeClient::open(&server, hello(1)).await.unwrap();
    node.directive("it is up again", |it| it.members.iter().any(|it| it.state == "up")).await;
}
