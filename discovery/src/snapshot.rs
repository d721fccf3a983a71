//! The snapshot: all resources for clients, at one revision of the registry.
//!
//! A snapshot never changes; [`Snapshot::with_changes`] makes the next one, which shares everything
//! but the changed resources and the path to them in a persistent map. So a change costs the same
//! whether there are a hundred resources or a hundred thousand. A snapshot remembers the names that
//! changed in its last few steps, so that a stream that is only a few steps behind finds the changes
//! without comparing. A stream that is further behind compares what the two snapshots do not share.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use imbl::{OrdMap, ordmap::DiffItem};

use crate::resource::{Name, Resource, ResourceChange, ResourceType, Version};

#[cfg(test)]
mod tests;

/// Steps whose changed names a snapshot remembers.
const REMEMBERED_STEPS: usize = 32;

/// How many resources are walked over in the time of one that is looked up.
const WALKED: usize = 8;

/// All resources at one revision. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<Content>);

#[derive(Clone, Debug)]
struct Content {
    revision: u64,
    sets: [Arc<Set>; ResourceType::COUNT],
    steps: VecDeque<Arc<Step>>,
}

/// The resources of one type.
#[derive(Clone, Debug, Default)]
struct Set {
    resources: OrdMap<Name, Resource>,
    /// The sum of the hashes of names and versions. It does not depend on the order of changes, so
    /// replicas agree, and a step updates it at the cost of its own changes.
    version: Version,
}

/// The names that changed between a revision and the next.
#[derive(Debug)]
struct Step {
    from: u64,
    names: [Vec<Name>; ResourceType::COUNT],
}

/// Names of one type that may have changed between two snapshots.
#[derive(Clone, Debug)]
pub struct Changed(Names);

#[derive(Clone, Debug)]
enum Names {
    None,
    /// Those of one step, which all streams share.
    Step(Arc<Step>, ResourceType),
    Set(BTreeSet<Name>),
}

impl Snapshot {
    /// Before the first revision: no resources.
    pub fn empty() -> Self {
        let steps = VecDeque::with_capacity(REMEMBERED_STEPS);
        Self(Arc::new(Content { revision: 0, sets: Default::default(), steps }))
    }

    /// The snapshot of a later revision. Changes without effect are ignored.
    pub fn with_changes(
        &self,
        revision: u64,
        changes: impl IntoIterator<Item = ResourceChange>,
    ) -> Self {
        let mut next = Content { revision, ..(*self.0).clone() };
        let mut step = Step { from: self.revision(), names: Default::default() };
        for change in changes {
            if let Some((kind, name)) = next.apply(change) {
                step.names[kind.index()].push(name);
            }
        }
        if next.steps.len() == REMEMBERED_STEPS {
            next.steps.pop_front();
        }
        next.steps.push_back(Arc::new(step));
        Self(Arc::new(next))
    }

    /// The revision of the registry that this snapshot was made from: a Raft log index.
    pub fn revision(&self) -> u64 {
        self.0.revision
    }

    /// Hash of all resources of a type. Replicas with the same content have the same hash.
    pub fn type_version(&self, kind: ResourceType) -> Version {
        self.0.set(kind).version
    }

    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Resource> {
        self.0.set(kind).resources.get(name)
    }

    /// The name with this text, of a resource that there is. Clients that ask for it share it.
    pub fn name(&self, kind: ResourceType, name: &str) -> Option<&Name> {
        self.0.set(kind).resources.get_key_value(name).map(|it| it.0)
    }

    /// Finds many names, which come in order, each once. It is faster than to look up one after the
    /// other.
    pub fn find<'a>(
        &'a self,
        kind: ResourceType,
        names: &[&str],
    ) -> Vec<Option<(&'a Name, &'a Resource)>> {
        let resources = &self.0.set(kind).resources;
        // It pays off to walk over all resources if a good part of them is wanted.
        if names.len() * WALKED < resources.len() {
            return names.iter().map(|it| resources.get_key_value(*it)).collect();
        }
        let mut all = resources.iter().peekable();
        let mut find = |name: &&str| {
            while all.next_if(|it| it.0.as_str() < *name).is_some() {}
            all.next_if(|it| it.0.as_str() == *name)
        };
        names.iter().map(&mut find).collect()
    }

    /// The resources of a type, by name.
    pub fn resources(&self, kind: ResourceType) -> impl Iterator<Item = &Resource> {
        self.0.set(kind).resources.values()
    }

    /// The names of a type that may differ from those of an earlier snapshot of the same registry.
    ///
    /// Every name that differs is included. A name that changed and changed back may be included
    /// too.
    pub fn changed_since(&self, earlier: &Self, kind: ResourceType) -> Changed {
        let (ours, theirs) = (&self.0.sets[kind.index()], &earlier.0.sets[kind.index()]);
        if Arc::ptr_eq(ours, theirs) {
            return Changed(Names::None);
        }
        let steps = &self.0.steps;
        let Some(first) = steps.iter().rposition(|step| step.from == earlier.revision()) else {
            return Changed(Names::Set(ours.difference(theirs)));
        };
        if first + 1 == steps.len() {
            return Changed(Names::Step(Arc::clone(&steps[first]), kind));
        }
        let names = steps.iter().skip(first).flat_map(|step| step.names[kind.index()].iter());
        Changed(Names::Set(names.cloned().collect()))
    }

    /// Whether any resource differs from an earlier snapshot of the same registry, so that clients
    /// need this one.
    pub fn differs_from(&self, earlier: &Self) -> bool {
        ResourceType::all().into_iter().any(|kind| {
            // Every change of a set creates another `Arc`.
            !Arc::ptr_eq(&self.0.sets[kind.index()], &earlier.0.sets[kind.index()])
        })
    }
}

impl Content {
    fn apply(&mut self, change: ResourceChange) -> Option<(ResourceType, Name)> {
        match change {
            ResourceChange::Put(resource) => {
                let (kind, name) = (resource.kind(), resource.name().clone());
                if self.set(kind).resources.get(&name) == Some(&resource) {
                    return None;
                }
                Arc::make_mut(&mut self.sets[kind.index()]).put(resource);
                Some((kind, name))
            }
            ResourceChange::Remove(kind, name) => {
                self.set(kind).resources.get(&name)?;
                Arc::make_mut(&mut self.sets[kind.index()]).remove(&name);
                Some((kind, name))
            }
        }
    }

    fn set(&self, kind: ResourceType) -> &Set {
        &self.sets[kind.index()]
    }
}

impl Set {
    fn put(&mut self, resource: Resource) {
        let added = resource.share();
        let removed = match self.resources.get_mut(resource.name()) {
            // The key stays, since clients that asked for the name share it.
            Some(known) => std::mem::replace(known, resource).share(),
            None => {
                self.resources.insert(resource.name().clone(), resource);
                0
            }
        };
        self.move_version(added, removed);
    }

    fn remove(&mut self, name: &str) {
        let removed = self.resources.remove(name).as_ref().map_or(0, Resource::share);
        self.move_version(0, removed);
    }

    fn move_version(&mut self, added: u64, removed: u64) {
        self.version = Version::new(self.version.hash().wrapping_add(added).wrapping_sub(removed));
    }

    fn difference(&self, earlier: &Self) -> BTreeSet<Name> {
        let differences = earlier.resources.diff(&self.resources);
        let names = differences.map(|item| match item {
            DiffItem::Add(name, _) | DiffItem::Remove(name, _) => name,
            DiffItem::Update { new: (name, _), .. } => name,
        });
        names.cloned().collect()
    }
}

impl Changed {
    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        let (of_step, of_set) = match &self.0 {
            Names::None => (None, None),
            Names::Step(step, kind) => (Some(step.names[kind.index()].iter()), None),
            Names::Set(names) => (None, Some(names.iter())),
        };
        of_step.into_iter().flatten().chain(of_set.into_iter().flatten())
    }
}

/// The version of a set of exactly these resources.
pub fn version_of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Version {
    let shares = resources.into_iter().map(Resource::share);
    Version::new(shares.fold(0, u64::wrapping_add))
}
