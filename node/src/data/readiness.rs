//! Whether the data service can serve, and if not, what it waits for.

use raft::{Quorum, Role, Status};

/// Whether the node serves every group that it hosts.
///
/// Readiness is for what routes traffic. The mesh does not depend on it: a node that is not ready
/// is still found and dialed, and it still votes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// How many groups the node hosts.
    pub groups: usize,
    /// What is waited for, in words. Empty when the node is ready.
    pub reasons: Vec<String>,
}

impl Ready {
    /// Of a service that has not looked at its groups yet.
    pub(crate) fn starting() -> Self {
        Self { groups: 0, reasons: vec!["the data service is starting".to_owned()] }
    }
}

/// Whether the node has orders, and if not, what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrdersState {
    /// Told what to host, by DISCO, by the formation or by what the disk remembers.
    Known,
    WaitsForDisco,
    WaitsToBeFormed,
    /// The other servers formed a mesh without this one.
    LeftOut,
}

/// How many committed entries a ready replica may still have to apply.
const READY_LAG: u64 = 1_000;

pub(crate) fn readiness<'a>(
    orders_state: OrdersState,
    groups: impl IntoIterator<Item = (&'a str, Status)>,
    waiting: impl IntoIterator<Item = &'a str>,
) -> Ready {
    let mut ready = Ready::default();
    for (namespace, status) in groups {
        ready.groups += 1;
        ready.reasons.extend(not_ready_reason(namespace, &status));
    }
    for namespace in waiting {
        let reason = format!("namespace {namespace} is not started");
        ready.reasons.push(reason);
    }
    match orders_state {
        OrdersState::Known if ready.groups == 0 && ready.reasons.is_empty() => {
            ready.reasons.push("DISCO has given this node no namespace to host yet".to_owned());
        }
        OrdersState::Known => {}
        OrdersState::WaitsForDisco => ready.reasons.push(
            "no DISCO server has accepted this node, and it has hosted no group before".to_owned(),
        ),
        OrdersState::WaitsToBeFormed => {
            let reason = "waits to be formed: run `quorate init` once, with all servers";
            ready.reasons.push(reason.to_owned());
        }
        OrdersState::LeftOut => ready.reasons.push(
            "the servers that this one was told of formed a mesh without it; if it was among them, \
             start it with the data directory that it had"
                .to_owned(),
        ),
    }
    ready
}

fn not_ready_reason(namespace: &str, status: &Status) -> Option<String> {
    if let Some(doubt) = status.doubt {
        return Some(format!("namespace {namespace} {doubt}"));
    }
    if status.members.is_empty() {
        return Some(format!("namespace {namespace} waits for its leader"));
    }
    // The reason leaves out for how long, since it would otherwise change every second.
    if status.quorum != Quorum::Held {
        return Some(format!("namespace {namespace} has no quorum"));
    }
    if status.leader.is_none() {
        return Some(format!("namespace {namespace} has no leader"));
    }
    let behind = status.committed.saturating_sub(status.applied);
    match status.role {
        Role::Stopped => Some(format!("namespace {namespace} is stopped")),
        Role::Leader | Role::Follower | Role::Learner | Role::Candidate if behind > READY_LAG => {
            Some(format!("namespace {namespace} is {behind} entries behind"))
        }
        Role::Leader | Role::Follower | Role::Learner | Role::Candidate => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use raft::MemberStatus;

    use super::*;

    #[test]
    fn a_node_whose_groups_have_leaders_is_ready() {
        let ready = readiness(OrdersState::Known, [("default", status())], []);
        let expected = Ready { groups: 1, reasons: Vec::new() };
        assert_eq!(ready, expected);
    }

    #[test]
    fn a_node_without_groups_serves_nobody() {
        assert!(!readiness(OrdersState::Known, [], []).reasons.is_empty());
        assert!(!readiness(OrdersState::WaitsForDisco, [], []).reasons.is_empty());
        assert!(!readiness(OrdersState::WaitsToBeFormed, [], []).reasons.is_empty());
        assert!(!readiness(OrdersState::LeftOut, [], []).reasons.is_empty());
    }

    #[test]
    fn a_group_without_a_leader_is_named() {
        let mut leaderless = status();
        leaderless.leader = None;
        let ready = readiness(OrdersState::Known, [("a", status()), ("b", leaderless)], []);
        assert_eq!(ready.reasons, ["namespace b has no leader"]);
    }

    /// A follower still names the leader that it lost, and a leader that is cut off names itself.
    #[test]
    fn a_group_without_a_quorum_is_named_whoever_seems_to_lead() {
        for quorum in [Quorum::Electing, Quorum::Lost] {
            for role in [Role::Leader, Role::Follower, Role::Learner] {
                let lost = Status { role, quorum, ..status() };
                let ready = readiness(OrdersState::Known, [("a", lost)], []);
                assert_eq!(ready.reasons, ["namespace a has no quorum"]);
            }
        }
    }

    #[test]
    fn a_blank_replica_waits_for_its_leader() {
        let mut blank = status();
        blank.members.clear();
        let ready = readiness(OrdersState::Known, [("a", blank)], []);
        assert_eq!(ready.reasons, ["namespace a waits for its leader"]);
    }

    #[test]
    fn a_replica_that_is_behind_says_how_far() {
        let mut behind = status();
        behind.committed = 5_000;
        let ready = readiness(OrdersState::Known, [("a", behind)], []);
        assert_eq!(ready.reasons, ["namespace a is 4990 entries behind"]);
    }

    #[test]
    fn a_group_that_is_not_started_is_named() {
        let ready = readiness(OrdersState::Known, [], ["a"]);
        assert_eq!(ready.reasons, ["namespace a is not started"]);
    }

    fn status() -> Status {
        Status {
            role: Role::Follower,
            term: 1,
            voted_for: 1,
            leader: Some(1),
            last_index: 10,
            committed: 10,
            applied: 10,
            members: vec![MemberStatus {
                node_id: 1,
                store_id: 1,
                voter: true,
                lag: None,
                heard: None,
                is_heard: true,
            }],
            membership_log_id: Some((1, 0)),
            joint: false,
            quorum: Quorum::Held,
            quorum_age: None,
            without_quorum: Duration::ZERO,
            doubt: None,
            purged: 0,
        }
    }
}
