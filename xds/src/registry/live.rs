//! What the log does not hold: which servers are up, and what nodes last reported.
//!
//! The leader has all of it, since reports are passed on to it with renewals. Every server answers
//! from what the leader has, so that all answer alike. If it can reach no leader, a server answers
//! from what it has itself, and marks the answer as old.

use std::collections::BTreeMap;

use discovery::registry::ServerStatus;
use proto::quorate::v1::{AnswerMeta, LeaseLive, LiveReply, NodeLive, NodeStatus, ServerLive};

use crate::shared::{Formed, Shared};

/// The state of servers and nodes that is not replicated.
#[derive(Debug, Default)]
pub(crate) struct Live {
    pub(crate) servers: BTreeMap<u64, ServerStatus>,
    pub(crate) nodes: BTreeMap<u64, NodeStatus>,
}

impl Live {
    /// What this server itself knows.
    pub(crate) fn local(shared: &Shared, formed: &Formed) -> Self {
        let servers = formed.servers.statuses(&formed.group.status());
        Self { servers, nodes: shared.reports.all() }
    }

    /// What the leader knows, with how fresh an answer made of it is.
    pub(crate) async fn of_leader(shared: &Shared, formed: &Formed) -> (Self, AnswerMeta) {
        if shared.leases.leads() {
            return (Self::local(shared, formed), shared.meta());
        }
        match formed.renewals.ask_live(Vec::new()).await {
            Ok(reply) => (Self::from_proto(reply), shared.meta()),
            Err(status) => {
                tracing::debug!(%status, "answering without the leader");
                (Self::local(shared, formed), shared.meta_without_leader())
            }
        }
    }

    fn from_proto(reply: LiveReply) -> Self {
        let servers = reply.servers.into_iter().map(|it| {
            let ServerLive { node_id, role, up } = it;
            (node_id, ServerStatus { role, up })
        });
        let nodes = reply.nodes.into_iter().map(|it| (it.node_id, it.status.unwrap_or_default()));
        Self { servers: servers.collect(), nodes: nodes.collect() }
    }

    pub(crate) fn into_proto(self, meta: AnswerMeta, leases: Vec<LeaseLive>) -> LiveReply {
        let servers = self.servers.into_iter().map(|(node_id, it)| {
            let ServerStatus { role, up } = it;
            ServerLive { node_id, role, up }
        });
        let nodes = self.nodes.into_iter();
        let nodes = nodes.map(|(node_id, status)| NodeLive { node_id, status: Some(status) });
        let (servers, nodes) = (servers.collect(), nodes.collect());
        LiveReply { meta: Some(meta), nodes, servers, leases }
    }
}
