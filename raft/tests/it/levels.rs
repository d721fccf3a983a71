//! A rolling upgrade: a command of the later version is refused until the last voter is upgraded,
//! and a replica that is too old for its group stops.

use bytes::Bytes;
use raft::{HostError, StartGroupError, WriteError};

use crate::fleet::{DEADLINE, Fleet, GROUP, Server, Words, put, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn the_level_is_raised_with_the_last_voter() {
    let mut fleet = Fleet::form_of_levels(&[2, 2, 1]).await;
    put(&fleet.leader().await.group(), "put a 1").await;
    for server in &fleet.servers {
        let early = server.group().write(Bytes::from("shout b"), DEADLINE).await.unwrap_err();
        let refused = matches!(early, WriteError::TooNew { needs: Some(2), level: 1 });
        assert!(refused, "{early}");
    }
    let old = fleet.servers[2].id();
    let path = fleet.stop(old).await;
    let applied = put(&fleet.leader().await.group(), "put c 1").await;
    assert_eq!(fleet.servers[0].group().level(), 1, "not every voter knows more");
    let server = Server::start(&path, fleet.setup.clone()).await;
    server.start_group_of(2).await;
    fleet.servers.push(server);
    fleet.converged(applied.index).await;
    for server in &fleet.servers {
        until("the level is raised", || (server.group().level() == 2).then_some(())).await;
    }
    put(&fleet.follower().await.group(), "shout d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_the_new_level_waits_until_a_new_group_is_raised() {
    let fleet = Fleet::form_of_levels(&[2, 2, 2]).await;
    put(&fleet.leader().await.group(), "shout a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_too_old_for_its_group_stops_and_says_so() {
    let mut fleet = Fleet::form_of_levels(&[2, 2, 2]).await;
    let leader = fleet.leader().await.group();
    until("the level is raised", || (leader.level() == 2).then_some(())).await;
    let applied = put(&leader, "shout a").await;
    fleet.converged(applied.index).await;

    // A server of the old version does not start if its state has the level.
    let id = fleet.follower().await.id();
    let path = fleet.stop(id).await;
    let server = Server::start(&path, fleet.setup.clone()).await;
    let refused = server.host.start_group(GROUP, "words", Words { level: 1 }).await.unwrap_err();
    assert!(matches!(refused, StartGroupError::Outdated(_)), "{refused}");
    assert!(refused.to_string().contains("upgrade this server"), "{refused}");
    server.stop().await;

    // A running server of the old version ends when it meets the level.
    let mesh = fleet.servers[0].host.identity().mesh_id.unwrap();
    fleet.setup.seeds = vec![fleet.servers[0].address];
    let path = fleet.dir.path().join("learner");
    let learner = Server::start(&path, fleet.setup.clone()).await;
    learner.host.mesh().adopt_mesh(&mesh).unwrap();
    learner.start_group_of(1).await;
    let leader = fleet.leader().await;
    leader.host.mesh().book().learn(learner.hint());
    let leader = leader.group();
    within(leader.add_learner(learner.member(), None)).await.unwrap();
    let ended = learner.failed().await;
    assert!(matches!(ended, HostError::Outdated { .. }) && ended.is_refusal(), "{ended}");
    assert!(ended.to_string().contains("upgrade this server"), "{ended}");
    put(&fleet.leader().await.group(), "put b 1").await;
}
