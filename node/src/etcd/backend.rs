//! What the etcd services share: which group a call is for, how it is written and read, and the
//! header of every answer.

use std::time::Duration;

use mesh::{MeshId, NodeId};
use prost::Message;
use proto::{
    etcdserverpb::ResponseHeader,
    quorate::v1::{KvCommand, KvReply, kv_command::Command, kv_reply::Outcome},
};
use raft::{Group, rows::Read};
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Status, metadata::MetadataMap};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    NAMESPACE_METADATA, refusal,
    scans::{Abandoned, CancellableRows, Scans},
};
use crate::{
    kv::{KvError, MAX_REQUEST_BYTES, Refusal},
    namespaces::{DEFAULT_NAMESPACE, Hosted, Namespaces},
};

/// How long a request waits for a leader and a quorum: etcd's five seconds and two elections.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// How long a request waits for a node that has just started to find its groups.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// What the services have in common: finding the group, proposing to it, reading from it.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    namespaces: Namespaces,
    node_id: NodeId,
    mesh: watch::Receiver<Option<MeshId>>,
    scans: Scans,
}

/// How recent a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Everything acknowledged before the request is seen.
    Linearizable,
    /// What this replica has applied.
    Serializable,
}

/// How much a read may have to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breadth {
    /// A few rows, which are read at once.
    Few,
    /// Maybe all rows, which are read on a thread that may block.
    Many,
}

impl Backend {
    pub(super) fn new(
        namespaces: Namespaces,
        node_id: NodeId,
        mesh: watch::Receiver<Option<MeshId>>,
    ) -> Self {
        Self { namespaces, node_id, mesh, scans: Scans::new() }
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.node_id
    }

    pub(super) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The namespace that a request is for. A node that has just started is waited for.
    pub(super) async fn hosted(&self, metadata: &MetadataMap) -> Result<Hosted, Status> {
        let namespace = match metadata.get(NAMESPACE_METADATA) {
            None => DEFAULT_NAMESPACE,
            Some(value) => value.to_str().map_err(|_| {
                Status::invalid_argument(format!("{NAMESPACE_METADATA} must be visible ASCII"))
            })?,
        };
        let hosted = timeout(START_PATIENCE, self.namespaces.find(namespace)).await;
        hosted.ok().flatten().ok_or_else(|| self.not_hosted(namespace))
    }

    /// Replicates a command and gives the machine's answer to it.
    pub(super) async fn write(&self, group: &Group, command: Command) -> Result<Outcome, Status> {
        let command = KvCommand { command: Some(command) }.encode_to_vec();
        if command.len() > MAX_REQUEST_BYTES {
            return Err(refusal::of_refusal(Refusal::RequestTooLarge));
        }
        let applied = group
            .write(command.into(), REQUEST_TIMEOUT)
            .await
            .map_err(|error| refusal::of_write(&error))?;
        match KvReply::decode(applied.reply).ok().and_then(|reply| reply.outcome) {
            Some(Outcome::Refused(refused)) => {
                Err(Status::new(Code::from(refused.code), refused.message))
            }
            Some(outcome) => Ok(outcome),
            None => Err(unexpected_reply()),
        }
    }

    /// Reads rows of this replica.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        group: &Group,
        freshness: Freshness,
        breadth: Breadth,
        read: impl FnOnce(&dyn Read) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, Status> {
        if freshness == Freshness::Linearizable {
            self.confirm(group).await?;
        }
        let group = group.clone();
        match breadth {
            Breadth::Few => {
                let answer = group.view().map_err(KvError::from).and_then(|view| read(&view));
                answer.map_err(refusal::of_kv)
            }
            Breadth::Many => {
                let scan = move |abandoned: &Abandoned| {
                    let view = group.view()?;
                    read(&CancellableRows { rows: &view, abandoned })
                };
                self.scans.run(scan).await
            }
        }
    }

    /// Returns once this replica has applied everything acknowledged before the call.
    pub(super) async fn confirm(&self, group: &Group) -> Result<(), Status> {
        let confirmed = group.read_barrier(REQUEST_TIMEOUT).await;
        confirmed.map(|_| ()).map_err(|error| refusal::of_read(&error))
    }

    /// A header without a revision.
    pub(super) fn header(&self, group: &Group) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id(),
            member_id: self.node_id,
            revision: 0,
            raft_term: group.watch_status().borrow().term,
        }
    }

    /// Adds what the machine leaves out of a header: it knows only the revision.
    pub(super) fn full_header(
        &self,
        group: &Group,
        header: Option<ResponseHeader>,
    ) -> Option<ResponseHeader> {
        let revision = header.map_or(0, |header| header.revision);
        Some(ResponseHeader { revision, ..self.header(group) })
    }

    /// The mesh id as a number, as etcd's cluster ids are.
    fn cluster_id(&self) -> u64 {
        self.mesh.borrow().as_ref().map_or(0, |mesh| xxh3_64(mesh.to_string().as_bytes()))
    }

    fn not_hosted(&self, namespace: &str) -> Status {
        let names = self.namespaces.names();
        if names.is_empty() {
            // Clients of etcd try again after this code, here or at another node.
            let reasons = self.namespaces.waits_for();
            let because = if reasons.is_empty() { "" } else { ": " };
            return Status::unavailable(format!(
                "etcdserver: this node hosts no namespace yet{because}{}",
                reasons.join("; ")
            ));
        }
        Status::not_found(format!(
            "namespace {namespace:?} is not hosted on this node, which hosts: {}; name one in the \
             metadata {NAMESPACE_METADATA}",
            names.join(", ")
        ))
    }
}

/// A reply of another version, or of another kind than the command.
pub(super) fn unexpected_reply() -> Status {
    Status::internal("etcdserver: the reply does not belong to the request")
}
