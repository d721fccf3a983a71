//! Before a group runs here: what others remember of it, compared with this disk.

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

/// How long others may take to answer. They are asked at the same time, once a group and start.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1500);

/// What this server remembers of a group that it does not host, or beside hosting it.
pub(super) type ProgressSource = Box<dyn Fn(GroupId) -> Option<GroupProgress> + Send + Sync>;

impl Host {
    /// Adds a memory, which is told to servers that ask.
    pub fn add_progress_source(
        &self,
        source: impl Fn(GroupId) -> Option<GroupProgress> + Send + Sync + 'static,
    ) {
        lock(&self.inner.progress_sources).push(Box::new(source));
    }

    /// Takes an operator's word that what came after these entries, by namespace, is lost.
    pub fn accept_losses(&self, losses: BTreeMap<String, u64>) {
        *lock(&self.inner.accepted_losses) = losses;
    }

    /// Asks others of a group and compares their answers with the disk. Gives what the disk turns out
    /// to be, and what they say of this server's membership.
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

    /// What a replica that starts takes care of, with its disk as it is.
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
        // A candidate is given up after the shortest election, and votes take their time too.
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

    /// Whether an operator accepted the loss of what came after an entry: exactly after that one, so
    /// that the word does not hold for another disk, nor for a later loss.
    pub(super) fn accepts_loss(&self, namespace: &str, last_index: u64) -> bool {
        lock(&self.inner.accepted_losses).get(namespace) == Some(&last_index)
    }

    pub(crate) fn reported_progress(&self, group: GroupId) -> Option<GroupProgress> {
        lock(&self.inner.progress_sources).iter().find_map(|source| source(group))
    }
}

/// The audit of an act that loses what clients were told to be safe.
fn log_accepted_loss(namespace: &str, later: LostProgress) {
    tracing::error!(
        namespace,
        %later,
        "LOSS ACCEPTED: this replica goes on with a disk that went back, as --accept-loss says; what \
         was acknowledged after entry {} may be lost",
        later.last_index()
    );
}
