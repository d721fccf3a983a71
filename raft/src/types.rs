//! The types that openraft is parameterized with.

use std::fmt;

use bytes::Bytes;
use mesh::NodeId;
use openraft::impls::leader_id_std;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

openraft::declare_raft_types!(
    /// One leader per term (`leader_id_std`), so that a term identifies its leader and can serve
    /// for fencing.
    pub(crate) TypeConfig:
        D = Command,
        R = Reply,
        NodeId = NodeId,
        Node = Node,
        LeaderId = leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, Node>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type LeaderTerm = openraft::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type Metrics = openraft::RaftMetrics<TypeConfig>;

/// A command in an entry of the log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Machine(MachineCommand),
    /// Raises the level of the group: see [`crate::level`].
    RaiseLevel(u32),
}

/// A command of the state machine, opaque here.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct MachineCommand {
    pub(crate) bytes: Bytes,
    /// The level that a replica must know to apply it.
    pub(crate) level: u32,
    pub(crate) proposal: ProposalId,
}

/// The server that took a command from a client, and its number there. By this id the server finds
/// the reply.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub(crate) struct ProposalId {
    pub(crate) node_id: NodeId,
    pub(crate) number: u64,
}

/// The reply of the state machine to a command, opaque here.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Reply(pub(crate) Bytes);

/// What a membership holds of a member beside its id. Never an address.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) store_id: u64,
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderTerm::new(term), index)
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({self})")
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(command) => write!(f, "{} bytes", command.bytes.len()),
            Self::RaiseLevel(level) => write!(f, "level {level}"),
        }
    }
}

// openraft's `serde` feature requires these implementations. Nothing is stored or sent through
// serde.
impl Serialize for Command {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Machine(command) => serializer.serialize_bytes(&command.bytes),
            Self::RaiseLevel(level) => serializer.serialize_u32(*level),
        }
    }
}

impl<'de> Deserialize<'de> for Command {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?.into();
        Ok(Self::Machine(MachineCommand { bytes, ..MachineCommand::default() }))
    }
}

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Reply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| Self(bytes.into()))
    }
}
