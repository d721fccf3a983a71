//! Asks other servers what they remember of a group: whether this server is a member, and whether
//! its replica once had more than its disk holds.
//!
//! | who | remembers | for how long |
//! |---|---|---|
//! | the leader | what each member acknowledged to it | while it leads |
//! | every member | whom its vote was for, and up to where entries are committed | on its disk |
//! | DISCO, of data groups | what leaders reported, every few seconds | in the registry |
//! | data nodes, of the DISCO group | the last revision that they were told | while they run |
//!
//! No answer is required: while a group is being formed, or restarts as a whole, no server can
//! answer. Then nothing is known, and a restored disk is not noticed.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use futures::future::{join, join_all};
use mesh::{DISCO_GROUP, GroupId, Mesh, NodeId, channel_to};
use proto::quorate::v1::{
    GroupProgress, HostedGroup, HostedGroupsReply, HostedGroupsRequest, mesh_client::MeshClient,
};
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::{
    completeness::{Claim, Source},
    start::{LostProgress, Membership, StoredReplica},
};

/// Most servers to ask that are not members. Each of them may be the one that remembers; in a large
/// mesh this many are enough.
const ASKED: usize = 32;

/// The answers of other servers about a group.
#[derive(Debug, Default)]
pub(crate) struct RecallAnswers {
    /// By member; none if the member does not host the group.
    members: Vec<(NodeId, Option<HostedGroup>)>,
    remembered: Vec<GroupProgress>,
}

/// Asks the group's other members and the servers that may remember it, all at the same time.
pub(crate) async fn ask(
    mesh: &Mesh,
    group: GroupId,
    members: impl IntoIterator<Item = NodeId>,
    within: Duration,
) -> RecallAnswers {
    let own_id = mesh.identity().node_id;
    let members: BTreeSet<NodeId> = members.into_iter().filter(|id| *id != own_id).collect();
    let others = others(mesh, group, &members);
    let asking_members = members.into_iter().map(|id| {
        let channel = mesh.peers().channel(id);
        async move { Some((id, ask_one(mesh, group, channel, within).await?)) }
    });
    let asking_others =
        others.into_iter().map(|address| ask_one(mesh, group, channel_to(address), within));
    let (members, others) = join(join_all(asking_members), join_all(asking_others)).await;
    let mut answers = RecallAnswers::default();
    for (id, reply) in members.into_iter().flatten() {
        answers.remembered.extend(reply.remembered);
        answers.members.push((id, reply.groups.into_iter().find(|it| it.group == group)));
    }
    answers.remembered.extend(others.into_iter().flatten().filter_map(|reply| reply.remembered));
    answers
}

/// Servers that may remember the group without being members of it.
fn others(mesh: &Mesh, group: GroupId, members: &BTreeSet<NodeId>) -> Vec<SocketAddr> {
    let own_id = mesh.identity().node_id;
    // Of the DISCO group, only its members and the data nodes know anything.
    let service = if group == DISCO_GROUP { "data" } else { "disco" };
    let known = mesh
        .book()
        .hints()
        .into_iter()
        .filter(|hint| hint.node_id != own_id && !members.contains(&hint.node_id))
        .filter(|hint| hint.services.iter().any(|it| it == service))
        .map(|hint| hint.address);
    let seeds = mesh.seeds().iter().copied().filter(|_| group != DISCO_GROUP);
    let addresses: BTreeSet<SocketAddr> =
        known.chain(seeds).filter(|address| *address != mesh.advertise()).collect();
    addresses.into_iter().take(ASKED).collect()
}

/// A server's answer, if it gave one and belongs to this mesh.
async fn ask_one(
    mesh: &Mesh,
    group: GroupId,
    channel: Channel,
    within: Duration,
) -> Option<HostedGroupsReply> {
    let mut client = MeshClient::new(channel);
    let asked = client.hosted_groups(HostedGroupsRequest { group });
    let reply = timeout(within, asked).await.ok()?.ok()?.into_inner();
    (mesh.id()?.as_str() == reply.mesh_id).then_some(reply)
}

impl RecallAnswers {
    /// Whether the node is a member. The answer with the latest term decides; within one term, the
    /// leader's.
    pub(crate) fn membership(&self, own_id: NodeId) -> Membership {
        let latest = self
            .hosting()
            .filter(|answer| !answer.members.is_empty())
            .max_by_key(|answer| (answer.term, answer.role == "leader", answer.applied_index));
        let Some(latest) = latest else {
            return if self.members.is_empty() {
                Membership::Unknown
            } else {
                Membership::Unformed
            };
        };
        let Some(own) = latest.members.iter().find(|it| it.node_id == own_id) else {
            return Membership::Outside;
        };
        let acknowledged = acknowledged(latest, own_id).is_some();
        if own.voter {
            Membership::Voter { acknowledged }
        } else {
            Membership::Learner { acknowledged }
        }
    }

    /// The progress of the node's replica that others remember and its disk lacks.
    pub(crate) fn later(&self, own_id: NodeId, stored: StoredReplica) -> Option<LostProgress> {
        let entries = self.hosting().find_map(|answer| {
            let acknowledged = acknowledged(answer, own_id)?;
            // Entries that a leader of an earlier term received acknowledgments for may have been
            // replaced since.
            (answer.term >= stored.term && acknowledged > stored.last_index)
                .then_some(LostProgress::Entries { acknowledged, last_index: stored.last_index })
        });
        let voted = || {
            self.hosting()
                .filter(|it| it.voted_for == own_id || acknowledged(it, own_id).is_some())
                .map(|it| it.term)
        };
        let replicas = || self.remembered.iter().flat_map(|it| &it.replicas);
        let own = || replicas().filter(|it| it.node_id == own_id);
        let committed = || {
            let acknowledged = own().map(|it| it.index).max()?;
            (acknowledged > stored.last_index)
                .then_some(LostProgress::Committed { acknowledged, last_index: stored.last_index })
        };
        let term = || {
            let voted = voted().chain(own().map(|it| it.term)).max()?;
            (voted > stored.term).then_some(LostProgress::Term {
                voted,
                remembered: stored.term,
                last_index: stored.last_index,
            })
        };
        entries.or_else(committed).or_else(term)
    }

    /// What others know to be committed. A candidate's log is compared with it.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        let of_members = self.members.iter().filter_map(|(id, hosted)| {
            let committed = hosted.as_ref()?.committed_index;
            Some(Claim { source: Source::Member(*id), committed })
        });
        let remembered = self
            .remembered
            .iter()
            .map(|it| Claim { source: Source::Memory, committed: it.committed_index });
        of_members.chain(remembered).collect()
    }

    fn hosting(&self) -> impl Iterator<Item = &HostedGroup> {
        self.members.iter().filter_map(|(_, hosted)| hosted.as_ref())
    }
}

/// The last entry that a member has acknowledged to this leader; none if it acknowledged nothing,
/// or if the answer is not a leader's.
fn acknowledged(answer: &HostedGroup, member: NodeId) -> Option<u64> {
    let lag = answer.members.iter().find(|it| it.node_id == member)?.lag?;
    // A member that has not answered yet lags by every entry.
    answer.last_index.checked_sub(lag).filter(|index| *index > 0)
}

#[cfg(test)]
mod tests;
