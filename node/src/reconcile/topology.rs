//! What DISCO has told about groups and nodes, and for how long.
//!
//! How long a node has been down is measured here, on this machine's monotonic clock, from the
//! moment DISCO first said so. Wall clocks are never compared. The measurement ends with the
//! session, so no node is dead while DISCO is away or without a quorum.

use std::{collections::BTreeMap, time::Duration};

use mesh::{GroupId, NodeId};
use tokio::time::Instant;

use super::{Advice, AdvisedNode, Presence};
use crate::session::{Assignment, NodeState, Orders};

/// The groups and nodes of the latest orders, and since when each node has its state.
#[derive(Clone, Debug, Default)]
pub(crate) struct Topology {
    assignments: BTreeMap<GroupId, Assignment>,
    nodes: BTreeMap<NodeId, ObservedNode>,
}

#[derive(Clone, Debug)]
struct ObservedNode {
    state: NodeState,
    since: Instant,
    zone: String,
}

impl Topology {
    /// Takes over what DISCO says now.
    pub(crate) fn follow(&mut self, orders: &Orders, now: Instant) {
        if !orders.fresh {
            self.forget();
            return;
        }
        self.assignments.clone_from(&orders.assignments);
        let before = std::mem::take(&mut self.nodes);
        for (id, peer) in &orders.peers {
            let since = before
                .get(id)
                .filter(|seen| seen.state == peer.state)
                .map_or(now, |seen| seen.since);
            let seen = ObservedNode { state: peer.state, since, zone: peer.zone.clone() };
            self.nodes.insert(*id, seen);
        }
    }

    /// Forgets everything: the session has ended, or its server has no quorum.
    pub(crate) fn forget(&mut self) {
        self.assignments.clear();
        self.nodes.clear();
    }

    /// Whether DISCO says nothing against a node: nodes that it does not know are not judged.
    pub(crate) fn may_lead(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_none_or(|seen| seen.state == NodeState::Up)
    }

    /// What DISCO advises about a group; none if it does not know the group.
    pub(crate) fn advice(&self, group: GroupId, now: Instant) -> Option<Advice> {
        let assignment = self.assignments.get(&group)?;
        Some(Advice {
            replicas: assignment.replicas.clone(),
            voters_wanted: assignment.voters_wanted,
            nodes: self.nodes.iter().map(|(id, seen)| (*id, seen.advised(now))).collect(),
        })
    }
}

impl ObservedNode {
    fn advised(&self, now: Instant) -> AdvisedNode {
        let presence = match self.state {
            NodeState::Up => Presence::Up,
            NodeState::Away => Presence::Away,
            // A person has removed the node, so it is not waited for.
            NodeState::Removed => Presence::Down(Duration::MAX),
            NodeState::Down => Presence::Down(now.saturating_duration_since(self.since)),
        };
        AdvisedNode { presence, zone: self.zone.clone() }
    }
}

#[cfg(test)]
mod tests {
    use mesh::MeshId;

    use super::*;
    use crate::{
        namespaces::{DEFAULT_GROUP, DEFAULT_NAMESPACE},
        session::Peer,
    };

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_node_is_down_since_disco_first_said_so() {
        let start = Instant::now();
        let mut topology = Topology::default();
        topology.follow(&orders(NodeState::Up), start);
        topology.follow(&orders(NodeState::Down), start + MINUTE);
        topology.follow(&orders(NodeState::Down), start + 2 * MINUTE);
        assert_eq!(presence(&topology, start + 3 * MINUTE), Presence::Down(2 * MINUTE));
    }

    #[test]
    fn coming_back_starts_the_measurement_anew() {
        let start = Instant::now();
        let mut topology = Topology::default();
        topology.follow(&orders(NodeState::Down), start);
        topology.follow(&orders(NodeState::Up), start + MINUTE);
        assert_eq!(presence(&topology, start + MINUTE), Presence::Up);
        topology.follow(&orders(NodeState::Down), start + 2 * MINUTE);
        assert_eq!(presence(&topology, start + 3 * MINUTE), Presence::Down(MINUTE));
    }

    #[test]
    fn a_disco_without_a_quorum_gives_no_advice() {
        let start = Instant::now();
        let mut topology = Topology::default();
        topology.follow(&orders(NodeState::Down), start);
        let stale = Orders { fresh: false, ..orders(NodeState::Down) };
        topology.follow(&stale, start + MINUTE);
        assert_eq!(topology.advice(DEFAULT_GROUP, start + MINUTE), None);
        topology.follow(&orders(NodeState::Down), start + 2 * MINUTE);
        assert_eq!(presence(&topology, start + 3 * MINUTE), Presence::Down(MINUTE));
    }

    #[test]
    fn a_group_that_disco_does_not_know_gets_no_advice() {
        let start = Instant::now();
        let mut topology = Topology::default();
        topology.follow(&orders(NodeState::Up), start);
        assert_eq!(topology.advice(DEFAULT_GROUP + 1, start), None);
    }

    #[test]
    fn only_a_node_that_is_known_to_be_up_or_not_known_may_lead() {
        let mut topology = Topology::default();
        assert!(topology.may_lead(7));
        let states = [NodeState::Up, NodeState::Away, NodeState::Down, NodeState::Removed];
        let may_lead = states.map(|state| {
            topology.follow(&orders(state), Instant::now());
            topology.may_lead(7)
        });
        assert_eq!(may_lead, [true, false, false, false]);
    }

    fn presence(topology: &Topology, now: Instant) -> Presence {
        topology.advice(DEFAULT_GROUP, now).unwrap().nodes[&7].presence
    }

    fn orders(state: NodeState) -> Orders {
        let assignment = Assignment {
            group: DEFAULT_GROUP,
            namespace: DEFAULT_NAMESPACE.to_owned(),
            first_voters: Vec::new(),
            replicas: Vec::new(),
            voters_wanted: 3,
            formed: true,
        };
        let peer = Peer {
            node_id: 7,
            name: "n7".to_owned(),
            mesh_address: None,
            kv_address: None,
            zone: String::new(),
            state,
        };
        Orders {
            mesh: MeshId::generate(),
            assignments: BTreeMap::from([(DEFAULT_GROUP, assignment)]),
            peers: BTreeMap::from([(7, peer)]),
            fresh: true,
        }
    }
}
