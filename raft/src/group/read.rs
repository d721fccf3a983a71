//! Linearizable reads (ReadIndex): the leader confirms that it still leads and names its commit
//! index; then the reader waits until that index is applied here.
//!
//! On a replica that does not lead, all reads that arrive during one request to the leader share
//! the next request.

use std::{sync::Arc, time::Duration};

use mesh::NodeId;
use openraft::{
    ReadPolicy,
    errors::{LinearizableReadError, RaftError},
};
use proto::quorate::v1 as pb;
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use tonic::Request;

use super::{Group, Inner, Role, remaining};
use crate::quorum::NoQuorum;

/// Reads waiting for the next request to the leader. Senders wait beyond this.
pub(super) const QUEUE: usize = 1024;
/// How long one request to the leader may take.
const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a failed request is repeated.
const RETRY: Duration = Duration::from_millis(10);

/// A read that waits for an index.
pub(super) type ReadRequest = oneshot::Sender<Option<u64>>;

/// Why a read is not linearizable.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the group has no leader")]
    NoLeader,
    #[error("this server does not lead the group")]
    NotLeader { leader: Option<NodeId> },
    /// Reported before the deadline: see [`Quorum`](crate::Quorum).
    #[error("{0}")]
    NoQuorum(NoQuorum),
    #[error("no quorum confirmed the read within the deadline")]
    DeadlineExceeded,
    #[error("the group has stopped")]
    Stopped,
}

/// A confirmed read index: everything acknowledged before the request is at or below it.
pub(crate) struct ReadPoint {
    pub(crate) term: u64,
    pub(crate) index: u64,
}

impl Group {
    /// Waits until everything that was acknowledged before the call is applied here, and returns
    /// the read index. Fails early, before the deadline, if there is no quorum.
    pub async fn read_barrier(&self, deadline: Duration) -> Result<u64, ReadError> {
        let began = Instant::now();
        let deadline = began + deadline;
        let index = tokio::select! {
            biased;
            index = self.read_index_by(deadline) => index?,
            lost = self.quorum_lost(began) => return Err(ReadError::NoQuorum(lost)),
        };
        let mut applied = self.watch_applied();
        let reached = applied.wait_for(|applied| *applied >= index);
        match time::timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(index),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::DeadlineExceeded),
        }
    }

    /// Has a quorum confirm that this server leads, after the call began; returns the term.
    pub async fn confirm_leadership(&self, deadline: Duration) -> Result<u64, ReadError> {
        time::timeout(deadline, self.read_point())
            .await
            .unwrap_or(Err(ReadError::DeadlineExceeded))
            .map(|point| point.term)
    }

    /// Asks openraft for a read point, if this server leads.
    pub(crate) async fn read_point(&self) -> Result<ReadPoint, ReadError> {
        match self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => {
                let id = *linearizer.read_log_id().log_id();
                Ok(ReadPoint { term: id.leader_id.term, index: id.index })
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader { leader: forward.leader_id })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::DeadlineExceeded)
            }
            Err(RaftError::Fatal(_)) => Err(ReadError::Stopped),
        }
    }

    async fn read_index_by(&self, deadline: Instant) -> Result<u64, ReadError> {
        loop {
            let leadership = self.leadership();
            let Some(left) = remaining(deadline) else {
                return Err(match leadership.1 {
                    Some(_) => ReadError::DeadlineExceeded,
                    None => ReadError::NoLeader,
                });
            };
            let index = match leadership {
                (Role::Stopped, _) => return Err(ReadError::Stopped),
                (Role::Leader, _) => match time::timeout(left, self.read_point()).await {
                    Ok(Ok(point)) => Some(point.index),
                    Ok(Err(ReadError::Stopped)) => return Err(ReadError::Stopped),
                    Ok(Err(_)) | Err(_) => None,
                },
                (_, None) => {
                    self.await_leader(left).await;
                    continue;
                }
                (_, Some(_)) => {
                    let (reply, answer) = oneshot::channel();
                    let asked = async {
                        self.inner.reads.send(reply).await.ok()?;
                        answer.await.ok()?
                    };
                    time::timeout(left, asked).await.ok().flatten()
                }
            };
            match index {
                Some(index) => return Ok(index),
                None => time::sleep(RETRY.min(left)).await,
            }
        }
    }
}

/// The task that requests read indexes from the leader for all readers of this replica.
pub(super) struct ReadIndexTask {
    group: std::sync::Weak<Inner>,
}

impl ReadIndexTask {
    pub(super) fn of(group: &Group) -> Self {
        Self { group: Arc::downgrade(&group.inner) }
    }

    pub(super) async fn run(self, mut queue: mpsc::Receiver<ReadRequest>) {
        while let Some(first) = queue.recv().await {
            // Only reads that were waiting before the request was sent may use its answer.
            let mut waiting = vec![first];
            while let Ok(next) = queue.try_recv() {
                waiting.push(next);
            }
            let Some(inner) = self.group.upgrade() else { return };
            let index = request_read_index(&Group { inner }).await;
            for reader in waiting {
                let _ = reader.send(index);
            }
        }
    }
}

async fn request_read_index(group: &Group) -> Option<u64> {
    let leader = group.leadership().1.filter(|leader| *leader != group.inner.node_id)?;
    let link = group.link_to(leader);
    let message = pb::ReadIndexRequest { envelope: Some(link.envelope()) };
    let mut client = link.client();
    let reply =
        match time::timeout(READ_INDEX_TIMEOUT, client.read_index(Request::new(message))).await {
            Ok(Ok(reply)) => {
                group.contacts().record_contact(leader);
                reply.into_inner()
            }
            Ok(Err(status)) => {
                link.refused(&status);
                tracing::debug!(group = group.id(), %status, "the leader gave no read index");
                return None;
            }
            Err(_) => return None,
        };
    match reply.outcome? {
        pb::read_index_reply::Outcome::Index(index) => Some(index),
        pb::read_index_reply::Outcome::NotLeader(_) => None,
    }
}
