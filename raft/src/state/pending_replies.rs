//! PendingReplies that somebody on this server waits for, from this replica's own apply.
//!
//! Every replica computes every answer. So one that has forwarded a command needs no answer from
//! the leader but the word that it is committed, and an answer of any size has no way to go.

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

/// Those who wait. Clones share them.
#[derive(Clone)]
pub(crate) struct PendingReplies(Arc<Inner>);

struct Inner {
    /// Begins anywhere, so that an entry from before a restart answers nobody.
    next: AtomicU64,
    waiting: Mutex<HashMap<ProposalId, oneshot::Sender<Bytes>>>,
}

/// One who waits, until it is dropped.
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

    /// Waits for the answer to a command that is yet to be proposed.
    pub(crate) fn register(&self, node_id: NodeId) -> PendingReply {
        let id = ProposalId { node_id, number: self.0.next.fetch_add(1, Ordering::Relaxed) };
        let (sender, reply) = oneshot::channel();
        self.lock().insert(id, sender);
        PendingReply { id, pending: self.clone(), reply }
    }

    /// Gives those who wait what was applied.
    pub(super) fn deliver(&self, entries: &[Entry], replies: &[Reply]) {
        let mut waiting = self.lock();
        if waiting.is_empty() {
            return;
        }
        for (entry, reply) in entries.iter().zip(replies) {
            let EntryPayload::Normal(Command::Machine(command)) = &entry.payload else { continue };
            if let Some(sender) = waiting.remove(&command.proposal) {
                // Who has gone meanwhile needs no answer.
                let _ = sender.send(reply.0.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProposalId, oneshot::Sender<Bytes>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingReply {
    /// The answer, if it is there: once the command's index is applied it is, unless the replica
    /// came by that index with a Raft snapshot.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.reply.try_recv().ok()
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.pending.lock().remove(&self.id);
    }
}
