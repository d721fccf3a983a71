//! Learners, voters and leadership transfer.

use std::collections::BTreeSet;

use mesh::Member;
use raft::{ChangeError, Role};

use crate::fleet::{DEADLINE, Fleet, Server, put, until, until_role};

#[tokio::test(flavor = "multi_thread")]
async fn one_voter_grows_to_three_and_shrinks_again() {
    let mut fleet = Fleet::form(1).await;
    let founder = fleet.servers[0].group();
    put(&founder, "put a 1").await;
    let mesh = fleet.servers[0].host.identity().mesh_id.unwrap();
    fleet.setup.seeds = vec![fleet.servers[0].address];
    for number in 1..=2 {
        let path = fleet.dir.path().join(format!("joiner{number}"));
        let server = Server::start(&path, fleet.setup.clone()).await;
        server.host.mesh().adopt_mesh(&mesh).unwrap();
        // DISCO, or a formation, would tell the leader this address.
        fleet.servers[0].host.mesh().book().learn(server.hint());
        server.start_group().await;
        founder.add_learner(server.member(), None).await.unwrap();
        fleet.servers.push(server);
    }
    let applied = put(&founder, "put b 2").await;
    fleet.converged(applied.index).await;
    until_role(&fleet.servers[1].group(), Role::Learner).await;

    let status = founder.status();
    assert!(status.members.iter().all(|member| member.lag.is_some()));
    let voters: BTreeSet<u64> = fleet.servers.iter().map(Server::id).collect();
    let stale = Some((1, 0));
    let stranger = Member { node_id: 12345, store_id: 1 };
    let refused = founder.add_learner(stranger, stale).await;
    assert!(matches!(refused, Err(ChangeError::MembershipChanged)), "{refused:?}");
    let refused = founder.change_voters(voters.clone(), stale).await;
    assert!(matches!(refused, Err(ChangeError::MembershipChanged)), "{refused:?}");
    founder.change_voters(voters, status.membership_log_id).await.unwrap();
    let status = founder.status();
    assert!(!status.joint && status.members.iter().all(|member| member.voter), "{status:?}");

    let leaving = fleet.servers[2].id();
    let refused = founder.remove_member(leaving, None).await;
    assert!(matches!(refused, Err(ChangeError::Refused(_))), "a voter is not removed: {refused:?}");
    let voters = fleet.servers[..2].iter().map(Server::id).collect();
    founder.change_voters(voters, None).await.unwrap();
    let refused = founder.remove_member(leaving, stale).await;
    assert!(matches!(refused, Err(ChangeError::MembershipChanged)), "{refused:?}");
    founder.remove_member(leaving, founder.status().membership_log_id).await.unwrap();
    assert_eq!(founder.status().members.len(), 2);
    let applied = put(&founder, "put c 3").await;
    fleet.stop(leaving).await;
    assert_eq!(fleet.converged(applied.index).await, ["a=1", "b=2", "c=3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over() {
    let fleet = Fleet::form(3).await;
    let applied = put(&fleet.leader().await.group(), "put a 1").await;
    fleet.converged(applied.index).await;
    let (leader, target) = (fleet.leader().await, fleet.follower().await);
    leader.group().transfer_leader(target.id()).await.unwrap();
    until("the target to lead", || (target.group().status().role == Role::Leader).then_some(()))
        .await;
    put(&target.group(), "put b 2").await;

    let refused = leader.group().transfer_leader(target.id()).await;
    assert!(matches!(refused, Err(ChangeError::NotLeader { .. })), "{refused:?}");
    let refused = target.group().transfer_leader(12345).await;
    assert!(matches!(refused, Err(ChangeError::Refused(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn initializing_again_changes_nothing() {
    let fleet = Fleet::form(3).await;
    let leader = fleet.leader().await;
    let before = leader.group().status().membership_log_id;
    leader.group().initialize(&[leader.member()]).await.unwrap();
    put(&leader.group(), "put a 1").await;
    assert!(leader.group().read_barrier(DEADLINE).await.is_ok());
    assert_eq!(leader.group().status().membership_log_id, before);
    assert_eq!(leader.group().status().members.len(), 3);
}
