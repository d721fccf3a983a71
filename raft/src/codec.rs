//! Converts openraft's values to our own messages and back. The messages are the format on the wire
//! and on disk, because openraft's serde layout is not stable.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{EntryPayload, impls, vote::RaftLeaderId};
use proto::quorate::v1 as pb;

use crate::types::{
    Command, Entry, LogId, MachineCommand, Membership, Node, ProposalId, SnapshotMeta,
    StoredMembership, Vote, log_id,
};

/// No group reaches a later term or index: at one term per microsecond it takes eight years. The
/// limits lie far below the largest number, so that one message cannot use up all terms.
const LATEST_TERM: u64 = 1 << 48;
const LAST_INDEX: u64 = 1 << 60;

/// A message lacks a required field, or its fields contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

pub(crate) fn vote_to_proto(vote: &Vote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term(),
        node_id: *vote.leader_id.node_id(),
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_proto(vote: Option<pb::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed("vote"))?;
    if vote.term > LATEST_TERM {
        return Err(Malformed("vote: its term"));
    }
    Ok(if vote.committed {
        impls::Vote::new_committed(vote.term, vote.node_id)
    } else {
        impls::Vote::new(vote.term, vote.node_id)
    })
}

pub(crate) fn log_id_to_proto(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn log_id_from_proto(id: pb::LogId) -> LogId {
    log_id(id.term, id.index)
}

/// A log id from another server, checked against the limits.
pub(crate) fn bounded_log_id(id: pb::LogId) -> Result<LogId, Malformed> {
    if id.term > LATEST_TERM || id.index > LAST_INDEX {
        return Err(Malformed("log id"));
    }
    Ok(log_id_from_proto(id))
}

pub(crate) fn membership_to_proto(membership: &Membership) -> pb::Membership {
    pb::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| pb::VoterSet { node_ids: voters.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(id, node)| pb::Member { node_id: *id, store_id: node.store_id })
            .collect(),
    }
}

pub(crate) fn membership_from_proto(membership: pb::Membership) -> Result<Membership, Malformed> {
    let configs: Vec<BTreeSet<u64>> =
        membership.configs.into_iter().map(|set| set.node_ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, Node> = membership
        .members
        .into_iter()
        .map(|member| (member.node_id, Node { store_id: member.store_id }))
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| Malformed("membership"))
}

pub(crate) fn stored_membership_to_proto(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(stored.membership())),
    }
}

pub(crate) fn stored_membership_from_proto(
    stored: pb::StoredMembership,
) -> Result<StoredMembership, Malformed> {
    Ok(StoredMembership::new(
        stored.log_id.map(log_id_from_proto),
        membership_from_proto(stored.membership.unwrap_or_default())?,
    ))
}

pub(crate) fn entry_to_proto(entry: &Entry) -> pb::Entry {
    let mut written =
        pb::Entry { log_id: Some(log_id_to_proto(&entry.log_id)), ..pb::Entry::default() };
    written.payload = Some(match &entry.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(pb::Blank {}),
        EntryPayload::Normal(Command::Machine(command)) => {
            written.level = command.level;
            written.proposer_id = command.proposal.node_id;
            written.proposal = command.proposal.number;
            pb::entry::Payload::Command(command.bytes.clone())
        }
        EntryPayload::Normal(Command::RaiseLevel(level)) => pb::entry::Payload::RaiseLevel(*level),
        EntryPayload::Membership(membership) => {
            pb::entry::Payload::Membership(membership_to_proto(membership))
        }
    });
    written
}

pub(crate) fn entry_from_proto(entry: pb::Entry) -> Result<Entry, Malformed> {
    let log_id = log_id_from_proto(entry.log_id.ok_or(Malformed("entry"))?);
    let payload = match entry.payload.ok_or(Malformed("entry"))? {
        pb::entry::Payload::Blank(_) => EntryPayload::Blank,
        pb::entry::Payload::Command(bytes) => {
            let proposal = ProposalId { node_id: entry.proposer_id, number: entry.proposal };
            let command = MachineCommand { bytes, level: entry.level, proposal };
            EntryPayload::Normal(Command::Machine(command))
        }
        pb::entry::Payload::RaiseLevel(level) => EntryPayload::Normal(Command::RaiseLevel(level)),
        pb::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_proto(membership)?)
        }
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn snapshot_meta_to_proto(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_proto),
        membership: Some(stored_membership_to_proto(&meta.last_membership)),
    }
}

pub(crate) fn snapshot_meta_from_proto(
    meta: Option<pb::SnapshotMeta>,
) -> Result<SnapshotMeta, Malformed> {
    let meta = meta.ok_or(Malformed("snapshot meta"))?;
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.map(log_id_from_proto),
        last_membership: stored_membership_from_proto(meta.membership.unwrap_or_default())?,
    })
}

#[cfg(test)]
mod tests;
