//! Registration and its end.

use bytes::Bytes;
use prost::Message;
use proto::quorate::v1::{
    AddressHint, DeregisterRequest, Health, ListInstancesRequest, ListMembersRequest,
    ListServicesRequest, RecordServer, RegistryCommand, SetHealthRequest,
    registry_command::Command,
};
use tonic::Code;

use crate::harness::{Disk, Server, eventually, instance, register, renew};

async fn health_of(server: &Server, service: &str, id: &str) -> Option<Health> {
    let request = ListInstancesRequest { service: service.to_owned() };
    let reply = server.registry().list_instances(request).await.unwrap().into_inner();
    reply.instances.iter().find(|it| it.id == id).map(|it| it.health())
}

#[tokio::test]
async fn a_registered_instance_is_listed_at_once() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();

    let reply = registry.register(register(instance("orders", "o1", "10.0.0.1:80"))).await;
    let reply = reply.unwrap().into_inner();
    let meta = reply.meta.unwrap();
    assert_eq!(meta.leader_id, server.host.identity().node_id);
    assert_eq!(meta.mesh_id, server.mesh_id());
    assert_eq!(meta.stale_for_ms, 0);
    assert!(reply.lease_id != 0 && reply.ttl_ms > 0);
    assert_eq!(health_of(&server, "orders", "o1").await, Some(Health::Healthy));

    let services = registry.list_services(ListServicesRequest {}).await.unwrap().into_inner();
    assert_eq!(services.services[0].name, "orders");
    let renewed = registry.renew(renew(&[reply.lease_id, 7])).await;
    assert_eq!(renewed.unwrap().into_inner().unknown, [7]);

    let mut request = DeregisterRequest {
        service: "orders".to_owned(),
        id: "o1".to_owned(),
        lease_id: reply.lease_id ^ 1,
        ..DeregisterRequest::default()
    };
    assert!(!registry.deregister(request.clone()).await.unwrap().into_inner().existed);
    assert_eq!(health_of(&server, "orders", "o1").await, Some(Health::Healthy));
    request.lease_id = reply.lease_id;
    assert!(registry.deregister(request.clone()).await.unwrap().into_inner().existed);
    assert!(!registry.deregister(request).await.unwrap().into_inner().existed);
    assert_eq!(health_of(&server, "orders", "o1").await, None);
}

#[tokio::test]
async fn registering_an_unchanged_record_writes_nothing() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    let request = register(instance("orders", "o1", "10.0.0.1:80"));
    let first = registry.register(request.clone()).await.unwrap().into_inner();
    let written = server.group().status().last_index;

    let again = registry.register(request).await.unwrap().into_inner();
    assert_eq!(again.lease_id, first.lease_id);
    assert_eq!(server.group().status().last_index, written);
}

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    let held = registry.register(register(instance("orders", "o1", "10.0.0.1:80"))).await;
    let lease_id = held.unwrap().into_inner().lease_id;

    let malformed = register(instance("orders", "o2", "orders.local:80"));
    let refused = registry.register(malformed).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let other = register(instance("orders", "o1", "10.0.0.2:80"));
    let refused = registry.register(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    let mut request = SetHealthRequest {
        service: "orders".to_owned(),
        id: "o1".to_owned(),
        lease_id: lease_id ^ 1,
        health: Health::Draining.into(),
        ..SetHealthRequest::default()
    };
    let refused = registry.set_health(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    request.lease_id = lease_id;
    registry.set_health(request).await.unwrap();
    assert_eq!(health_of(&server, "orders", "o1").await, Some(Health::Draining));
}

#[tokio::test]
async fn what_is_meant_for_another_mesh_is_refused_and_names_both() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    let ours = server.mesh_id();
    let mut request = register(instance("orders", "o1", "10.0.0.1:80"));
    request.mesh_id.clone_from(&ours);
    let lease_id = registry.register(request.clone()).await.unwrap().into_inner().lease_id;

    let (service, id) = ("orders".to_owned(), "o1".to_owned());
    let mesh_id = "00000000-0000-4000-8000-000000000000".to_owned();
    request.mesh_id.clone_from(&mesh_id);
    let mut renewal = renew(&[lease_id]);
    renewal.mesh_id.clone_from(&mesh_id);
    let health = Health::Draining.into();
    let set_health = SetHealthRequest {
        service: service.clone(),
        id: id.clone(),
        lease_id,
        health,
        mesh_id: mesh_id.clone(),
        ..SetHealthRequest::default()
    };
    let deregister = DeregisterRequest { service, id, lease_id: 0, mesh_id: mesh_id.clone() };
    for refused in [
        registry.register(request).await.unwrap_err(),
        registry.renew(renewal).await.unwrap_err(),
        registry.set_health(set_health).await.unwrap_err(),
        registry.deregister(deregister).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains(&ours), "{refused}");
        assert!(refused.message().contains(&mesh_id), "{refused}");
    }
    assert_eq!(health_of(&server, "orders", "o1").await, Some(Health::Healthy));
}

#[tokio::test]
async fn a_lease_that_nobody_renews_marks_its_instance_down() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let mut registry = server.registry();
    let mut silent = register(instance("orders", "silent", "10.0.0.1:80"));
    silent.ttl_ms = 1;
    let silent = registry.register(silent).await.unwrap().into_inner();
    let kept = registry.register(register(instance("orders", "kept", "10.0.0.2:80"))).await;
    let kept = kept.unwrap().into_inner().lease_id;

    eventually("the silent one is down", || async {
        let mut registry = server.registry();
        registry.renew(renew(&[kept])).await.unwrap();
        (health_of(&server, "orders", "silent").await == Some(Health::Down)).then_some(())
    })
    .await;
    assert_eq!(health_of(&server, "orders", "kept").await, Some(Health::Healthy));
    let renewed = registry.renew(renew(&[silent.lease_id])).await;
    assert_eq!(renewed.unwrap().into_inner().unknown, [silent.lease_id]);
}

#[tokio::test]
async fn a_server_lists_itself_as_leader() {
    let disk = Disk::new();
    let server = Server::single(&disk).await;
    server.ready().await;
    let member = eventually("the server has recorded itself", || async {
        let mut registry = server.registry();
        let reply = registry.list_members(ListMembersRequest {}).await.unwrap().into_inner();
        reply.members.into_iter().next()
    })
    .await;
    assert_eq!(member.node_id, server.host.identity().node_id);
    assert_eq!((member.role.as_str(), member.state.as_str()), ("leader", "up"));
    assert_eq!(member.mesh_address, server.host.mesh().advertise().to_string());
}

#[tokio::test]
async fn before_the_mesh_is_formed_callers_are_told_so() {
    let disk = Disk::new();
    let server = Server::member(&disk, Vec::new()).await;
    let refused = server.registry().list_services(ListServicesRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("quorate init"), "{refused}");
}

#[tokio::test]
async fn a_server_that_was_started_again_elsewhere_ends_itself() {
    let disk = Disk::new();
    let mut server = Server::single(&disk).await;
    server.ready().await;
    let later = AddressHint {
        start: 0,
        moves: 0,
        node_id: server.host.identity().node_id,
        boot_epoch: server.host.identity().boot_epoch + 1,
        address: "127.0.0.9:7400".to_owned(),
        services: vec!["disco".to_owned()],
    };
    let command = Command::RecordServer(RecordServer {
        hint: Some(later),
        name: "d".to_owned(),
        ..RecordServer::default()
    });
    let command = RegistryCommand { command: Some(command) }.encode_to_vec();
    let group = server.group();
    group.write(Bytes::from(command), crate::harness::PATIENCE).await.unwrap();
    let refusal = server.ended().await.unwrap_err();
    assert!(refusal.starts_with("refusal: true"), "{refusal}");
    assert!(refusal.contains("started again since, elsewhere"), "{refusal}");
}
