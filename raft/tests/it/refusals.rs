//! What a server refuses: messages for other servers, and incomplete data directories.

use std::{collections::BTreeSet, fs, path::Path};

use mesh::{DataDir, Hint, Mesh, MeshConfig, MeshId};
use proto::quorate::v1::{self as pb, raft_client::RaftClient};
use raft::{Host, OpenError, StartGroupError, Timing};
use tonic::{Code, transport::Channel};

use crate::fleet::{Fleet, Server, Setup, Words, put, until};

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_another_server_are_refused_by_name() {
    let fleet = Fleet::form(3).await;
    fleet.leader().await;
    let (target, source) = (&fleet.servers[0], &fleet.servers[1]);
    let good = pb::Envelope {
        mesh_id: target.host.identity().mesh_id.unwrap().to_string(),
        group: 2,
        source_id: source.id(),
        target_id: target.id(),
        target_store_id: target.member().store_id,
        source_epoch: source.host.identity().boot_epoch,
        source_start: source.host.identity().start,
        target_start: target.host.identity().start,
    };
    let cases: [(&str, pb::Envelope); 8] = [
        (
            "message for mesh",
            pb::Envelope { mesh_id: MeshId::generate().to_string(), ..good.clone() },
        ),
        ("message for node", pb::Envelope { target_id: source.id(), ..good.clone() }),
        ("message for store", pb::Envelope { target_store_id: 1, ..good.clone() }),
        ("group 77 is not hosted here", pb::Envelope { group: 77, ..good.clone() }),
        ("message from node 0", pb::Envelope { source_id: 0, ..good.clone() }),
        ("for another start of this node", pb::Envelope { target_start: 1, ..good.clone() }),
        ("that does not count here", pb::Envelope { source_start: 1, ..good.clone() }),
        ("that does not count here", pb::Envelope { source_epoch: u64::MAX, ..good.clone() }),
    ];
    let mut client = client(target).await;
    for (text, envelope) in cases {
        let envelope = Some(envelope);
        let vote = pb::VoteRequest { envelope: envelope.clone(), ..pb::VoteRequest::default() };
        let append =
            pb::AppendRequest { envelope: envelope.clone(), ..pb::AppendRequest::default() };
        let header =
            pb::SnapshotHeader { envelope: envelope.clone(), ..pb::SnapshotHeader::default() };
        let part = pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Header(header)) };
        let transfer = pb::TransferLeaderRequest {
            envelope: envelope.clone(),
            ..pb::TransferLeaderRequest::default()
        };
        let propose =
            pb::ProposeRequest { envelope: envelope.clone(), ..pb::ProposeRequest::default() };
        let read = pb::ReadIndexRequest { envelope };
        let mut appended = client.append(tokio_stream::once(append)).await.unwrap().into_inner();
        let refusals = [
            client.vote(vote.clone()).await.unwrap_err(),
            client.pre_vote(vote).await.unwrap_err(),
            appended.message().await.unwrap_err(),
            client.snapshot(tokio_stream::once(part)).await.unwrap_err(),
            client.transfer_leader(transfer).await.unwrap_err(),
            client.propose(propose).await.unwrap_err(),
            client.read_index(read).await.unwrap_err(),
        ];
        for refusal in refusals {
            assert_eq!(refusal.code(), Code::FailedPrecondition, "{text}: {refusal}");
            assert!(refusal.message().contains(text), "{text}: {refusal}");
        }
    }
    // The sender belongs to the mesh, but is no member of the group.
    let known = source.host.mesh().book().hint(target.id()).unwrap();
    target.host.mesh().book().learn(Hint { node_id: 12345, ..known.clone() });
    let stranger = pb::Envelope {
        source_id: 12345,
        source_epoch: known.boot_epoch,
        source_start: known.start,
        ..good.clone()
    };
    let propose = pb::ProposeRequest { envelope: Some(stranger), ..pb::ProposeRequest::default() };
    let refusal = client.propose(propose).await.unwrap_err();
    assert!(refusal.message().contains("is not a member"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_and_the_group_lives_on() {
    let fleet = Fleet::form(3).await;
    let leader = fleet.leader().await;
    let target = fleet.follower().await;
    let envelope = Some(envelope(leader, target));
    let mut client = client(target).await;
    let vote = pb::VoteRequest { envelope: envelope.clone(), ..pb::VoteRequest::default() };
    assert_eq!(client.vote(vote).await.unwrap_err().code(), Code::InvalidArgument);
    let made_up = pb::Vote { term: u64::MAX, node_id: leader.id(), committed: false };
    let vote = pb::VoteRequest {
        envelope: envelope.clone(),
        vote: Some(made_up),
        ..pb::VoteRequest::default()
    };
    for refusal in [client.vote(vote.clone()).await, client.pre_vote(vote).await] {
        let refusal = refusal.unwrap_err();
        assert!(refusal.message().contains("term"), "{refusal}");
    }
    let granted = pb::Vote { term: 1, node_id: leader.id(), committed: true };
    let gap = pb::Entry {
        log_id: Some(pb::LogId { term: 1, index: 500 }),
        payload: Some(pb::entry::Payload::Blank(pb::Blank {})),
        ..pb::Entry::default()
    };
    for append in [
        pb::AppendRequest { envelope: envelope.clone(), ..pb::AppendRequest::default() },
        pb::AppendRequest {
            envelope: envelope.clone(),
            vote: Some(pb::Vote { committed: false, ..granted }),
            ..pb::AppendRequest::default()
        },
        pb::AppendRequest {
            envelope: envelope.clone(),
            vote: Some(pb::Vote { committed: true, ..made_up }),
            ..pb::AppendRequest::default()
        },
        pb::AppendRequest {
            envelope: envelope.clone(),
            vote: Some(granted),
            entries: vec![gap],
            ..pb::AppendRequest::default()
        },
    ] {
        let mut replies = client.append(tokio_stream::once(append)).await.unwrap().into_inner();
        let refusal = replies.message().await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
    }
    let header = pb::SnapshotHeader {
        envelope,
        vote: Some(granted),
        meta: Some(pb::SnapshotMeta {
            last_log_id: Some(pb::LogId { term: 1, index: 900 }),
            membership: None,
        }),
        size_bytes: 3,
    };
    let chunk = pb::SnapshotChunk { offset: 0, data: "abc".into(), crc32c: 1 };
    let parts = [
        pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Header(header)) },
        pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Chunk(chunk)) },
    ];
    let refusal = client.snapshot(tokio_stream::iter(parts)).await.unwrap_err();
    assert!(refusal.message().contains("checksum"), "{refusal}");
    let applied = put(&leader.group(), "put a 1").await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1"]);
}

/// A server answers every message that breaks the rules, and the group continues.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_break_the_rules_of_raft_are_refused() {
    let fleet = Fleet::form(3).await;
    let leader = fleet.leader().await;
    let applied = put(&leader.group(), "put a 1").await;
    fleet.converged(applied.index).await;
    let target = fleet.follower().await;
    let term = leader.group().status().term;
    let envelope = Some(envelope(leader, target));
    let vote = pb::Vote { term, node_id: leader.id(), committed: true };
    let id = |term, index| Some(pb::LogId { term, index });
    let entry = |term, index| pb::Entry {
        log_id: id(term, index),
        payload: Some(pb::entry::Payload::Blank(pb::Blank {})),
        ..pb::Entry::default()
    };
    let good = pb::AppendRequest {
        envelope: envelope.clone(),
        vote: Some(vote),
        prev: id(term, 100),
        ..pb::AppendRequest::default()
    };
    let with = |entries| pb::AppendRequest { entries, ..good.clone() };
    let committed = applied.index;
    let bad = [
        with(vec![entry(term, 101), entry(term - 1, 102)]),
        with(vec![entry(term, 101), entry(term, 103)]),
        with(vec![entry(term + 1, 101)]),
        pb::AppendRequest { prev: id(term, u64::MAX), ..with(vec![entry(term, 0)]) },
        pb::AppendRequest { prev: id(u64::MAX, 1), ..good.clone() },
        pb::AppendRequest { committed: id(term + 1, 1), ..good.clone() },
        pb::AppendRequest { vote: Some(pb::Vote { term: u64::MAX, ..vote }), ..good.clone() },
        pb::AppendRequest { vote: Some(pb::Vote { node_id: target.id(), ..vote }), ..good.clone() },
        pb::AppendRequest {
            vote: Some(pb::Vote { term: term + 9, ..vote }),
            prev: id(term + 9, committed),
            ..good.clone()
        },
    ];
    let mut client = client(target).await;
    for append in bad {
        let text = format!("{append:?}");
        let mut replies = client.append(tokio_stream::once(append)).await.unwrap().into_inner();
        let refusal = replies.message().await.unwrap_err();
        let codes = [Code::InvalidArgument, Code::FailedPrecondition];
        assert!(codes.contains(&refusal.code()), "{text}: {refusal}");
    }
    // A Raft snapshot of a later term that ends before what is committed.
    let header = pb::SnapshotHeader {
        envelope: envelope.clone(),
        vote: Some(pb::Vote { term: term + 9, ..vote }),
        meta: Some(pb::SnapshotMeta { last_log_id: id(term + 9, 1), membership: None }),
        size_bytes: 0,
    };
    let part = pb::SnapshotPart { part: Some(pb::snapshot_part::Part::Header(header)) };
    let refusal = client.snapshot(tokio_stream::once(part)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition, "{refusal}");
    let ask = pb::VoteRequest {
        envelope,
        vote: Some(pb::Vote { term: u64::MAX, committed: false, ..vote }),
        last_log_id: id(term, u64::MAX),
        leadership_transfer: true,
    };
    assert_eq!(client.vote(ask).await.unwrap_err().code(), Code::InvalidArgument);
    let applied = put(&leader.group(), "put b 2").await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "b=2"]);
}

/// S11: the first message of an append stream does not vouch for the later ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_later_message_of_an_append_stream_that_names_others_is_refused() {
    let fleet = Fleet::form(3).await;
    let leader = fleet.leader().await;
    let applied = put(&leader.group(), "put a 1").await;
    fleet.converged(applied.index).await;
    let target = fleet.follower().await;
    target.host.start_group(3, "more", Words { level: 1 }).await.unwrap();
    let term = leader.group().status().term;
    let envelope = envelope(leader, target);
    let first = pb::AppendRequest {
        envelope: Some(envelope.clone()),
        vote: Some(pb::Vote { term, node_id: leader.id(), committed: true }),
        ..pb::AppendRequest::default()
    };
    let third = fleet.servers.iter().find(|it| ![leader.id(), target.id()].contains(&it.id()));
    let another_group = pb::Envelope { group: 3, ..envelope };
    let another_sender = self::envelope(third.unwrap(), target);
    let mut client = client(target).await;
    for other in [another_group, another_sender] {
        let later = pb::AppendRequest { envelope: Some(other), ..first.clone() };
        let stream = tokio_stream::iter([first.clone(), later]);
        let mut replies = client.append(stream).await.unwrap().into_inner();
        assert!(replies.message().await.unwrap().is_some(), "the first message is a good one");
        let refusal = replies.message().await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
    }
    let applied = put(&leader.group(), "put b 2").await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "b=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_needs_a_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("a"), Setup::default()).await;
    let refused = server.host.start_group(2, "words", Words { level: 1 }).await;
    assert!(matches!(refused, Err(StartGroupError::NoMesh)));
}

#[tokio::test]
async fn a_data_directory_that_is_not_whole_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, other) = (dir.path().join("ours"), dir.path().join("other"));
    let raft = ours.join("raft");
    drop(open(&ours).await.unwrap());
    drop(open(&other).await.unwrap());
    unlocked(&ours).await;
    unlocked(&other).await;

    fs::rename(&raft, dir.path().join("kept")).unwrap();
    assert!(matches!(open(&ours).await, Err(OpenError::StoreMissing(_))));
    assert!(!raft.exists(), "nothing is made on a refusal");
    fs::create_dir(&raft).unwrap();
    assert!(matches!(open(&ours).await, Err(OpenError::StoreMissing(_))));
    assert_eq!(fs::read_dir(&raft).unwrap().count(), 0, "nothing is made on a refusal");

    fs::remove_dir(&raft).unwrap();
    fs::rename(other.join("raft"), &raft).unwrap();
    assert!(matches!(open(&ours).await, Err(OpenError::StoreSwapped { .. })));
    unlocked(&ours).await;
    fs::remove_dir_all(&raft).unwrap();
    fs::rename(dir.path().join("kept"), &raft).unwrap();
    open(&ours).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_state_is_refused_rather_than_rebuilt_from_a_purged_log() {
    let mut fleet = Fleet::form(1).await;
    put(&fleet.servers[0].group(), "put a 1").await;
    let path = fleet.servers.remove(0).stop().await;
    fs::remove_dir_all(path.join("data")).unwrap();
    let refused = open(&path).await.unwrap_err();
    assert!(matches!(refused, OpenError::StoreMissing("data")), "{refused}");
    assert!(!path.join("data").exists(), "nothing is made on a refusal");
}

async fn open(path: &Path) -> Result<Host, OpenError> {
    Host::open(Mesh::open(unlocked(path).await, config()), Timing::quick())
}

/// The data directory, once its last user in this process is gone.
async fn unlocked(path: &Path) -> DataDir {
    let services = BTreeSet::from(["data".to_owned()]);
    until("the lock", || DataDir::open(path, &services, None).ok()).await
}

fn config() -> MeshConfig {
    MeshConfig {
        advertise: "127.0.0.1:7400".parse().unwrap(),
        seeds: Vec::new(),
        awaits_forming: true,
        version: "test".to_owned(),
    }
}

async fn client(server: &Server) -> RaftClient<Channel> {
    RaftClient::connect(format!("http://{}", server.address)).await.unwrap()
}

/// The envelope of a valid message of the group.
fn envelope(source: &Server, target: &Server) -> pb::Envelope {
    let sender = source.host.identity();
    pb::Envelope {
        mesh_id: sender.mesh_id.unwrap().to_string(),
        group: 2,
        source_id: source.id(),
        target_id: target.id(),
        target_store_id: 0,
        source_epoch: sender.boot_epoch,
        source_start: sender.start,
        target_start: target.host.identity().start,
    }
}
