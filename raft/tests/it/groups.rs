//! Electing, writing and reading.

use std::time::Duration;

use bytes::Bytes;
use mesh::Hint;
use proto::quorate::v1::{HostedGroupsRequest, mesh_client::MeshClient};
use raft::{HostError, Quorum, ReadError, Role, StoredReplica, WriteError};

use crate::fleet::{
    DEADLINE, Fleet, Server, Setup, Words, put, rows, spawn, until, until_role, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn one_server_alone_writes_reads_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alone");
    let server = Server::start(&path, Setup::default()).await;
    let formation = server.host.mesh().form_alone().unwrap();
    assert_eq!(server.host.mesh().form_alone().unwrap(), formation);
    let group = server.start_group().await;
    assert!(group.is_blank());
    group.initialize(&[server.member()]).await.unwrap();
    let applied = group.write(Bytes::from("put a 1"), DEADLINE).await.unwrap();
    let status = group.status();
    assert_eq!((status.leader, status.voted_for), (Some(server.id()), server.id()));
    assert_eq!(applied.reply, format!("put a 1 at {}", applied.index));
    assert!(group.read_barrier(DEADLINE).await.unwrap() >= applied.index);
    assert_eq!(rows(&group), ["a=1"]);
    assert!(!group.is_blank());
    drop(group);
    let path = server.stop().await;

    let server = Server::start(&path, Setup::default()).await;
    let stored = server.host.stored_replica(2).unwrap();
    let expected = StoredReplica { term: status.term, last_index: applied.index, is_blank: false };
    assert_eq!(stored, Some(expected));
    assert_eq!(server.host.stored_replica(3).unwrap(), None);
    server.host.make_room(3, "more").await.unwrap();
    let blank = StoredReplica { term: 0, last_index: 0, is_blank: true };
    assert_eq!(server.host.stored_replica(3).unwrap(), Some(blank));
    assert_eq!(server.host.mesh().formation().borrow().as_ref(), Some(&formation));
    assert_eq!(server.host.groups_on_disk().unwrap(), [2, 3]);
    let group = server.start_group().await;
    assert_eq!(rows(&group), ["a=1"], "applied before the group is handed out");
    group.initialize(&[server.member()]).await.unwrap();
    put(&group, "put b 2").await;
    assert_eq!(rows(&group), ["a=1", "b=2"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_a_follower_is_read_everywhere() {
    let fleet = Fleet::form(3).await;
    let follower = fleet.follower().await;
    let applied = put(&follower.group(), "put a 1").await;
    for server in &fleet.servers {
        let group = server.group();
        assert!(group.read_barrier(DEADLINE).await.unwrap() >= applied.index);
        assert_eq!(rows(&group), ["a=1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_a_follower_is_in_its_own_rows_at_once() {
    let fleet = Fleet::form(3).await;
    let follower = fleet.follower().await.group();
    let mut expected = Vec::new();
    for number in 0..50 {
        put(&follower, &format!("put {number:02} x")).await;
        expected.push(format!("{number:02}=x"));
        assert_eq!(rows(&follower), expected);
    }
}

/// A reply need not fit into a message between servers, since every replica computes it.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_any_size_is_the_same_from_every_server() {
    let fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    for server in &fleet.servers {
        for bytes in [1_000, 2 << 20, 70 << 20] {
            let answered = put(&server.group(), &format!("answer {bytes}")).await;
            assert_eq!(answered.reply.len(), bytes);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_on_all_servers_lose_nothing_and_repeat_nothing() {
    let fleet = Fleet::form(3).await;
    fleet.leader().await;
    let mut writers = Vec::new();
    for number in 0..150 {
        let group = fleet.servers[number % 3].group();
        writers.push(spawn(async move {
            let command = Bytes::from(format!("add key{number}"));
            (number, group.write(command, DEADLINE).await)
        }));
    }
    let mut last = 0;
    let mut acknowledged = Vec::new();
    for writer in writers {
        if let (number, Ok(applied)) = within(writer).await.unwrap() {
            last = last.max(applied.index);
            acknowledged.push(format!("key{number}=x"));
        }
    }
    assert!(acknowledged.len() > 100, "{} acknowledged", acknowledged.len());
    let rows = fleet.converged(last).await;
    assert!(rows.iter().all(|row| row.ends_with("=x")), "nothing was applied twice: {rows:?}");
    for row in acknowledged {
        assert!(rows.contains(&row), "{row} is lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_on_a_follower_never_reads_the_past() {
    let fleet = Fleet::form(3).await;
    let (leader, follower) = (fleet.leader().await.group(), fleet.follower().await.group());
    for round in 0..30 {
        put(&leader, &format!("put a {round}")).await;
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let follower = follower.clone();
                spawn(async move {
                    follower.read_barrier(DEADLINE).await.unwrap();
                    rows(&follower)
                })
            })
            .collect();
        for reader in readers {
            assert_eq!(within(reader).await.unwrap(), [format!("a={round}")]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_confirms_itself_and_a_follower_does_not() {
    let fleet = Fleet::form(3).await;
    let leader = fleet.leader().await.group();
    let term = leader.confirm_leadership(DEADLINE).await.unwrap();
    assert!(term > 0);
    assert!(leader.status().quorum_age.is_some());
    assert!(fleet.follower().await.group().confirm_leadership(DEADLINE).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_stops_and_another_goes_on() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let old = fleet.leader().await.id();
    fleet.stop(old).await;
    let group = fleet.servers[0].group();
    let applied = put(&group, "put b 2").await;
    assert_ne!(fleet.leader().await.id(), old);
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "b=2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_acknowledged_and_rows_are_still_read() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let survivor = fleet.leader().await.id();
    let others: Vec<u64> =
        fleet.servers.iter().map(Server::id).filter(|id| *id != survivor).collect();
    for id in others {
        fleet.stop(id).await;
    }
    let group = fleet.servers[0].group();
    let error = group.write(Bytes::from("put b 2"), Duration::from_secs(3)).await.unwrap_err();
    assert!(!matches!(error, WriteError::Stopped | WriteError::TooLarge { .. }), "{error}");
    assert!(group.read_barrier(Duration::from_millis(300)).await.is_err());
    assert!(rows(&group).contains(&"a=1".to_owned()));
}

/// The server that is left notices, whether it led or followed, and requests fail with the reason
/// long before their deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_quorum_is_known_to_its_leader_and_to_its_follower() {
    for leads in [true, false] {
        let mut fleet = Fleet::form(3).await;
        put(&fleet.leader().await.group(), "put a 1").await;
        for server in &fleet.servers {
            let group = server.group();
            let held = || {
                let status = group.status();
                (status.quorum == Quorum::Held && status.quorum_age.is_some()).then_some(())
            };
            until("a quorum is heard of", held).await;
        }
        let left = if leads { fleet.leader().await.id() } else { fleet.follower().await.id() };
        let others: Vec<u64> =
            fleet.servers.iter().map(Server::id).filter(|id| *id != left).collect();
        for id in others {
            fleet.stop(id).await;
        }
        let group = fleet.servers[0].group();
        let mut statuses = group.watch_status();
        let lost = within(statuses.wait_for(|it| it.quorum == Quorum::Lost)).await.unwrap().clone();
        assert!(!lost.is_led(), "{lost:?}");
        let there: Vec<u64> =
            lost.members.iter().filter(|it| it.is_heard).map(|it| it.node_id).collect();
        assert_eq!(there, [left], "the dead are not taken for living");
        let refused = group.write(Bytes::from("put b 2"), DEADLINE).await.unwrap_err();
        let (WriteError::NoQuorum(reason) | WriteError::Unconfirmed(reason)) = &refused else {
            panic!("{refused}")
        };
        assert_eq!(reason.voters.len(), 3);
        assert!(refused.to_string().starts_with("no quorum: last heard from a majority"));
        let refused = group.read_barrier(DEADLINE).await.unwrap_err();
        assert!(matches!(refused, ReadError::NoQuorum(_)), "{refused}");
        let told = group.describe();
        assert!(told.no_quorum.starts_with("no quorum"), "{told:?}");
        assert_eq!(told.members.iter().filter(|it| it.silent).count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_under_way_when_the_quorum_goes_does_not_wait_for_its_deadline() {
    let mut fleet = Fleet::form(3).await;
    let leader = fleet.leader().await;
    let (group, left) = (leader.group(), leader.id());
    put(&group, "put a 1").await;
    let others: Vec<u64> = fleet.servers.iter().map(Server::id).filter(|id| *id != left).collect();
    for id in others {
        fleet.stop(id).await;
    }
    // The leader's lease still holds, so the command goes into its log.
    let refused = group.write(Bytes::from("put b 2"), DEADLINE).await.unwrap_err();
    assert!(matches!(refused, WriteError::Unconfirmed(_) | WriteError::NoQuorum(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_fails_nobody_while_a_majority_is_there() {
    let mut fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let old = fleet.leader().await.id();
    let follower = fleet.follower().await.group();
    let writer = spawn(async move {
        for round in 0..500 {
            let command = Bytes::from(format!("put a {round}"));
            match follower.write(command, DEADLINE).await {
                Ok(_) | Err(WriteError::OutcomeUnknown) => {}
                Err(error) => panic!("{round}: {error}"),
            }
        }
    });
    fleet.stop(old).await;
    within(writer).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_too_large_is_refused_at_once() {
    let fleet = Fleet::form(1).await;
    let refused = fleet.servers[0].group().write(vec![0; 9 << 20].into(), DEADLINE).await;
    assert!(matches!(refused, Err(WriteError::TooLarge { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_fails_ends_the_host() {
    let mut fleet = Fleet::form(1).await;
    let server = fleet.servers.remove(0);
    let group = server.group();
    until_role(&group, Role::Leader).await;
    let refused = group.write(Bytes::from("fail"), DEADLINE).await;
    assert!(refused.is_err());
    let error = server.failed().await;
    assert!(matches!(error, HostError::Group { group: 2, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_group_can_be_started_again() {
    let fleet = Fleet::form(3).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    let follower = fleet.follower().await;
    let group = follower.group();
    let again = follower.host.start_group(2, "words", Words { level: 1 }).await;
    assert!(matches!(again, Err(raft::StartGroupError::Running)));
    group.stop().await;
    assert!(follower.host.group(2).is_none());
    let mut mesh = MeshClient::connect(format!("http://{}", follower.address)).await.unwrap();
    let hosted = mesh.hosted_groups(HostedGroupsRequest::default()).await.unwrap().into_inner();
    assert_eq!(hosted.groups, [], "a stopped replica is not told of");
    let refused = group.write(Bytes::from("put b 2"), DEADLINE).await;
    assert!(matches!(refused, Err(WriteError::Stopped)));
    let renamed = follower.host.start_group(2, "other", Words { level: 1 }).await;
    assert!(matches!(renamed, Err(raft::StartGroupError::OtherNamespace { .. })));
    let group = follower.start_group().await;
    let applied = put(&fleet.leader().await.group(), "put c 3").await;
    until("the restarted group", || (group.status().applied >= applied.index).then_some(())).await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "c=3"]);
}

/// As behind a firewall that lets connections out but not in.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_reaches_hands_over() {
    let fleet = Fleet::form(3).await;
    let leader = fleet.leader().await;
    put(&leader.group(), "put a 1").await;
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let others: Vec<_> = fleet.servers.iter().filter(|it| it.id() != leader.id()).collect();
    for server in &others {
        let elsewhere = Hint { address: nobody, moves: u64::MAX, ..leader.hint() };
        assert!(server.host.mesh().book().learn(elsewhere));
    }
    let next = until("another leader", || {
        let status = others[0].group().status();
        status.leader.filter(|next| *next != leader.id())
    })
    .await;
    assert!(others.iter().any(|it| it.id() == next));
    for server in &others {
        put(&server.group(), "put b 2").await;
    }
}
