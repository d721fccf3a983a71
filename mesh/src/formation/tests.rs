use super::*;

#[test]
fn reserve_then_commit_makes_a_member() {
    let (formation, now) = (formation(&[1, 2]), Instant::now());
    let mut reservations = Reservations::default();
    reservations.reserve(&candidate(1), &formation, now).unwrap();
    let commit = reservations.commit(&candidate(1), &formation, now).unwrap();
    assert_eq!(commit, Commit::Store(to_record(&formation)));
    assert_eq!(from_record(&to_record(&formation)), formation);
}

#[test]
fn a_committed_formation_may_be_reserved_and_committed_again() {
    let (formation, now) = (formation(&[1, 2]), Instant::now());
    let mut reservations = Reservations::default();
    let formed = formed(1, &formation);
    reservations.reserve(&formed, &formation, now).unwrap();
    assert_eq!(reservations.commit(&formed, &formation, now), Ok(Commit::Done));
}

#[test]
fn a_member_is_not_formed_again() {
    let now = Instant::now();
    let ours = formation(&[1, 2]);
    let formed = formed(1, &ours);
    let mesh = formed.mesh.clone().unwrap();
    let refused = Reservations::default().reserve(&formed, &formation(&[1, 2]), now);
    assert_eq!(refused, Err(FormError::InMesh(mesh)));
}

#[test]
fn a_reservation_keeps_others_out_until_it_is_released_or_over() {
    let (first, second, now) = (formation(&[1, 2]), formation(&[1, 3]), Instant::now());
    let mut reservations = Reservations::default();
    let us = candidate(1);
    reservations.reserve(&us, &first, now).unwrap();
    assert_eq!(reservations.reserve(&us, &second, now), Err(FormError::Held));
    assert_eq!(reservations.commit(&us, &second, now), Err(FormError::NotHeld));
    assert_eq!(reservations.adopt(&us, &second, now), Err(FormError::Held));
    reservations.release(&second);
    assert_eq!(reservations.reserve(&us, &second, now), Err(FormError::Held));
    reservations.release(&first);
    reservations.reserve(&us, &second, now).unwrap();

    let late = now + RESERVATION;
    assert_eq!(reservations.commit(&us, &second, late), Err(FormError::NotHeld));
    reservations.reserve(&us, &first, late).unwrap();
}

#[test]
fn a_commit_without_a_reservation_is_refused() {
    let formation = formation(&[1]);
    let refused = Reservations::default().commit(&candidate(1), &formation, Instant::now());
    assert_eq!(refused, Err(FormError::NotHeld));
}

#[test]
fn a_missed_commit_is_adopted_without_a_reservation() {
    let (formation, now) = (formation(&[1, 2]), Instant::now());
    let mut reservations = Reservations::default();
    let adopted = reservations.adopt(&candidate(2), &formation, now);
    assert_eq!(adopted, Ok(Commit::Store(to_record(&formation))));
}

#[test]
fn a_formation_must_name_this_server_and_make_sense() {
    let now = Instant::now();
    let joins = Candidate { awaits_forming: false, ..candidate(1) };
    let told = MeshId::generate();
    let elsewhere = Candidate { expected_mesh: Some(told.clone()), ..candidate(1) };
    let lost = Candidate { met_mesh: Some(told.clone()), ..candidate(1) };
    let wiped = Candidate { store_id: 99, ..candidate(1) };
    let mut twice = formation(&[1, 2]);
    twice.members.push(twice.members[0].clone());
    let mut unnamed = formation(&[1, 2]);
    unnamed.mesh_id = "x".to_owned();
    let cases = [
        (candidate(3), formation(&[1, 2]), FormError::NotAMember),
        (wiped, formation(&[1, 2]), FormError::NotAMember),
        (joins, formation(&[1, 2]), FormError::NotAwaited),
        (elsewhere, formation(&[1, 2]), FormError::NotExpected(told.clone())),
        (lost, formation(&[1, 2]), FormError::Met(told)),
        (candidate(1), twice, FormError::Malformed("members are not distinct servers")),
        (
            candidate(1),
            formation(&[0, 1]),
            FormError::Malformed("members are not distinct servers"),
        ),
        (candidate(1), unnamed, FormError::Malformed("mesh id")),
    ];
    for (candidate, formation, expected) in cases {
        let refused = Reservations::default().reserve(&candidate, &formation, now);
        assert_eq!(refused, Err(expected));
    }
}

fn candidate(node_id: NodeId) -> Candidate {
    Candidate {
        node_id,
        store_id: node_id * 10,
        mesh: None,
        expected_mesh: None,
        met_mesh: None,
        formation: None,
        awaits_forming: true,
    }
}

fn formed(node_id: NodeId, formation: &pb::Formation) -> Candidate {
    Candidate {
        mesh: formation.mesh_id.parse().ok(),
        formation: Some(formation.clone()),
        ..candidate(node_id)
    }
}

fn formation(members: &[NodeId]) -> pb::Formation {
    let members = members.iter().map(|id| pb::FormationMember {
        node_id: *id,
        store_id: id * 10,
        address: format!("10.0.0.{id}:7400"),
    });
    pb::Formation { mesh_id: MeshId::generate().to_string(), members: members.collect() }
}
