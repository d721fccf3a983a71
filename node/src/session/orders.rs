//! What DISCO orders, read from the wire.
//!
//! An address that cannot be read is left out and logged: a directive is a whole state, and one bad
//! address must not keep the node from following the rest.

use std::{collections::BTreeMap, net::SocketAddr};

use mesh::{GroupId, Hint, Member, MeshId, NodeId};
use proto::quorate::v1::{
    AddressHint, Directive, GroupRecord, Member as WireMember, MemberSummary,
};
use tracing::warn;

/// Everything that DISCO wants of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) mesh: MeshId,
    /// The groups that the node hosts, all of them.
    pub(crate) assignments: BTreeMap<GroupId, Assignment>,
    /// The nodes that hold replicas of those groups.
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    /// Whether the answering server had a quorum.
    pub(crate) fresh: bool,
}

/// A data group as DISCO decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) group: GroupId,
    pub(crate) namespace: String,
    /// Decided once, never changed.
    pub(crate) first_voters: Vec<Member>,
    /// Nodes that should hold a replica.
    pub(crate) replicas: Vec<Member>,
    pub(crate) voters_wanted: usize,
    /// Whether a leader of the group was ever reported.
    pub(crate) formed: bool,
}

/// A node, as DISCO knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) node_id: NodeId,
    pub(crate) name: String,
    pub(crate) mesh_address: Option<SocketAddr>,
    pub(crate) kv_address: Option<SocketAddr>,
    pub(crate) zone: String,
    pub(crate) state: NodeState,
}

/// How DISCO lists a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeState {
    Up,
    /// Stopping, or a state that this version does not know.
    Away,
    Down,
    /// Down, and a person has said that it will not come back.
    Removed,
}

pub(crate) fn from_proto(mesh: MeshId, directive: &Directive) -> Orders {
    Orders {
        mesh,
        assignments: directive
            .groups
            .iter()
            .map(|record| (record.group, assignment(record)))
            .collect(),
        peers: directive.members.iter().map(|summary| (summary.node_id, peer(summary))).collect(),
        fresh: directive.meta.as_ref().is_some_and(|meta| meta.stale_for_ms == 0),
    }
}

/// The address hints of a directive, for the book.
pub(crate) fn hints(directive: &Directive) -> impl Iterator<Item = Hint> + '_ {
    directive.addresses.iter().filter_map(hint)
}

fn hint(hint: &AddressHint) -> Option<Hint> {
    Some(Hint {
        node_id: hint.node_id,
        boot_epoch: hint.boot_epoch,
        start: hint.start,
        moves: hint.moves,
        address: address(&hint.address)?,
        services: hint.services.clone(),
    })
}

fn assignment(record: &GroupRecord) -> Assignment {
    Assignment {
        group: record.group,
        namespace: record.namespace.clone(),
        first_voters: record.first_voters.iter().map(member).collect(),
        replicas: record.replicas.iter().map(member).collect(),
        voters_wanted: record.voters_wanted.try_into().unwrap_or(usize::MAX),
        formed: record.term > 0,
    }
}

fn member(member: &WireMember) -> Member {
    Member { node_id: member.node_id, store_id: member.store_id }
}

fn peer(summary: &MemberSummary) -> Peer {
    Peer {
        node_id: summary.node_id,
        name: summary.name.clone(),
        mesh_address: address(&summary.mesh_address),
        kv_address: address(&summary.kv_address),
        zone: summary
            .locality
            .as_ref()
            .map(|locality| format!("{}/{}", locality.region, locality.zone))
            .unwrap_or_default(),
        state: match summary.state.as_str() {
            "up" => NodeState::Up,
            "down" => NodeState::Down,
            "removed" => NodeState::Removed,
            _ => NodeState::Away,
        },
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) if text.is_empty() => None,
        Err(_) => {
            warn!(address = text, "DISCO told an address that is not IP:PORT");
            None
        }
    }
}
