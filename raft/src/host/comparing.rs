//! Compares what other servers remember of a group with this disk, before the group runs.

use std::{collections::BTreeMap, time::Duration};

use mesh::{GroupId, NodeId};
use proto::quorate::v1::GroupProgress;

use super::{Host, lock};
use crate::{
    completeness_guard::CompletenessGuard,
    log_store::GroupLog,
    recall::{self, RecallAnswers},
    rows::StorageError,
    start::{Disk, LostProgress, Membership},
};

/// How long others may take to answer. All are asked at the same time, once per group and start.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1500);

/// Looks up the progress of a group that this server remembers, whether it hosts the group or not.
pub(super) type ProgressSource = Box<dyn Fn(GroupId) -> Option<GroupProgress> + Send + Sync>;

impl Host {
    /// Adds a source of remembered progress, which is sent to servers that ask.
    pub fn add_progress_source(
        &self,
        source: impl Fn(GroupId) -> Option<GroupProgress> + Send + Sync + 'static,
    ) {
        lock(&self.inner.progress_sources).push(Box::new(source));
    }

    /// Sets, by namespace, the entry after which an operator accepts that everything is lost.
    pub fn accept_losses(&self, losses: BTreeMap<String, u64>) {
        *lock(&self.inner.accepted_losses) = losses;
    }

    /// Asks other servers about a group and compares their answers with the disk. Returns the state
    /// of the disk in their light, and this server's membership as they know it.
    ///
    /// # Errors
    ///
    /// If the stores cannot be read.
    pub async fn compare(
        &self,
        group: GroupId,
        namespace: &str,
        disk: Disk,
        members: impl IntoIterator<Item = NodeId>,
    ) -> Result<(Disk, Membership), StorageError> {
        let own_id = self.identity().node_id;
        let stored = self.stored_replica(group)?.unwrap_or_default();
        let answers = match disk {
            Disk::Blank | Disk::Holding => {
                recall::ask(self.mesh(), group, members, ANSWERED_WITHIN).await
            }
            Disk::Lost | Disk::Reverted(_) | Disk::AnotherMesh | Disk::RolledBack => {
                RecallAnswers::default()
            }
        };
        tracing::debug!(
            group,
            ?disk,
            ?stored,
            ?answers,
            "comparing the disk with what others remember"
        );
        lock(&self.inner.claims).insert(group, answers.claims());
        let disk = match (disk, answers.later(own_id, stored)) {
            (Disk::Blank, Some(_)) => Disk::Lost,
            (Disk::Holding, Some(later)) if self.accepts_loss(namespace, later.last_index()) => {
                log_accepted_loss(namespace, later);
                Disk::Holding
            }
            (Disk::Holding, Some(later)) => Disk::Reverted(later),
            (disk, _) => disk,
        };
        Ok((disk, answers.membership(own_id)))
    }

    /// The guard of a replica that starts with this disk.
    pub(super) fn completeness_guard(
        &self,
        group: GroupId,
        namespace: &str,
        log: GroupLog,
        last_index: u64,
    ) -> CompletenessGuard {
        let claims = lock(&self.inner.claims).remove(&group).unwrap_or_default();
        let loss_accepted = self.accepts_loss(namespace, last_index);
        let given = lock(&self.inner.accepted_losses).get(namespace).copied();
        if let Some(given) = given.filter(|_| !loss_accepted) {
            tracing::warn!(
                namespace,
                "--accept-loss {namespace}@{given} is not needed any more, or is for another disk, \
                 since the last entry here is {last_index}; take the flag away"
            );
        }
        // openraft gives a candidate up after the shortest election time, and the votes need a part
        // of it.
        let patience = self.inner.timing.election_min / 2;
        CompletenessGuard::new(
            self.mesh().clone(),
            group,
            namespace,
            log,
            patience,
            loss_accepted,
            claims,
        )
    }

    /// Whether an operator accepted the loss after exactly this entry. The consent does not hold
    /// for another disk, nor for a later loss.
    pub(super) fn accepts_loss(&self, namespace: &str, last_index: u64) -> bool {
        lock(&self.inner.accepted_losses).get(namespace) == Some(&last_index)
    }

    pub(crate) fn reported_progress(&self, group: GroupId) -> Option<GroupProgress> {
        lock(&self.inner.progress_sources).iter().find_map(|source| source(group))
    }
}

/// Logs that acknowledged writes may be lost because an operator accepted it.
fn log_accepted_loss(namespace: &str, later: LostProgress) {
    tracing::error!(
        namespace,
        %later,
        "LOSS ACCEPTED: this replica goes on with a disk that went back, as --accept-loss says; what \
         was acknowledged after entry {} may be lost",
        later.last_index()
    );
}
