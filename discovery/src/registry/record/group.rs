//! The record of a replicated group.

use proto::quorate::v1 as wire;

use crate::registry::{name::check_name, progress::Progress, refusal::Refusal};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub node_id: u64,
    pub store_id: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub group: u32,
    pub namespace: String,
    /// Decided once, never changed.
    pub first_voters: Vec<Member>,
    /// Nodes that should hold a replica, including the first voters.
    pub replicas: Vec<Member>,
    pub leader: Option<Leader>,
    pub voters_wanted: u32,
    /// Replicas that serve requests, as the leader reported. Empty if not reported; then all are
    /// assumed to serve.
    pub serving: Vec<u64>,
    /// Members of the group, as the leader reported. Empty if not reported.
    pub members: Vec<u64>,
    pub progress: Progress,
}

/// Of two reports the greater one wins: the later term, and within a term the higher id. Votes of
/// one term are compared in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leader {
    pub term: u64,
    pub node_id: u64,
}

impl Member {
    pub(in crate::registry) fn from_proto(member: wire::Member) -> Self {
        Self { node_id: member.node_id, store_id: member.store_id }
    }

    /// The form in commands and records.
    pub fn to_proto(self) -> wire::Member {
        wire::Member { node_id: self.node_id, store_id: self.store_id }
    }
}

impl Group {
    pub(in crate::registry) fn from_record(record: wire::GroupRecord) -> Result<Self, Refusal> {
        check_name("namespace", &record.namespace)?;
        let leader = (record.leader_id != 0)
            .then_some(Leader { term: record.term, node_id: record.leader_id });
        Ok(Self {
            group: record.group,
            namespace: record.namespace,
            first_voters: record.first_voters.into_iter().map(Member::from_proto).collect(),
            replicas: record.replicas.into_iter().map(Member::from_proto).collect(),
            leader,
            voters_wanted: record.voters_wanted,
            serving: record.serving,
            members: record.members,
            progress: record.progress.map(Progress::from_proto).unwrap_or_default(),
        })
    }

    /// The form in which it is stored and sent to data nodes.
    pub fn to_proto(&self) -> wire::GroupRecord {
        wire::GroupRecord {
            group: self.group,
            namespace: self.namespace.clone(),
            first_voters: self.first_voters.iter().map(|member| member.to_proto()).collect(),
            replicas: self.replicas.iter().map(|member| member.to_proto()).collect(),
            leader_id: self.leader.map_or(0, |leader| leader.node_id),
            term: self.leader.map_or(0, |leader| leader.term),
            voters_wanted: self.voters_wanted,
            serving: self.serving.clone(),
            members: self.members.clone(),
            progress: Some(self.progress.to_proto()),
        }
    }

    /// Whether the node should hold a replica.
    pub fn has_replica(&self, node_id: u64) -> bool {
        self.replicas.iter().any(|member| member.node_id == node_id)
    }

    /// Whether the node's replica takes requests.
    pub fn serves(&self, node_id: u64) -> bool {
        self.has_replica(node_id) && (self.serving.is_empty() || self.serving.contains(&node_id))
    }
}
