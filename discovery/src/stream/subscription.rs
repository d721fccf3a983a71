//! What one client asked for, of one resource type, and what it already has.
//!
//! A subscription compares three things: the names that the client asked for, what it was last sent
//! of each name, and the snapshot. [`Subscription::due`] makes that comparison for one name.
//! Everything else maintains `pending`, the names for which something may be due. So the cost of a
//! change depends on the number of changed names, not on the size of the subscription.
//!
//! Quoted sections are those of the xDS protocol document. Nonces, the order of types and the form
//! of responses belong to the [stream](crate::stream).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resource::{Resource, ResourceType, Version};
use crate::snapshot::Snapshot;

mod batch;
mod full_set;
mod names;
#[cfg(test)]
mod tests;

pub(crate) use batch::Batch;

/// The name that stands for all resources of a type.
const WILDCARD: &str = "*";

/// What the content of a response means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Delta: resources that changed, and names that are gone.
    Difference,
    /// State of the world, clusters and listeners: all resources. A missing one is removed.
    FullSet,
    /// State of the world, other types: some resources. A missing one is unchanged. A removal
    /// cannot be expressed; the client learns of it from the cluster or listener that used the
    /// resource.
    Part,
}

/// One client's interest in one type.
///
/// Invariant: `held` has an entry for a name only if the client asked for it, or was sent it under
/// a wildcard and was not sent its removal. So a name that is held but no longer wanted is a
/// removal that is due.
#[derive(Debug)]
pub(crate) struct Subscription {
    kind: ResourceType,
    form: Form,
    /// The client asked for all resources of the type.
    wildcard: bool,
    /// Some request gave a name: an empty list no longer means a wildcard.
    named: bool,
    /// A wildcard must be answered, even with an empty response. Clients wait for that answer
    /// before they finish their start.
    response_required: bool,
    names: BTreeSet<Arc<str>>,
    held: BTreeMap<Arc<str>, Held>,
    pending: BTreeSet<Arc<str>>,
    /// Names whose removal is due, but waits until the stream has switched to the next snapshot.
    postponed: BTreeSet<Arc<str>>,
    /// Full sets: contents that the client was sent or accepted, and that the snapshot no longer
    /// holds.
    kept: BTreeMap<(Arc<str>, Version), Resource>,
    /// Full sets: the client holds an unknown set from an earlier stream and has accepted none on
    /// this one. It might delete resources that a set leaves out.
    holds_unknown: bool,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    last_sent: LastSent,
    /// The version of the last response with this name that the client accepted.
    acked: Option<Version>,
}

/// What the client was last sent of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastSent {
    /// It may have dropped what it was sent, and waits for an answer.
    Unknown,
    /// This content.
    Version(Version),
    /// This content, in a response that it rejected. It may have applied it or not. The same
    /// content is sent again only as a trial.
    Rejected(Version),
    /// That the resource does not exist.
    Missing,
}

/// What is to be sent of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due<'a> {
    Nothing,
    /// The resource.
    Put(&'a Resource),
    /// The answer that there is no such resource.
    Absent,
    /// The removal of something the client has.
    Retire,
}

impl Subscription {
    pub(crate) fn new(kind: ResourceType, form: Form) -> Self {
        Self {
            kind,
            form,
            wildcard: false,
            named: false,
            response_required: false,
            names: BTreeSet::new(),
            held: BTreeMap::new(),
            pending: BTreeSet::new(),
            postponed: BTreeSet::new(),
            kept: BTreeMap::new(),
            holds_unknown: false,
        }
    }

    /// Marks a name as unknown to the client, which waits for an answer.
    fn mark_unknown(&mut self, name: &Arc<str>) {
        let acked = self.held.get(name).and_then(|held| held.acked);
        self.held.insert(Arc::clone(name), Held { last_sent: LastSent::Unknown, acked });
        self.pending.insert(Arc::clone(name));
    }

    // === What happens to resources ===

    /// These names may have changed since the snapshot `earlier`.
    pub(crate) fn changed(
        &mut self,
        names: impl IntoIterator<Item = Arc<str>>,
        earlier: &Snapshot,
    ) {
        for name in names {
            if !(self.wildcard || self.names.contains(&name)) {
                continue;
            }
            if self.form == Form::FullSet
                && let Some(resource) = earlier.get(self.kind, &name)
            {
                self.keep(resource);
            }
            self.pending.insert(name);
        }
    }

    /// Determines which removals wait for the next snapshot: of names that `latest` holds again,
    /// and all of them if `are_used`, that is if listeners or routes of the next snapshot may use
    /// them.
    pub(crate) fn postpone_removals(
        &mut self,
        snapshot: &Snapshot,
        latest: &Snapshot,
        are_used: bool,
    ) {
        let waits = |name: &&Arc<str>| {
            self.due(name, snapshot) == Due::Retire
                && (are_used || self.wanted(name, latest).is_some())
        };
        self.postponed = self.pending.iter().filter(waits).cloned().collect();
    }

    pub(crate) fn has_postponed(&self) -> bool {
        !self.postponed.is_empty()
    }

    /// Sends a name again although nothing has changed, because the client was sent its cluster.
    /// Content that it rejected may be right for that cluster, and the answer that there is none
    /// ends its wait. Returns false if the client has not asked for the name.
    pub(crate) fn send_again(&mut self, name: &Arc<str>) -> bool {
        let is_asked = self.names.contains(name);
        if is_asked {
            self.mark_unknown(name);
        }
        is_asked
    }

    /// A response must be sent, even an empty one.
    pub(crate) fn require_response(&mut self) {
        self.response_required = true;
    }

    // === What is due ===

    /// Compares what the client wants, what it was last sent, and the snapshot.
    pub(crate) fn due<'a>(&self, name: &str, snapshot: &'a Snapshot) -> Due<'a> {
        match (self.wanted(name, snapshot), self.last_sent(name)) {
            (Some(resource), Some(LastSent::Version(version) | LastSent::Rejected(version)))
                if version == resource.version() =>
            {
                Due::Nothing
            }
            (Some(resource), _) => Due::Put(resource),
            (None, Some(LastSent::Unknown)) => Due::Absent,
            (None, Some(LastSent::Version(_) | LastSent::Rejected(_))) => Due::Retire,
            (None, Some(LastSent::Missing) | None) => Due::Nothing,
        }
    }

    /// Whether a response is due, including removals that wait for their turn.
    pub(crate) fn has_due(&self, snapshot: &Snapshot) -> bool {
        self.response_required
            || self.pending.iter().any(|name| match self.due(name, snapshot) {
                Due::Nothing => false,
                Due::Put(_) => true,
                Due::Absent => self.form != Form::Part,
                Due::Retire => self.form != Form::Part && !self.postponed.contains(name),
            })
    }

    /// Whether a removal waits for its turn.
    pub(crate) fn has_removal_due(&self, snapshot: &Snapshot) -> bool {
        self.form != Form::Part
            && self.pending.iter().any(|name| {
                self.due(name, snapshot) == Due::Retire && !self.postponed.contains(name)
            })
    }

    /// Whether something is due that listeners and routes wait for.
    pub(crate) fn has_due_before_users(&self, snapshot: &Snapshot) -> bool {
        self.response_required
            || self.pending.iter().any(|name| {
                matches!(self.due(name, snapshot), Due::Put(_)) && self.precedes_users(name)
            })
    }

    /// Whether listeners and routes wait for this name. The client must know a cluster before a
    /// route uses it, and the endpoints that the cluster waits for. Further endpoints of a cluster
    /// in use matter to requests, not to routes.
    fn precedes_users(&self, name: &str) -> bool {
        self.kind == ResourceType::Cluster
            || !matches!(self.last_sent(name), Some(LastSent::Version(_)))
    }

    pub(crate) fn names(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn has_asked(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The version that the client accepted last.
    pub(crate) fn acked(&self, name: &str) -> Option<Version> {
        self.held.get(name).and_then(|held| held.acked)
    }

    fn last_sent(&self, name: &str) -> Option<LastSent> {
        self.held.get(name).map(|held| held.last_sent)
    }

    fn wanted<'a>(&self, name: &str, snapshot: &'a Snapshot) -> Option<&'a Resource> {
        let resource = snapshot.get(self.kind, name)?;
        let wanted = self.names.contains(name) || (self.wildcard && resource.in_wildcard());
        wanted.then_some(resource)
    }

    // === What is sent ===

    /// Takes the content of the next response; None if none is due.
    ///
    /// Unless `retire` is set, removals wait: the client keeps the resource, and a full set still
    /// holds it.
    pub(crate) fn take(&mut self, snapshot: &Snapshot, retire: bool) -> Option<Batch> {
        let response_required = std::mem::take(&mut self.response_required);
        let batch = match self.form {
            Form::Difference | Form::Part => self.take_due(snapshot, retire),
            Form::FullSet => self.take_set(response_required, snapshot, retire)?,
        };
        (response_required || self.form == Form::FullSet || !batch.is_empty()).then_some(batch)
    }

    fn take_due(&mut self, snapshot: &Snapshot, retire: bool) -> Batch {
        let mut batch = Batch::default();
        for name in std::mem::take(&mut self.pending) {
            match self.due(&name, snapshot) {
                Due::Nothing => {}
                Due::Put(resource) if batch.has_room_for(resource) => {
                    self.put(&mut batch, resource);
                }
                Due::Absent | Due::Retire if self.form == Form::Part => self.mark_gone(&name),
                Due::Absent => self.push_removal(&mut batch, name),
                Due::Retire if retire && !self.postponed.contains(&name) => {
                    self.push_removal(&mut batch, name);
                }
                Due::Put(_) | Due::Retire => {
                    self.pending.insert(name);
                }
            }
        }
        batch
    }

    /// Takes rejected resources for a trial, apart from anything else that is due.
    pub(crate) fn take_trial(&mut self, names: &[Arc<str>], snapshot: &Snapshot) -> Option<Batch> {
        let batch = match self.form {
            Form::FullSet => self.take_trial_set(names, snapshot),
            Form::Difference | Form::Part => {
                let mut batch = Batch::default();
                for name in names {
                    if let Some(resource) = self.rejected(name, snapshot) {
                        self.put(&mut batch, resource);
                    }
                }
                batch
            }
        };
        (!batch.is_empty()).then_some(batch)
    }

    /// The resource, if the client wants it and rejected a response with this content.
    pub(crate) fn rejected<'a>(&self, name: &str, snapshot: &'a Snapshot) -> Option<&'a Resource> {
        let rejected = self.last_sent(name);
        self.wanted(name, snapshot).filter(|it| rejected == Some(LastSent::Rejected(it.version())))
    }

    /// The version of a name in the snapshot, if the client wants it.
    pub(crate) fn wanted_version(&self, name: &str, snapshot: &Snapshot) -> Option<Version> {
        self.wanted(name, snapshot).map(Resource::version)
    }

    /// The client accepted a response with this resource.
    pub(crate) fn accept(&mut self, name: &Arc<str>, version: Version) {
        match self.held.get_mut(name) {
            Some(held) => held.acked = Some(version),
            None => self.mark_maybe_held(name),
        }
    }

    /// The client rejected a response with this resource. Returns whether the resource is a
    /// suspect: not if its content has changed since, nor if a full set only repeated accepted
    /// content.
    pub(crate) fn reject(&mut self, name: &Arc<str>, version: Version) -> bool {
        let is_full_set = self.form == Form::FullSet;
        match self.held.get_mut(name) {
            Some(held) if is_full_set && held.acked == Some(version) => false,
            Some(held) if held.last_sent == LastSent::Version(version) => {
                held.last_sent = LastSent::Rejected(version);
                true
            }
            Some(_) => false,
            None => {
                self.mark_maybe_held(name);
                false
            }
        }
    }

    /// The client rejected a response with this removal, so the removal is sent again.
    pub(crate) fn reject_removal(&mut self, name: &Arc<str>) {
        let is_asked = self.wildcard || self.names.contains(name);
        if is_asked && matches!(self.last_sent(name), Some(LastSent::Missing) | None) {
            self.mark_unknown(name);
        }
    }

    /// A response with this name was under way while the client dropped the wildcard and asked for
    /// it again. The client may hold the resource, so it is sent again.
    fn mark_maybe_held(&mut self, name: &Arc<str>) {
        if self.wildcard {
            self.mark_unknown(name);
        }
    }

    fn put(&mut self, batch: &mut Batch, resource: &Resource) {
        let name = resource.name();
        let last_sent = LastSent::Version(resource.version());
        // A client that has accepted no set may not have kept what it was sent in one.
        if self.last_sent(name) != Some(last_sent) || self.holds_unknown {
            batch.precedes_users |= self.precedes_users(name);
            batch.awaits.extend(resource.awaits().iter().cloned());
        }
        let acked = self.acked(name);
        self.held.insert(Arc::clone(name), Held { last_sent, acked });
        batch.push(resource.clone());
    }

    fn push_removal(&mut self, batch: &mut Batch, name: Arc<str>) {
        self.mark_gone(&name);
        batch.gone.push(name);
    }

    /// "Resource does not exist": the client stays subscribed to the name, and is answered when the
    /// resource appears.
    fn mark_gone(&mut self, name: &Arc<str>) {
        if self.names.contains(name) {
            let gone = Held { last_sent: LastSent::Missing, acked: None };
            self.held.insert(Arc::clone(name), gone);
        } else {
            self.held.remove(name);
        }
    }
}
