//! Forming a mesh, interrupted and complete, and learning the addresses of servers.

use std::time::Duration;

use mesh::MeshId;
use proto::quorate::v1::{self as pb, form_request::Step, mesh_client::MeshClient};
use tonic::{Code, Status, transport::Channel};

use crate::fleet::{Server, Setup, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_says_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("a"), Setup::default()).await;
    let identity = client(&server).await.identify(pb::IdentifyRequest {}).await.unwrap();
    let expected = pb::ServerIdentity {
        mesh_id: String::new(),
        node_id: server.id(),
        store_id: server.member().store_id,
        services: vec!["data".to_owned()],
        address: server.address.to_string(),
        version: "test".to_owned(),
        awaits_forming: true,
        boot_epoch: 1,
        start: server.host.identity().start,
        moves: 0,
        met_mesh_id: String::new(),
        seeds: Vec::new(),
    };
    assert_eq!(identity.into_inner(), expected);
    server.host.mesh().form_alone().unwrap();
    let identity = client(&server).await.identify(pb::IdentifyRequest {}).await.unwrap();
    assert!(!identity.into_inner().awaits_forming);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_formations_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let a = Server::start(&dir.path().join("a"), Setup::default()).await;
    let b = Server::start(&dir.path().join("b"), Setup::default()).await;
    let (first, second) = (formation(&[&a, &b]), formation(&[&a, &b]));
    form(&a, &first, Step::Reserve).await.unwrap();
    form(&b, &first, Step::Reserve).await.unwrap();
    let refused = form(&b, &second, Step::Reserve).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    form(&b, &first, Step::Release).await.unwrap();
    form(&b, &second, Step::Reserve).await.unwrap();
    form(&b, &second, Step::Release).await.unwrap();
    form(&b, &first, Step::Reserve).await.unwrap();
    for server in [&a, &b] {
        form(server, &first, Step::Commit).await.unwrap();
        form(server, &first, Step::Commit).await.unwrap();
        let refused = form(server, &second, Step::Reserve).await.unwrap_err();
        assert!(refused.message().contains(&first.mesh_id), "{refused}");
    }
    assert_eq!(
        a.host.mesh().book().address(b.id()),
        Some(b.address),
        "members' addresses are hints"
    );
    let mesh: MeshId = first.mesh_id.parse().unwrap();
    a.host.mesh().adopt_mesh(&mesh).unwrap();
    assert!(a.host.mesh().adopt_mesh(&MeshId::generate()).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_missed_the_commit_adopts_the_formation() {
    let dir = tempfile::tempdir().unwrap();
    let a = Server::start(&dir.path().join("a"), Setup::default()).await;
    let seeds = vec![a.address];
    let b = Server::start(&dir.path().join("b"), Setup { seeds, ..Setup::default() }).await;
    let stranger = Setup { seeds: vec![a.address], ..Setup::default() };
    let c = Server::start(&dir.path().join("c"), stranger).await;
    let formation = formation(&[&a, &b]);
    form(&a, &formation, Step::Reserve).await.unwrap();
    form(&b, &formation, Step::Reserve).await.unwrap();
    form(&a, &formation, Step::Commit).await.unwrap();
    let mut formed = b.host.mesh().formation();
    let adopted = within(formed.wait_for(Option::is_some)).await.unwrap().clone();
    assert_eq!(adopted.as_ref(), Some(&formation));
    let mut met = c.host.mesh().met_mesh();
    let met = within(met.wait_for(Option::is_some)).await.unwrap().clone();
    assert_eq!(met.map(|mesh| mesh.to_string()), Some(formation.mesh_id.clone()));
    assert_eq!(c.host.identity().mesh_id, None, "who is no member stays blank");
    // It is durable: after a restart it is there without asking any server.
    a.stop().await;
    let path = b.stop().await;
    let b = Server::start(&path, Setup::default()).await;
    assert_eq!(b.host.mesh().formation().borrow().as_ref(), Some(&formation));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_of_another_mesh_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = Server::start(&dir.path().join("foreign"), Setup::default()).await;
    foreign.host.mesh().form_alone().unwrap();
    let a = Server::start(&dir.path().join("a"), Setup::default()).await;
    // A port on which no server listens any more.
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let seeds = vec![gone, foreign.address, a.address];
    let b = Server::start(&dir.path().join("b"), Setup { seeds, ..Setup::default() }).await;
    let formation = formation(&[&a, &b]);
    // It refuses to be reserved, since it may be a member of the mesh that it met. It adopts a
    // formation that a member reports.
    let met = b.host.mesh().met_mesh();
    until("b to meet the other mesh", || met.borrow().clone()).await;
    let refused = form(&b, &formation, Step::Reserve).await.unwrap_err();
    assert!(refused.message().contains("data directory that it had"), "{refused}");
    for step in [Step::Reserve, Step::Commit] {
        form(&a, &formation, step).await.unwrap();
    }
    // A hint with an epoch comes from the server itself.
    let told = |server: &Server, of: u64| {
        server.host.mesh().book().hint(of).is_some_and(|hint| hint.boot_epoch > 0).then_some(())
    };
    until("b to learn of a", || told(&b, a.id())).await;
    until("a to learn of b", || told(&a, b.id())).await;
    assert_eq!(b.host.mesh().book().address(foreign.id()), None);
    assert_eq!(foreign.host.mesh().book().address(b.id()), None);
    assert_eq!(foreign.host.mesh().book().address(a.id()), None);
}

pub(crate) fn formation(servers: &[&Server]) -> pb::Formation {
    let members = servers.iter().map(|server| server.formation_member()).collect();
    pb::Formation { mesh_id: MeshId::generate().to_string(), members }
}

pub(crate) async fn form(
    server: &Server,
    formation: &pb::Formation,
    step: Step,
) -> Result<(), Status> {
    let formation = Some(formation.clone());
    let request = pb::FormRequest { formation, step: step.into() };
    client(server).await.form(request).await.map(|_| ())
}

async fn client(server: &Server) -> MeshClient<Channel> {
    let endpoint = Channel::from_shared(format!("http://{}", server.address)).unwrap();
    let endpoint = endpoint.connect_timeout(Duration::from_secs(10));
    MeshClient::new(endpoint.connect().await.unwrap())
}
