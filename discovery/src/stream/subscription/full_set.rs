//! State of the world, clusters and listeners: a response holds all resources of the type.
//!
//! The client deletes what is missing from a set. So for a resource that the client rejected, the
//! set still holds the content that the client accepted last. And a removed resource stays in the
//! set until nothing uses it. The snapshot no longer has these contents, so they are kept here when
//! the snapshot changes.

use std::collections::BTreeSet;

use super::{Batch, Due, Form, Held, LastSent, Subscription};
use crate::resource::{Name, Resource, Version};
use crate::snapshot::{Snapshot, version_of};

impl Subscription {
    /// Takes over the version of the set that the client accepted last on an earlier stream.
    ///
    /// The version of a set is the sum of the hashes of its resources. So it shows not only whether
    /// the client has everything, but also whether it lacks exactly one resource: one that it
    /// rejected, or that is new.
    pub(crate) fn claim_set(&mut self, version: &str, snapshot: &Snapshot) {
        if self.form != Form::FullSet || version.is_empty() {
            return;
        }
        let all = self.all_wanted(snapshot);
        let whole = version_of(all.iter().copied());
        let missing = Version::parse(version).map(|it| whole.hash().wrapping_sub(it.hash()));
        let lacks = |it: &Resource| Some(it.share()) == missing;
        let lacking = all.iter().position(|it| lacks(it));
        if missing != Some(0) && lacking.is_none() {
            self.holds_unknown = true;
            return;
        }
        for (at, resource) in all.into_iter().enumerate() {
            if Some(at) != lacking {
                let held = Held { last_sent: LastSent::Unknown, acked: Some(resource.version()) };
                self.open(resource.name(), held, snapshot);
            }
        }
    }

    /// Whether the client may hold resources that this stream does not know of.
    pub(crate) const fn holds_unknown(&self) -> bool {
        self.holds_unknown
    }

    /// The client accepted a set.
    pub(crate) fn accept_set(&mut self) {
        self.holds_unknown = false;
        if self.open.is_empty() {
            self.kept.clear();
        }
    }

    /// Keeps a content that the next snapshot may not have, if the client was sent or has accepted
    /// it.
    pub(super) fn keep(&mut self, resource: &Resource, snapshot: &Snapshot) {
        let (name, version) = (resource.name(), resource.version());
        if self.held(name, snapshot).has(version) {
            self.kept.insert((name.clone(), version), resource.clone());
        }
    }

    pub(super) fn take_set(
        &mut self,
        mut is_due: bool,
        snapshot: &Snapshot,
        retire: bool,
    ) -> Option<Batch> {
        let mut batch = Batch::default();
        is_due |= self.open.has_puts();
        for (name, due) in self.gone() {
            // The answer to a name that is not there is a set without it, in case the client once
            // had it. A client that never had it waits for its own timer.
            if due == Due::Absent || (retire && !self.postponed.contains(&name)) {
                is_due = true;
                self.open.remove(&name);
                batch.gone.push(name);
            }
        }
        if !is_due {
            return None;
        }
        for resource in self.all_wanted(snapshot) {
            if self.rejected(resource.name(), snapshot).is_some() {
                self.push_accepted(&mut batch, resource.name(), snapshot);
            } else {
                self.put(&mut batch, resource);
            }
        }
        self.push_removed(&mut batch, snapshot);
        Some(batch)
    }

    /// The set that the client accepted last, with some resources that it rejected. Other changes
    /// wait, so that a rejection can only be caused by these resources.
    pub(super) fn take_trial_set(&mut self, names: &[Name], snapshot: &Snapshot) -> Batch {
        let on_trial: BTreeSet<&Name> =
            names.iter().filter(|it| self.rejected(it, snapshot).is_some()).collect();
        let mut batch = Batch::default();
        if on_trial.is_empty() {
            return batch;
        }
        for resource in self.all_wanted(snapshot) {
            if on_trial.contains(resource.name()) {
                self.put(&mut batch, resource);
            } else {
                self.push_accepted(&mut batch, resource.name(), snapshot);
            }
        }
        self.push_removed(&mut batch, snapshot);
        batch
    }

    fn gone(&self) -> Vec<(Name, Due)> {
        self.open.gone().map(|(name, it)| (name.clone(), it.due.clone())).collect()
    }

    /// Adds resources that were removed, or left the wildcard, and wait until nothing uses them.
    fn push_removed(&mut self, batch: &mut Batch, snapshot: &Snapshot) {
        for (name, _) in self.gone().into_iter().filter(|it| it.1 == Due::Retire) {
            let last_sent = match self.held(&name, snapshot).last_sent {
                LastSent::Version(version) => self.content(&name, version, snapshot),
                LastSent::Nothing
                | LastSent::Unknown
                | LastSent::Rejected(_)
                | LastSent::Missing => None,
            };
            match last_sent {
                Some(resource) => batch.push(resource),
                None => self.push_accepted(batch, &name, snapshot),
            }
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.retain(|(name, version), _| self.held(name, snapshot).has(*version));
        self.kept = kept;
    }

    /// Adds the content of a name that the client accepted last, if it accepted any.
    fn push_accepted(&self, batch: &mut Batch, name: &Name, snapshot: &Snapshot) {
        let acked = self.held(name, snapshot).acked;
        if let Some(resource) = acked.and_then(|it| self.content(name, it, snapshot)) {
            batch.push(resource);
        }
    }

    fn content(&self, name: &Name, version: Version, snapshot: &Snapshot) -> Option<Resource> {
        match snapshot.get(self.kind, name) {
            Some(resource) if resource.version() == version => Some(resource.clone()),
            Some(_) | None => self.kept.get(&(name.clone(), version)).cloned(),
        }
    }

    fn all_wanted<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a Resource> {
        if self.wildcard {
            snapshot
                .resources(self.kind)
                .filter(|it| it.in_wildcard() || self.names.contains(it.name()))
                .collect()
        } else {
            self.names.iter().filter_map(|name| snapshot.get(self.kind, name)).collect()
        }
    }
}
