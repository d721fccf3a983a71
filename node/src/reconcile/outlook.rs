//! What DISCO has told about groups and nodes, and for how long.
//!
//! How long a node has been down is measured here, on one machine's monotonic clock, from the
//! moment DISCO first said so; a session that ends ends the measurement. Wall clocks are never
//! compared, and while DISCO is away or without a quorum nobody is dead.

use std::{collections::BTreeMap, time::Duration};

use mesh::{GroupId, NodeId};
use tokio::time::Instant;

use super::{Advice, Presence, Standing};
use crate::session::{Assignment, NodeState, Orders};

/// The latest orders with a memory of since when nodes are down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlook {
    assignments: BTreeMap<GroupId, Assignment>,
    nodes: BTreeMap<NodeId, Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    state: NodeState,
    since: Instant,
    zone: String,
}

impl Outlook {
    /// Takes what DISCO says now.
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
            let seen = Seen { state: peer.state, since, zone: peer.zone.clone() };
            self.nodes.insert(*id, seen);
        }
    }

    /// Knows nothing from here on: the session ended.
    pub(crate) fn forget(&mut self) {
        self.assignments.clear();
        self.nodes.clear();
    }

    /// What DISCO advises about a group; none if it does not know the group.
    pub(crate) fn advice(&self, group: GroupId, now: Instant) -> Option<Advice> {
        let assignment = self.assignments.get(&group)?;
        Some(Advice {
            replicas: assignment.replicas.clone(),
            voters_wanted: assignment.voters_wanted,
            nodes: self.nodes.iter().map(|(id, seen)| (*id, seen.standing(now))).collect(),
        })
    }
}

impl Seen {
    fn standing(&self, now: Instant) -> Standing {
        let presence = match self.state {
            NodeState::Up => Presence::Up,
            NodeState::Away => Presence::Away,
            // A person has said so: there is nothing to wait for.
            NodeState::Removed => Presence::Down(Duration::MAX),
            NodeState::Down => Presence::Down(now.saturating_duration_since(self.since)),
        };
        Standing { presence, zone: self.zone.clone() }
    }
}

#[cfg(test)]
mod tests {
    use mesh::MeshId;

    use super::*;
    use crate::session::Peer;

    const GROUP: GroupId = 2;
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_node_is_down_since_disco_first_said_so() {
        let start = Instant::now();
        let mut outlook = Outlook::default();
        outlook.follow(&orders(NodeState::Up), start);
        outlook.follow(&orders(NodeState::Down), start + MINUTE);
        outlook.follow(&orders(NodeState::Down), start + 2 * MINUTE);
        assert_eq!(presence(&outlook, start + 3 * MINUTE), Presence::Down(2 * MINUTE));
    }

    #[test]
    fn coming_back_starts_the_measurement_anew() {
        let start = Instant::now();
        let mut outlook = Outlook::default();
        outlook.follow(&orders(NodeState::Down), start);
        outlook.follow(&orders(NodeState::Up), start + MINUTE);
        assert_eq!(presence(&outlook, start + MINUTE), Presence::Up);
        outlook.follow(&orders(NodeState::Down), start + 2 * MINUTE);
        assert_eq!(presence(&outlook, start + 3 * MINUTE), Presence::Down(MINUTE));
    }

    #[test]
    fn a_disco_without_a_quorum_gives_no_advice() {
        let start = Instant::now();
        let mut outlook = Outlook::default();
        outlook.follow(&orders(NodeState::Down), start);
        let stale = Orders { fresh: false, ..orders(NodeState::Down) };
        outlook.follow(&stale, start + MINUTE);
        assert_eq!(outlook.advice(GROUP, start + MINUTE), None);
        outlook.follow(&orders(NodeState::Down), start + 2 * MINUTE);
        assert_eq!(presence(&outlook, start + 3 * MINUTE), Presence::Down(MINUTE));
    }

    #[test]
    fn a_group_that_disco_does_not_know_gets_no_advice() {
        let start = Instant::now();
        let mut outlook = Outlook::default();
        outlook.follow(&orders(NodeState::Up), start);
        assert_eq!(outlook.advice(GROUP + 1, start), None);
    }

    fn presence(outlook: &Outlook, now: Instant) -> Presence {
        outlook.advice(GROUP, now).unwrap().nodes[&7].presence
    }

    fn orders(state: NodeState) -> Orders {
        let assignment = Assignment {
            group: GROUP,
            namespace: "default".to_owned(),
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
            assignments: BTreeMap::from([(GROUP, assignment)]),
            peers: BTreeMap::from([(7, peer)]),
            fresh: true,
        }
    }
}
