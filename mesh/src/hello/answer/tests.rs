use std::collections::BTreeSet;

use super::*;
use crate::hello::tests::server;

fn said(mesh: &Mesh, node_id: u64, boot_epoch: u64, start: u64, address: &str) -> pb::HelloRequest {
    pb::HelloRequest {
        mesh_id: mesh.id().unwrap().to_string(),
        sender: Some(pb::AddressHint {
            node_id,
            boot_epoch,
            start,
            address: address.to_owned(),
            ..pb::AddressHint::default()
        }),
        ..pb::HelloRequest::default()
    }
}

#[test]
fn a_caller_is_looked_for_at_most() {
    let (_dir, mesh) = server();
    let before = mesh.book().hints();
    let at = "10.6.6.6:7400";
    let claim = |node_id| (BTreeSet::from([node_id]), [(node_id, at.parse().unwrap())].into());
    let want = |node_id| (BTreeSet::from([node_id]), Default::default());
    let cases = [
        ("a stranger", said(&mesh, 66, 9, 9, at), Default::default()),
        ("a later start elsewhere", said(&mesh, 2, 6, 9, at), claim(2)),
        ("a later start where it was", said(&mesh, 2, 6, 9, "10.0.0.2:7400"), want(2)),
        ("the start that counts", said(&mesh, 2, 5, 52, "10.0.0.2:7400"), Default::default()),
        ("it, from elsewhere, without a move", said(&mesh, 2, 5, 52, at), Default::default()),
        ("another start of the epoch", said(&mesh, 2, 5, 9, at), Default::default()),
        ("an earlier start", said(&mesh, 2, 4, 9, at), Default::default()),
        ("a start that is made up", said(&mesh, 2, u64::MAX, 9, at), Default::default()),
        ("no address", said(&mesh, 2, 6, 9, "here"), Default::default()),
    ];
    for (name, request, expected) in cases {
        answer(&mesh, &request);
        assert_eq!(mesh.inner.rumors.take(), expected, "{name}");
    }
    let own = mesh.own_hint();
    let later = pb::AddressHint { boot_epoch: own.boot_epoch + 1, ..to_proto(&own) };
    let request = pb::HelloRequest { known: vec![later], ..said(&mesh, 3, 5, 53, "10.0.0.3:7400") };
    answer(&mesh, &request);
    assert_eq!(mesh.inner.rumors.take(), want(3), "who knows of our later start is asked");
    assert_eq!(mesh.book().hints(), before, "nothing is believed");
    assert!(!mesh.inner.copy_proven.is_cancelled());
}

#[test]
fn a_copy_proves_that_it_runs_and_a_stranger_does_not() {
    let (_dir, mesh) = server();
    let own = mesh.inner.identity.clone();
    let from_copy = |proof| pb::HelloRequest {
        other_start: proof,
        ..said(&mesh, own.node_id, own.boot_epoch, 7, "10.6.6.6:7400")
    };
    let reply = answer(&mesh, &from_copy(None));
    let secret = mesh.lock_dir().secret().to_owned();
    assert!(reply.other_starts.iter().any(|proof| proof::verify(&secret, proof, 7)), "it is told");
    let replayed = pb::OtherStart { start: 7, ..reply.other_starts[0].clone() };
    let guessed = pb::OtherStart { start: 7, proof: vec![1; PROOF_BYTES].into() };
    for proof in [replayed, guessed] {
        answer(&mesh, &from_copy(Some(proof)));
        assert!(!mesh.inner.copy_proven.is_cancelled());
    }
    answer(&mesh, &from_copy(Some(proof::make(&secret, 7, own.start))));
    assert!(mesh.inner.copy_proven.is_cancelled());
}

#[test]
fn what_another_start_says_is_passed_on_to_the_start_it_is_for() {
    let (_dir, mesh) = server();
    let proof = proof::make("secret", 9, 52);
    let from_copy = pb::HelloRequest {
        other_start: Some(proof.clone()),
        ..said(&mesh, 2, 5, 9, "10.6.6.6:7400")
    };
    assert_eq!(answer(&mesh, &from_copy).other_starts, []);
    let counted = said(&mesh, 2, 5, 52, "10.0.0.2:7400");
    assert_eq!(answer(&mesh, &counted).other_starts, [proof]);
}

/// Random requests made of values that matter: no request ends the server or changes its book.
#[test]
fn no_hello_ends_a_server_or_enters_its_book() {
    let (_dir, mesh) = server();
    let before = mesh.book().hints();
    let own = mesh.inner.identity.clone();
    let ids = [0, 1, 2, 3, 66, own.node_id, u64::MAX];
    let epochs = [0, 1, 5, 6, own.boot_epoch, own.boot_epoch + 1, 1 << 40, u64::MAX];
    let starts = [0, 1, 52, 53, own.start, u64::MAX];
    let addresses = ["", "here", "10.0.0.2:7400", "10.6.6.6:1", "[::]:0", "0.0.0.0:7400"];
    let meshes = [String::new(), "other".to_owned(), mesh.id().unwrap().to_string()];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = |upto: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % upto as u64).unwrap()
    };
    let hint = |pick: &mut dyn FnMut(usize) -> usize| pb::AddressHint {
        node_id: ids[pick(ids.len())],
        boot_epoch: epochs[pick(epochs.len())],
        start: starts[pick(starts.len())],
        moves: epochs[pick(epochs.len())],
        address: addresses[pick(addresses.len())].to_owned(),
        services: Vec::new(),
    };
    for _ in 0..5_000 {
        let request = pb::HelloRequest {
            mesh_id: meshes[pick(meshes.len())].clone(),
            sender: (pick(8) > 0).then(|| hint(&mut pick)),
            known: (0..pick(4)).map(|_| hint(&mut pick)).collect(),
            other_start: (pick(2) > 0).then(|| pb::OtherStart {
                start: starts[pick(starts.len())],
                proof: vec![7; [0, 1, PROOF_BYTES, 100][pick(4)]].into(),
            }),
        };
        answer(&mesh, &request);
    }
    assert!(!mesh.inner.copy_proven.is_cancelled());
    assert_eq!(mesh.book().hints(), before);
    let (wanted, claims) = mesh.inner.rumors.take();
    assert!(wanted.iter().chain(claims.keys()).all(|id| [2, 3].contains(id)), "{wanted:?}");
    assert!(mesh.inner.rumors.proofs_for(2, 0).len() <= 8);
}
