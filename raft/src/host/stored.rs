//! What a data directory holds of a group that does not run. It is read before the replica votes.

use std::collections::BTreeSet;

use mesh::{GroupId, NodeId};
use openraft::{EntryPayload, RaftLogReader as _, storage::RaftLogStorage as _};

use super::{Host, StartGroupError};
use crate::{
    rows::StorageError,
    start::StoredReplica,
    state::{read_applied, read_membership},
    types::Vote,
};

/// Entries of a log that are read at once.
const ENTRIES: u64 = 256;
/// By how much a restored directory raises its terms. More than the number of terms that a group
/// goes through between a backup and its use.
const TERMS_AHEAD: u64 = 1 << 16;

impl Host {
    /// The other voters of every group that this data directory holds something of, as far as it
    /// knows: those of its state, and of any membership in its logs.
    pub async fn other_voters(&self) -> Result<BTreeSet<NodeId>, StorageError> {
        let mut voters = BTreeSet::new();
        for (id, record) in self.inner.log.records()? {
            if let Some(view) = self.inner.state.view(id, record.generation) {
                let stored = read_membership(&view)?;
                voters.extend(stored.membership().voter_ids());
            }
            let last = self.inner.log.stored(id)?.last();
            let mut log = self.inner.log.group(id).await?;
            let end = last.map_or(0, |last| last.index + 1);
            let mut next = log.purged().map_or(0, |purged| purged.index + 1);
            while next < end {
                let upto = end.min(next + ENTRIES);
                let entries = log.try_get_log_entries(next..upto).await;
                let entries = entries.map_err(|error| StorageError::with_source("read", error))?;
                for entry in entries {
                    if let EntryPayload::Membership(membership) = &entry.payload {
                        voters.extend(membership.voter_ids());
                    }
                }
                next = upto;
            }
        }
        voters.remove(&self.identity().node_id);
        Ok(voters)
    }

    /// Makes the record and the column family of a group, durably. From then on a store without
    /// them is one that lost them.
    pub async fn make_room(&self, id: GroupId, namespace: &str) -> Result<(), StartGroupError> {
        let _starting = self.inner.starting.lock().await;
        self.record_of(id, namespace).await?;
        Ok(())
    }

    /// Raises the terms beyond those that another copy of the data directory may have voted in. A
    /// node must not vote twice in a term: two leaders of one term would write different entries
    /// under the same log ids, and no member could tell them apart.
    pub(super) async fn raise_terms(&self) -> Result<(), StorageError> {
        if !self.mesh().terms_forgotten() {
            return Ok(());
        }
        let failed =
            |error| StorageError::with_source("cannot leave forgotten terms behind", error);
        for group in self.groups_on_disk()? {
            let mut log = self.inner.log.group(group).await?;
            let Some(vote) = log.read_vote().await.map_err(failed)? else { continue };
            let term = vote.leader_id.term.saturating_add(TERMS_AHEAD);
            let raised = Vote::new(term, self.identity().node_id);
            log.save_vote(&raised).await.map_err(failed)?;
            tracing::warn!(
                group,
                term,
                "this copy of the data directory is kept: its terms go on here"
            );
        }
        self.mesh().set_terms_raised().map_err(failed)
    }

    /// What is on disk of a group that does not run; none if there is no record of it.
    pub fn stored_replica(&self, id: GroupId) -> Result<Option<StoredReplica>, StorageError> {
        let Some(record) = self.inner.log.record(id)? else { return Ok(None) };
        let log = self.inner.log.stored(id)?;
        let (vote, last) = (log.vote, log.last());
        let view = self.inner.state.view(id, record.generation);
        let applied = view.map(|view| read_applied(&view)).transpose()?.flatten();
        Ok(Some(StoredReplica {
            term: vote.map_or(0, |vote| vote.leader_id.term),
            last_index: last.max(applied).map_or(0, |last| last.index),
            is_blank: vote.is_none() && last.is_none() && applied.is_none(),
        }))
    }
}
