//! Replies that callers on this server wait for, taken from this replica's own apply.
//!
//! Every replica computes every reply. So a replica that forwarded a command only needs to learn
//! from the leader that it is committed, and a large reply need not be sent.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use mesh::NodeId;
use openraft::EntryPayload;
use tokio::sync::oneshot;

use crate::types::{Command, Entry, ProposalId, Reply};

/// The callers that wait. Clones share them.
#[derive(Clone)]
pub(crate) struct PendingReplies(Arc<Inner>);

struct Inner {
    /// Begins at a random number, so that an entry from before a restart matches no caller.
    next: AtomicU64,
    waiting: Mutex<HashMap<ProposalId, oneshot::Sender<Bytes>>>,
}

/// One caller that waits, until this is dropped.
pub(crate) struct PendingReply {
    pub(crate) id: ProposalId,
    pending: PendingReplies,
    reply: oneshot::Receiver<Bytes>,
}

impl PendingReplies {
    pub(crate) fn new() -> Self {
        let next = AtomicU64::new(rand::random());
        Self(Arc::new(Inner { next, waiting: Mutex::default() }))
    }

    /// Registers a caller before its command is proposed.
    pub(crate) fn register(&self, node_id: NodeId) -> PendingReply {
        let id = ProposalId { node_id, number: self.0.next.fetch_add(1, Ordering::Relaxed) };
        let (sender, reply) = oneshot::channel();
        self.lock().insert(id, sender);
        PendingReply { id, pending: self.clone(), reply }
    }

    /// Delivers the replies of applied entries to the callers that wait for them.
    pub(super) fn deliver(&self, entries: &[Entry], replies: &[Reply]) {
        let mut waiting = self.lock();
        if waiting.is_empty() {
            return;
        }
        for (entry, reply) in entries.iter().zip(replies) {
            let EntryPayload::Normal(Command::Machine(command)) = &entry.payload else { continue };
            if let Some(sender) = waiting.remove(&command.proposal) {
                // An error means that the caller no longer waits.
                let _ = sender.send(reply.0.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProposalId, oneshot::Sender<Bytes>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingReply {
    /// The reply, if it was delivered. It is delivered once the command's index is applied, unless
    /// a Raft snapshot brought the replica to that index.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.reply.try_recv().ok()
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.id);
    }
}
