//! What a data directory holds of a group that does not run: looked at before its replica votes.

use mesh::GroupId;

use super::{Host, StartGroupError};
use crate::{log_store::StoredLog, rows::StorageError, state::read_applied};

/// The part of a replica that Raft counts on being remembered, as it is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredReplica {
    /// The latest term that it voted in, or followed a leader of; zero if there is none.
    pub term: u64,
    /// The last entry, in the log or in the state; zero if there is none.
    pub last_index: u64,
    /// Whether it has a vote, an entry or a state at all.
    pub is_blank: bool,
}

impl Host {
    /// Makes room in the stores for a group, durably. From then on a store without the room is one
    /// that lost it.
    pub async fn make_room(&self, id: GroupId, namespace: &str) -> Result<(), StartGroupError> {
        let _starting = self.inner.starting.lock().await;
        self.record_of(id, namespace).await?;
        Ok(())
    }

    /// What is on disk of a group that does not run; none if there is no room made for it.
    pub fn stored_replica(&self, id: GroupId) -> Result<Option<StoredReplica>, StorageError> {
        let Some(record) = self.inner.log.record(id)? else { return Ok(None) };
        let StoredLog { vote, last } = self.inner.log.stored(id)?;
        let view = self.inner.state.view(id, record.generation);
        let applied = view.map(|view| read_applied(&view)).transpose()?.flatten();
        Ok(Some(StoredReplica {
            term: vote.map_or(0, |vote| vote.leader_id.term),
            last_index: last.max(applied).map_or(0, |last| last.index),
            is_blank: vote.is_none() && last.is_none() && applied.is_none(),
        }))
    }
}
