use tempfile::TempDir;

use super::*;
use crate::{identity::DataDir, part::MeshConfig};

/// A server that knows two others, and its data directory.
pub(super) fn server() -> (TempDir, Mesh) {
    let dir = tempfile::tempdir().unwrap();
    let config = MeshConfig {
        advertise: "10.0.0.1:7400".parse().unwrap(),
        seeds: Vec::new(),
        awaits_forming: true,
        version: "test".to_owned(),
    };
    let data_dir = DataDir::open(&dir.path().join("d"), &BTreeSet::new(), None).unwrap();
    let mesh = Mesh::open(data_dir, config);
    mesh.form_alone().unwrap();
    for node_id in [2, 3] {
        let address = format!("10.0.0.{node_id}:7400").parse().unwrap();
        let (boot_epoch, start, services) = (5, 50 + node_id, Vec::new());
        mesh.book().learn(Hint { node_id, boot_epoch, start, moves: 0, address, services });
    }
    (dir, mesh)
}

const WHERE_2_WAS: &str = "10.0.0.2:7400";
const ELSEWHERE: &str = "10.6.6.6:7400";

/// The answer of a server of the mesh, which counts `counted` as the start of the asking one.
fn reply(mesh: &Mesh, node_id: NodeId, counted: Option<Start>) -> pb::HelloReply {
    let own = mesh.own_hint();
    let counted = counted.map(|it| Hint { boot_epoch: it.epoch, start: it.number, ..own });
    pb::HelloReply {
        server: Some(pb::ServerIdentity {
            mesh_id: mesh.id().unwrap().to_string(),
            node_id,
            boot_epoch: 6,
            start: 77,
            address: ELSEWHERE.to_owned(),
            ..pb::ServerIdentity::default()
        }),
        known: counted.iter().map(to_proto).collect(),
        ..pb::HelloReply::default()
    }
}

/// S4: whoever took over an address could have ended every server that asks there.
#[tokio::test]
async fn only_seeds_and_members_say_that_a_server_was_overtaken() {
    let (_dir, mesh) = server();
    let own = mesh.inner.identity.start();
    let later = Start { epoch: own.epoch + 1, number: 9 };
    let made_up = Start { epoch: u64::MAX, number: 9 };
    let overtaken = Some(Overtaken::Later { ours: own.epoch, seen: later.epoch });
    let address: SocketAddr = WHERE_2_WAS.parse().unwrap();
    let from = |node_id, counted| reply(&mesh, node_id, Some(counted));
    let mut foreign = from(2, later);
    foreign.server.as_mut().unwrap().mesh_id = MeshId::generate().to_string();
    let cases = [
        ("a seed", Target::Seed, from(66, later), overtaken),
        ("a member", Target::Known(2), from(2, later), overtaken),
        ("a stranger where a member was", Target::Known(2), from(67, later), None),
        ("a member of another mesh", Target::Known(2), foreign, None),
        ("an epoch that is made up", Target::Seed, from(2, made_up), None),
        ("the start that runs", Target::Seed, from(2, own), None),
    ];
    for (name, target, reply, expected) in cases {
        let mut hello = HelloTask::new(mesh.clone(), Vec::new());
        assert_eq!(hello.handle_reply(address, target, reply).await, expected, "{name}");
    }
}

/// S4: the place of a server that is well cannot be claimed.
#[tokio::test]
async fn a_claim_is_believed_only_if_nobody_answers_at_the_old_place() {
    let (there, gone) = (BTreeMap::from([(2, 52)]), BTreeMap::new());
    let moved: SocketAddr = ELSEWHERE.parse().unwrap();
    let cases = [
        ("its old place is silent", 2, &gone, true),
        ("another start answers at its old place", 2, &there, false),
        ("somebody else answers at the new place", 3, &gone, false),
    ];
    for (name, answering, present, believed) in cases {
        let (_dir, mesh) = server();
        let hello = HelloTask::new(mesh.clone(), Vec::new());
        let reply = reply(&mesh, answering, None);
        hello.check_claim(moved, Target::Claimed(2), reply, present);
        let now = mesh.book().hint(2).unwrap().address;
        let expected = if believed { moved } else { WHERE_2_WAS.parse().unwrap() };
        assert_eq!(now, expected, "{name}");
    }
}
