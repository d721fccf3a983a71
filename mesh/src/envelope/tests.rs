use super::*;

#[test]
fn a_message_is_taken_or_refused_by_name() {
    let ours = MeshId::generate();
    let recipient = Recipient { mesh: Some(&ours), node_id: 1, store_id: 10, start: 77 };
    let good = pb::Envelope {
        mesh_id: ours.to_string(),
        group: 2,
        source_id: 5,
        target_id: 1,
        target_store_id: 10,
        source_epoch: 4,
        source_start: 88,
        target_start: 77,
    };
    let received = Received { group: 2, source: 5, source_start: Start { epoch: 4, number: 88 } };
    type Change = fn(&mut pb::Envelope);
    let cases: [(&str, Change, Result<(), &str>); 10] = [
        ("as it should be", |_| {}, Ok(())),
        ("store not known to the sender", |it| it.target_store_id = 0, Ok(())),
        ("other mesh", |it| it.mesh_id = "other".into(), Err("message for mesh other, but")),
        ("no mesh", |it| it.mesh_id.clear(), Err("message for mesh , but")),
        ("other node", |it| it.target_id = 3, Err("message for node 0000000000000003, but")),
        ("other store", |it| it.target_store_id = 11, Err("its disk was swapped")),
        ("other start", |it| it.target_start = 78, Err("for another start of this node")),
        ("no start", |it| it.target_start = 0, Err("for another start of this node")),
        ("from nobody", |it| it.source_id = 0, Err("message from node 0")),
        ("from ourselves", |it| it.source_id = 1, Err("this node itself")),
    ];
    for (name, change, expected) in cases {
        let mut envelope = good.clone();
        change(&mut envelope);
        match (check(Some(&envelope), recipient), expected) {
            (Ok(found), Ok(())) => assert_eq!(found, received, "{name}"),
            (Err(error), Err(text)) => {
                assert!(error.to_string().contains(text), "{name}: {error}");
            }
            (found, expected) => panic!("{name}: {found:?}, expected {expected:?}"),
        }
    }
    assert_eq!(check(None, recipient), Err(EnvelopeError::NoEnvelope));
    let blank = Recipient { mesh: None, ..recipient };
    let error = check(Some(&good), blank).unwrap_err();
    assert_eq!(error, EnvelopeError::NoMesh { target: ours.to_string() });
    assert_eq!(tonic::Status::from(error).code(), tonic::Code::FailedPrecondition);
}
