//! Checks that a replica does not lead or follow against the rules of [`crate::completeness`].
//!
//! Before a replica requests votes, it asks the other members, and servers that may remember the
//! group, which entries they know to be committed. It waits a moment for their answers. For a
//! server that does not answer, its last answer counts; the first answers come from the start of
//! the replica, where there is more time. A leader that transfers its leadership holds every
//! committed entry, so its successor need not ask.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use mesh::{GroupId, Mesh, NodeId};
use openraft::{alias::WatchReceiverOf, async_runtime::watch::WatchReceiver as _};
use tokio::sync::Mutex as AsyncMutex;

use crate::{
    completeness::{Claim, Contradiction, Doubt, Shortfall, compared, contradiction, shortfall},
    log_store::GroupLog,
    recall,
    types::{Entry, LogId, Metrics, TypeConfig},
};

/// Receives openraft's metrics. Unlike a handle it does not keep the group alive.
type MetricsReceiver = WatchReceiverOf<TypeConfig, Metrics>;

/// How long a candidate's doubt must last before it is logged.
const REPORTED_AFTER: Duration = Duration::from_secs(5);

/// The guard of one replica. Clones share it.
#[derive(Clone)]
pub(crate) struct CompletenessGuard {
    inner: Arc<Inner>,
}

struct Inner {
    mesh: Mesh,
    group: GroupId,
    namespace: String,
    log: GroupLog,
    /// How long the others may take to answer.
    patience: Duration,
    /// Whether an operator accepted the loss of entries that are only remembered.
    loss_accepted: bool,
    /// Set once the group runs.
    metrics: OnceLock<MetricsReceiver>,
    /// The last claim of each server. Cleared once a leader is followed.
    claims: Mutex<Vec<Claim>>,
    candidacy: AsyncMutex<Option<Candidacy>>,
    doubt: Mutex<Option<RecordedDoubt>>,
}

/// The outcome of asking the others, for one round of votes.
struct Candidacy {
    term: u64,
    last_index: u64,
    asked: Instant,
    outcome: Option<Shortfall>,
}

/// The latest doubt, and the term that it was found in.
#[derive(Clone, Copy)]
struct RecordedDoubt {
    doubt: Doubt,
    term: u64,
    since: Instant,
    /// Whether it was logged.
    logged: bool,
}

impl CompletenessGuard {
    pub(crate) fn new(
        mesh: Mesh,
        group: GroupId,
        namespace: &str,
        log: GroupLog,
        patience: Duration,
        loss_accepted: bool,
        claims: Vec<Claim>,
    ) -> Self {
        let inner = Inner {
            mesh,
            group,
            namespace: namespace.to_owned(),
            log,
            patience,
            loss_accepted,
            metrics: OnceLock::new(),
            claims: Mutex::new(claims),
            candidacy: AsyncMutex::default(),
            doubt: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn begin(&self, metrics: MetricsReceiver) {
        // A group is started once.
        let _ = self.inner.metrics.set(metrics);
    }

    /// Whether this replica may stand for election in a term, with a log that ends at `last_index`.
    /// The others are asked once per round, however many votes are requested.
    pub(crate) async fn may_campaign(&self, term: u64, last_index: u64) -> Result<(), Shortfall> {
        let Inner { mesh, group, patience, loss_accepted, .. } = &*self.inner;
        let mut candidacy = self.inner.candidacy.lock().await;
        // A round requests pre-votes and votes. The next round begins later than this.
        let current = candidacy.as_ref().filter(|it| {
            (it.term, it.last_index) == (term, last_index) && it.asked.elapsed() < *patience * 2
        });
        if let Some(Candidacy { outcome, .. }) = current {
            return outcome.map_or(Ok(()), Err);
        }
        let asked = Instant::now();
        let answers = recall::ask(mesh, *group, self.members(), *patience).await;
        let outcome = shortfall(last_index, *loss_accepted, &self.learn(answers.claims()));
        *candidacy = Some(Candidacy { term, last_index, asked, outcome });
        drop(candidacy);
        self.note(term, outcome.map(Doubt::Incomplete));
        outcome.map_or(Ok(()), Err)
    }

    /// Whether a leader's message may be accepted. Reads nothing from disk while the leader sends
    /// entries that are not committed here.
    pub(crate) async fn may_follow(
        &self,
        term: u64,
        prev: Option<&LogId>,
        entries: &[Entry],
    ) -> Result<(), Contradiction> {
        let known = self.with_metrics(|metrics| (metrics.current_term, metrics.local_committed));
        // openraft rejects a leader of an earlier term; such a leader's entries may rightly have
        // been replaced.
        let Some((_, Some(committed))) = known.filter(|(current, _)| *current <= term) else {
            return Ok(());
        };
        let ids = entries.iter().map(|entry| &entry.log_id);
        let found = match compared(prev, ids, committed) {
            None => None,
            Some(theirs) if theirs == committed => None,
            Some(theirs) => {
                let ours = self.entry_at(theirs.index, committed).await;
                contradiction(theirs, ours, committed)
            }
        };
        self.note(term, found.map(Doubt::Contradicted));
        if let Some(found) = found {
            return Err(found);
        }
        lock(&self.inner.claims).clear();
        Ok(())
    }

    /// The doubt that holds in `term`, if there is one.
    pub(crate) fn doubt(&self, term: u64, has_leader: bool) -> Option<Doubt> {
        let RecordedDoubt { doubt, term: of, .. } = (*lock(&self.inner.doubt))?;
        match doubt {
            // Another replica was elected since.
            Doubt::Incomplete(_) if has_leader && term >= of => None,
            Doubt::Incomplete(_) | Doubt::Contradicted(_) => Some(doubt),
        }
    }

    fn members(&self) -> Vec<NodeId> {
        let ids = self.with_metrics(|metrics| {
            metrics.membership_config.membership().nodes().map(|(id, _)| *id).collect()
        });
        ids.unwrap_or_default()
    }

    /// Replaces the claims of the servers that answered, and returns all claims.
    fn learn(&self, latest: Vec<Claim>) -> Vec<Claim> {
        let mut claims = lock(&self.inner.claims);
        claims.retain(|known| !latest.iter().any(|claim| claim.source == known.source));
        claims.extend(latest);
        claims.clone()
    }

    fn with_metrics<R>(&self, look: impl FnOnce(&Metrics) -> R) -> Option<R> {
        self.inner.metrics.get().map(|metrics| look(&metrics.borrow_watched()))
    }

    /// The entry here at an index at or below the committed one; none if it was purged.
    async fn entry_at(&self, index: u64, committed: LogId) -> Option<LogId> {
        if index == committed.index {
            return Some(committed);
        }
        self.inner.log.log_id_at(index).await
    }

    fn note(&self, term: u64, doubt: Option<Doubt>) {
        let mut noted = lock(&self.inner.doubt);
        let before = noted.take();
        *noted = doubt.map(|doubt| match before {
            Some(known) if known.doubt == doubt => RecordedDoubt { term, ..known },
            Some(_) | None => RecordedDoubt { doubt, term, since: Instant::now(), logged: false },
        });
        let due =
            noted.as_mut().filter(|it| !it.logged && it.since.elapsed() >= it.reported_after());
        if let Some(due) = due {
            due.logged = true;
            let namespace = &self.inner.namespace;
            tracing::error!(namespace, term, "this replica {}", due.doubt);
        }
    }
}

impl RecordedDoubt {
    /// How long the doubt must last before it is logged. In an ordinary election a replica that is
    /// a few entries behind may be the first to stand, and another one is elected soon.
    fn reported_after(&self) -> Duration {
        match self.doubt {
            Doubt::Incomplete(_) => REPORTED_AFTER,
            Doubt::Contradicted(_) => Duration::ZERO,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
