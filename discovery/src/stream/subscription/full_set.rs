//! State of the world, clusters and listeners: a response holds all resources of the type.
//!
//! The client deletes what is missing from a set. So for a resource that the client rejected, the
//! set still holds the content that the client accepted last. And a removed resource stays in the
//! set until nothing uses it. The snapshot no longer has these contents, so they are kept here when
//! the snapshot changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Batch, Due, Form, Held, LastSent, Subscription};
use crate::resource::{Resource, Version};
use crate::snapshot::{Snapshot, hash_of, version_of};

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
        let lacks = |it: &Resource| Some(hash_of(it)) == missing;
        let lacking = all.iter().position(|it| lacks(it));
        if missing != Some(0) && lacking.is_none() {
            self.holds_unknown = true;
            return;
        }
        for (at, resource) in all.into_iter().enumerate() {
            if Some(at) != lacking {
                let held = Held { last_sent: LastSent::Unknown, acked: Some(resource.version()) };
                self.held.insert(Arc::clone(resource.name()), held);
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
    }

    /// Keeps a content that the snapshot no longer has, if the client was sent or has accepted it.
    pub(super) fn keep(&mut self, resource: &Resource) {
        let version = resource.version();
        let has = |held: &Held| {
            held.last_sent == LastSent::Version(version) || held.acked == Some(version)
        };
        if self.held.get(resource.name()).is_some_and(has) {
            self.kept.insert((Arc::clone(resource.name()), version), resource.clone());
        }
    }

    pub(super) fn take_set(
        &mut self,
        mut is_due: bool,
        snapshot: &Snapshot,
        retire: bool,
    ) -> Option<Batch> {
        let mut batch = Batch::default();
        for name in std::mem::take(&mut self.pending) {
            match self.due(&name, snapshot) {
                Due::Nothing => {}
                Due::Put(_) => is_due = true,
                // The answer is a set without it, in case the client once had it. A client that
                // never had it waits for its own timer.
                Due::Absent => {
                    is_due = true;
                    self.push_removal(&mut batch, name);
                }
                Due::Retire if retire && !self.postponed.contains(&name) => {
                    is_due = true;
                    self.push_removal(&mut batch, name);
                }
                Due::Retire => {
                    self.pending.insert(name);
                }
            }
        }
        if !is_due {
            return None;
        }
        for resource in self.all_wanted(snapshot) {
            if self.last_sent(resource.name()) == Some(LastSent::Rejected(resource.version())) {
                self.push_accepted(&mut batch, resource.name(), Some(resource));
            } else {
                self.put(&mut batch, resource);
            }
        }
        self.push_removed(&mut batch, snapshot);
        Some(batch)
    }

    /// The set that the client accepted last, with some resources that it rejected. Other changes
    /// wait, so that a rejection can only be caused by these resources.
    pub(super) fn take_trial_set(&mut self, names: &[Arc<str>], snapshot: &Snapshot) -> Batch {
        let on_trial: BTreeSet<&Arc<str>> =
            names.iter().filter(|it| self.rejected(it, snapshot).is_some()).collect();
        let mut batch = Batch::default();
        if on_trial.is_empty() {
            return batch;
        }
        for resource in self.all_wanted(snapshot) {
            if on_trial.contains(resource.name()) {
                self.put(&mut batch, resource);
            } else {
                self.push_accepted(&mut batch, resource.name(), Some(resource));
            }
        }
        self.push_removed(&mut batch, snapshot);
        batch
    }

    /// Adds resources that were removed, or left the wildcard, and wait until nothing uses them.
    fn push_removed(&mut self, batch: &mut Batch, snapshot: &Snapshot) {
        let waiting: Vec<Arc<str>> = self
            .pending
            .iter()
            .filter(|it| self.due(it, snapshot) == Due::Retire)
            .cloned()
            .collect();
        for name in waiting {
            let current = snapshot.get(self.kind, &name);
            let last_sent = match self.last_sent(&name) {
                Some(LastSent::Version(version)) => self.content(&name, version, current),
                Some(LastSent::Unknown | LastSent::Rejected(_) | LastSent::Missing) | None => None,
            };
            match last_sent {
                Some(resource) => batch.push(resource),
                None => self.push_accepted(batch, &name, current),
            }
        }
        let held = &self.held;
        self.kept.retain(|(name, version), _| {
            held.get(name).is_some_and(|it| {
                it.last_sent == LastSent::Version(*version) || it.acked == Some(*version)
            })
        });
    }

    /// Adds the content of a name that the client accepted last, if it accepted any.
    fn push_accepted(&self, batch: &mut Batch, name: &Arc<str>, current: Option<&Resource>) {
        let accepted = self.acked(name).and_then(|it| self.content(name, it, current));
        if let Some(resource) = accepted {
            batch.push(resource);
        }
    }

    fn content(
        &self,
        name: &Arc<str>,
        version: Version,
        current: Option<&Resource>,
    ) -> Option<Resource> {
        match current {
            Some(resource) if resource.version() == version => Some(resource.clone()),
            Some(_) | None => self.kept.get(&(Arc::clone(name), version)).cloned(),
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
