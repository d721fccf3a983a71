//! What one client asked for, of one resource type, and what it already has.
//!
//! A client that has accepted everything has what the snapshot has, and that is not written down
//! anywhere: a subscription keeps the names that the client asked for, and only for the names where
//! the client has something else, what that is ([`Open`]). So a client at rest costs a pointer a
//! name, and a change costs what it changes.
//!
//! What is due of an open name is determined when something happens to the name: it is asked for,
//! sent, answered, or changed by the next snapshot ([`Held::due`]).
//!
//! Quoted sections are those of the xDS protocol document. Nonces, the order of types and the form
//! of responses belong to the [stream](crate::stream).

use std::collections::{BTreeMap, BTreeSet};

use crate::resource::{Name, Part, Resource, ResourceType, Version};
use crate::snapshot::{Changed, Snapshot};

mod asking;
mod batch;
mod full_set;
mod name_set;
mod open;
#[cfg(test)]
mod tests;

pub(crate) use batch::Batch;
use name_set::NameSet;
pub(crate) use open::Due;
use open::{Entry, Held, LastSent, Open};

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
/// Invariant: a name that is not in `open` is held as the snapshot has it, see
/// [`Subscription::held`].
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
    names: NameSet,
    open: Open,
    /// Names whose removal is due, but waits until the stream has switched to the next snapshot.
    postponed: BTreeSet<Name>,
    /// Full sets: contents that the client was sent or accepted, and that the snapshot no longer
    /// holds.
    kept: BTreeMap<(Name, Version), Resource>,
    /// Full sets: the client holds an unknown set from an earlier stream and has accepted none on
    /// this one. It might delete resources that a set leaves out.
    holds_unknown: bool,
    /// State of the world: a hash of the names in the latest request.
    list: Option<u64>,
}

impl Subscription {
    pub(crate) fn new(kind: ResourceType, form: Form) -> Self {
        Self {
            kind,
            form,
            wildcard: false,
            named: false,
            response_required: false,
            names: NameSet::default(),
            open: Open::default(),
            postponed: BTreeSet::new(),
            kept: BTreeMap::new(),
            holds_unknown: false,
            list: None,
        }
    }

    // === What happens to resources ===

    /// These names may have changed from the snapshot `earlier` to the snapshot that the client is
    /// sent by now.
    pub(crate) fn changed(&mut self, names: &Changed, earlier: &Snapshot, snapshot: &Snapshot) {
        for name in names.iter() {
            if !(self.wildcard || self.names.contains(name)) {
                continue;
            }
            if self.form == Form::FullSet
                && let Some(resource) = earlier.get(self.kind, name)
            {
                self.keep(resource, earlier);
            }
            let held = self.held(name, earlier);
            self.open(name, held, snapshot);
        }
    }

    /// Determines which removals wait for the next snapshot: of names that `latest` holds again,
    /// and all of them if `are_used`, that is if users of the next snapshot may use them.
    pub(crate) fn postpone_removals(&mut self, latest: &Snapshot, are_used: bool) {
        let is_retired = |it: &(&Name, &Entry)| it.1.due == Due::Retire;
        let names = self.open.gone().filter(is_retired).map(|it| it.0);
        let waits = |name: &&Name| are_used || self.wanted(name, latest).is_some();
        self.postponed = names.filter(waits).cloned().collect();
    }

    pub(crate) fn has_postponed(&self) -> bool {
        !self.postponed.is_empty()
    }

    /// Sends a name again although nothing has changed, because the client was sent what refers to
    /// it. Content that it rejected may be right there, and the answer that there is none ends its
    /// wait. Does nothing if the client has not asked for the name.
    pub(crate) fn send_again(&mut self, name: &Name, snapshot: &Snapshot) {
        if self.names.contains(name) {
            self.mark_unknown(name, snapshot);
        }
    }

    /// A response must be sent, even an empty one.
    pub(crate) fn require_response(&mut self) {
        self.response_required = true;
    }

    /// Notes what the client has of a name, unless it is what the snapshot has.
    fn open(&mut self, name: &Name, held: Held, snapshot: &Snapshot) {
        let wanted = self.wanted(name, snapshot);
        if self.is_settled(name, &held, wanted) {
            self.open.remove(name);
        } else {
            let due = held.due(wanted);
            self.open.insert(name.clone(), Entry { held, due });
        }
    }

    /// Marks a name as unknown to the client, which waits for an answer.
    fn mark_unknown(&mut self, name: &Name, snapshot: &Snapshot) {
        let acked = self.held(name, snapshot).acked;
        self.open(name, Held { last_sent: LastSent::Unknown, acked }, snapshot);
    }

    /// Whether a name need not be open.
    fn is_settled(&self, name: &str, held: &Held, wanted: Option<&Resource>) -> bool {
        let settled = self.settled(name, wanted);
        // Only a full set must be accepted before it is known what the client has.
        held.last_sent == settled.last_sent
            && (self.form != Form::FullSet || held.acked == settled.acked)
    }

    // === What is due ===

    /// Whether a response is due, including removals that wait for their turn.
    pub(crate) fn has_due(&self) -> bool {
        self.response_required
            || self.open.has_puts()
            || (self.form != Form::Part
                && self
                    .open
                    .gone()
                    .any(|(name, it)| it.due == Due::Absent || !self.postponed.contains(name)))
    }

    /// Whether a removal waits for its turn.
    pub(crate) fn has_removal_due(&self) -> bool {
        self.form != Form::Part
            && self
                .open
                .gone()
                .any(|(name, it)| it.due == Due::Retire && !self.postponed.contains(name))
    }

    /// Whether something is due that users wait for.
    pub(crate) fn has_due_before_users(&self) -> bool {
        self.response_required || self.open.puts().any(|(_, it)| self.precedes_users(&it.held))
    }

    /// Whether users wait for a resource that is due. The client must know a cluster before a route
    /// uses it, and the endpoints that the cluster waits for. Further endpoints of a cluster in use
    /// matter to requests, not to routes.
    fn precedes_users(&self, held: &Held) -> bool {
        let is_known = matches!(held.last_sent, LastSent::Version(_));
        self.kind.part() == Part::Used && !(self.kind.is_fresh() && is_known)
    }

    pub(crate) fn names(&self) -> usize {
        self.names.len()
    }

    /// The names that the client asked for, in order.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &Name> {
        self.names.iter()
    }

    pub(crate) fn has_asked(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether the client has accepted everything, as far as it must.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.open.is_empty() && !self.response_required && !self.holds_unknown
    }

    /// What the client has of a name: what was noted, or else what the snapshot has.
    fn held(&self, name: &str, snapshot: &Snapshot) -> Held {
        let noted = self.open.held(name);
        noted.unwrap_or_else(|| self.settled(name, self.wanted(name, snapshot)))
    }

    /// What a client has of a name when nothing is left to be sent or accepted.
    fn settled(&self, name: &str, wanted: Option<&Resource>) -> Held {
        match wanted.map(Resource::version) {
            Some(version) => Held { last_sent: LastSent::Version(version), acked: Some(version) },
            None if self.names.contains(name) => Held::new(LastSent::Missing),
            None => Held::new(LastSent::Nothing),
        }
    }

    fn wanted<'a>(&self, name: &str, snapshot: &'a Snapshot) -> Option<&'a Resource> {
        let resource = snapshot.get(self.kind, name)?;
        let wanted = (self.wildcard && resource.in_wildcard()) || self.names.contains(name);
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
            Form::Difference | Form::Part => self.take_due(retire),
            Form::FullSet => self.take_set(response_required, snapshot, retire)?,
        };
        (response_required || self.form == Form::FullSet || !batch.is_empty()).then_some(batch)
    }

    fn take_due(&mut self, retire: bool) -> Batch {
        let mut batch = Batch::default();
        if !self.open.has_due() {
            return batch;
        }
        let mut left = Vec::new();
        for (name, entry) in self.open.take() {
            let is_postponed = || !retire || self.postponed.contains(&name);
            match &entry.due {
                Due::Put(resource) if batch.has_room_for(resource) => {
                    self.push(&mut batch, resource.clone(), &entry.held);
                }
                Due::Absent | Due::Retire if self.form == Form::Part => {}
                Due::Retire if is_postponed() => left.push((name, entry)),
                // "Resource does not exist": the client stays subscribed to the name, and is
                // answered when the resource appears.
                Due::Absent | Due::Retire => batch.gone.push(name),
                Due::Put(_) | Due::Nothing => left.push((name, entry)),
            }
        }
        self.open.extend(left);
        batch
    }

    /// Takes rejected resources for a trial, apart from anything else that is due.
    pub(crate) fn take_trial(&mut self, names: &[Name], snapshot: &Snapshot) -> Option<Batch> {
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
        let rejected = self.open.held(name)?.last_sent;
        self.wanted(name, snapshot).filter(|it| rejected == LastSent::Rejected(it.version()))
    }

    /// The version of a name in the snapshot, if the client wants it.
    pub(crate) fn wanted_version(&self, name: &str, snapshot: &Snapshot) -> Option<Version> {
        self.wanted(name, snapshot).map(Resource::version)
    }

    /// The client accepted a response with this resource.
    pub(crate) fn accept(&mut self, name: &Name, version: Version, snapshot: &Snapshot) {
        if !self.open.accept(name, version) {
            self.mark_if_maybe_held(name, snapshot);
        }
    }

    /// Whether an accepted response that was made from a snapshot changes nothing here: it was sent
    /// as a difference, and nothing has happened since.
    pub(crate) fn is_accepted_at_once(&self) -> bool {
        self.form != Form::FullSet && self.open.is_empty()
    }

    /// The client rejected a response with this resource. Returns whether the resource is a
    /// suspect: not if its content has changed since, nor if a full set only repeated accepted
    /// content.
    pub(crate) fn reject(&mut self, name: &Name, version: Version, snapshot: &Snapshot) -> bool {
        let held = self.held(name, snapshot);
        let is_repeated = self.form == Form::FullSet && held.acked == Some(version);
        match held.last_sent {
            LastSent::Version(sent) if sent == version && !is_repeated => {
                self.open(name, Held { last_sent: LastSent::Rejected(version), ..held }, snapshot);
                true
            }
            LastSent::Nothing => {
                self.mark_if_maybe_held(name, snapshot);
                false
            }
            LastSent::Version(_)
            | LastSent::Unknown
            | LastSent::Rejected(_)
            | LastSent::Missing => false,
        }
    }

    /// The client rejected a response with this removal, so the removal is sent again.
    pub(crate) fn reject_removal(&mut self, name: &Name, snapshot: &Snapshot) {
        let is_asked = self.wildcard || self.names.contains(name);
        let last_sent = self.held(name, snapshot).last_sent;
        if is_asked && matches!(last_sent, LastSent::Missing | LastSent::Nothing) {
            self.mark_unknown(name, snapshot);
        }
    }

    /// A response with this name was under way while the client dropped the wildcard and asked for
    /// it again. If the name is gone since, the client may still hold it, so its removal is sent.
    fn mark_if_maybe_held(&mut self, name: &Name, snapshot: &Snapshot) {
        if self.wildcard && self.held(name, snapshot).last_sent == LastSent::Nothing {
            self.mark_unknown(name, snapshot);
        }
    }

    /// Adds a resource that the snapshot has to a response.
    fn put(&mut self, batch: &mut Batch, resource: &Resource) {
        let (name, version) = (resource.name(), resource.version());
        let noted = self.open.held(name);
        let held = noted.unwrap_or_else(|| self.settled(name, Some(resource)));
        self.push(batch, resource.clone(), &held);
        let held = Held { last_sent: LastSent::Version(version), acked: held.acked };
        if self.is_settled(name, &held, Some(resource)) {
            self.open.remove(name);
        } else {
            self.open.insert(name.clone(), Entry { held, due: Due::Nothing });
        }
    }

    /// Adds a resource to a response, of which the client has `held` so far.
    fn push(&self, batch: &mut Batch, resource: Resource, held: &Held) {
        // A client that has accepted no set may not have kept what it was sent in one.
        if held.last_sent != LastSent::Version(resource.version()) || self.holds_unknown {
            batch.precedes_users |= self.precedes_users(held);
            batch.references.extend(resource.references().iter().cloned());
        }
        batch.push(resource);
    }
}
