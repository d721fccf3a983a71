//! Checks whether a message between servers is meant for this server.
//!
//! Membership names servers by id and store, and addresses are only hints, so a message can reach
//! the wrong server: if an address was reused, a disk was wiped, swapped or copied, or two meshes
//! were mixed up. Raft cannot notice that itself, so every message names its recipient.

use proto::quorate::v1 as pb;

use crate::{
    ids::{GroupId, MeshId, NodeId, node_hex},
    starts::Start,
};

/// The server that received a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipient<'a> {
    pub(crate) mesh: Option<&'a MeshId>,
    pub(crate) node_id: NodeId,
    pub(crate) store_id: u64,
    /// The random number of this start.
    pub(crate) start: u64,
}

/// A message that is meant for this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub group: GroupId,
    pub source: NodeId,
    pub(crate) source_start: Start,
}

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("the message has no envelope")]
    NoEnvelope,
    #[error("message for mesh {target}, but this server belongs to mesh {ours}")]
    OtherMesh { ours: MeshId, target: String },
    #[error("message for mesh {target}, but this server belongs to no mesh")]
    NoMesh { target: String },
    #[error("message for node {target}, but this is node {ours}: the address is another server's")]
    OtherNode { ours: String, target: String },
    #[error(
        "message for store {target:016x} of this node, but its store is {ours:016x}: \
         its disk was swapped or restored"
    )]
    OtherStore { ours: u64, target: u64 },
    #[error(
        "message for another start of this node: the sender has not heard of this start, or counts \
         that of a copy of this data directory"
    )]
    OtherStart,
    #[error(
        "message from a start of node {0} that does not count here: it was overtaken, or is not heard \
         of yet"
    )]
    NotCounted(String),
    #[error("message from node 0 or from this node itself")]
    BadSource,
    #[error("group {0} is not hosted here")]
    NoGroup(GroupId),
    #[error("node {0} is not a member of the group")]
    NotAMember(String),
}

/// Checks everything but the group and the sender.
pub(crate) fn check(
    envelope: Option<&pb::Envelope>,
    recipient: Recipient<'_>,
) -> Result<Received, EnvelopeError> {
    let envelope = envelope.ok_or(EnvelopeError::NoEnvelope)?;
    match recipient.mesh {
        None => return Err(EnvelopeError::NoMesh { target: envelope.mesh_id.clone() }),
        Some(ours) if ours.as_str() != envelope.mesh_id => {
            return Err(EnvelopeError::OtherMesh {
                ours: ours.clone(),
                target: envelope.mesh_id.clone(),
            });
        }
        Some(_) => {}
    }
    if envelope.target_id != recipient.node_id {
        return Err(EnvelopeError::OtherNode {
            ours: node_hex(recipient.node_id),
            target: node_hex(envelope.target_id),
        });
    }
    // Zero: the sender does not know the store.
    if envelope.target_store_id != 0 && envelope.target_store_id != recipient.store_id {
        return Err(EnvelopeError::OtherStore {
            ours: recipient.store_id,
            target: envelope.target_store_id,
        });
    }
    if envelope.source_id == 0 || envelope.source_id == recipient.node_id {
        return Err(EnvelopeError::BadSource);
    }
    if envelope.target_start != recipient.start {
        return Err(EnvelopeError::OtherStart);
    }
    Ok(Received {
        group: envelope.group,
        source: envelope.source_id,
        source_start: Start { epoch: envelope.source_epoch, number: envelope.source_start },
    })
}

impl From<EnvelopeError> for tonic::Status {
    fn from(error: EnvelopeError) -> Self {
        Self::failed_precondition(error.to_string())
    }
}

#[cfg(test)]
mod tests;
