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
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::resource::{Resource, ResourceChange, ResourceType, Version};

#[cfg(test)]
mod tests;

/// Steps whose changed names a snapshot remembers.
const REMEMBERED_STEPS: usize = 32;

/// All resources at one revision. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Snapshot {
    revision: u64,
    sets: [Arc<Set>; ResourceType::COUNT],
    steps: Arc<VecDeque<Arc<Step>>>,
}

/// The resources of one type.
#[derive(Clone, Debug, Default)]
struct Set {
    resources: OrdMap<Arc<str>, Resource>,
    /// The sum of the hashes of names and versions. It does not depend on the order of changes, so
    /// replicas agree, and a step updates it at the cost of its own changes.
    version: Version,
}

/// The names that changed between a revision and the next.
#[derive(Debug)]
struct Step {
    from: u64,
    names: [Vec<Arc<str>>; ResourceType::COUNT],
}

impl Snapshot {
    /// Before the first revision: no resources.
    pub fn empty() -> Self {
        Self { revision: 0, sets: Default::default(), steps: Arc::default() }
    }

    /// The snapshot of a later revision. Changes without effect are ignored.
    pub fn with_changes(
        &self,
        revision: u64,
        changes: impl IntoIterator<Item = ResourceChange>,
    ) -> Self {
        let mut next = Self { revision, ..self.clone() };
        let mut step = Step { from: self.revision, names: Default::default() };
        for change in changes {
            if let Some((kind, name)) = next.apply(change) {
                step.names[kind.index()].push(name);
            }
        }
        let steps = Arc::make_mut(&mut next.steps);
        if steps.len() == REMEMBERED_STEPS {
            steps.pop_front();
        }
        steps.push_back(Arc::new(step));
        next
    }

    fn apply(&mut self, change: ResourceChange) -> Option<(ResourceType, Arc<str>)> {
        match change {
            ResourceChange::Put(resource) => {
                let (kind, name) = (resource.kind(), Arc::clone(resource.name()));
                if self.get(kind, &name) == Some(&resource) {
                    return None;
                }
                Arc::make_mut(&mut self.sets[kind.index()]).put(resource);
                Some((kind, name))
            }
            ResourceChange::Remove(kind, name) => {
                self.get(kind, &name)?;
                Arc::make_mut(&mut self.sets[kind.index()]).remove(&name);
                Some((kind, name))
            }
        }
    }

    /// The revision of the registry that this snapshot was made from: a Raft log index.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Hash of all resources of a type. Replicas with the same content have the same hash.
    pub fn type_version(&self, kind: ResourceType) -> Version {
        self.set(kind).version
    }

    pub fn get(&self, kind: ResourceType, name: &str) -> Option<&Resource> {
        self.set(kind).resources.get(name)
    }

    /// The resources of a type, by name.
    pub fn resources(&self, kind: ResourceType) -> impl Iterator<Item = &Resource> {
        self.set(kind).resources.values()
    }

    /// The names of a type that may differ from those of an earlier snapshot of the same registry.
    ///
    /// Every name that differs is included. A name that changed and changed back may be included
    /// too.
    pub fn changed_since(&self, earlier: &Self, kind: ResourceType) -> BTreeSet<Arc<str>> {
        if Arc::ptr_eq(&self.sets[kind.index()], &earlier.sets[kind.index()]) {
            return BTreeSet::new();
        }
        let known = self.steps.iter().position(|step| step.from == earlier.revision);
        match known {
            Some(first) => self
                .steps
                .iter()
                .skip(first)
                .flat_map(|step| step.names[kind.index()].iter().cloned())
                .collect(),
            None => self.set(kind).difference(earlier.set(kind)),
        }
    }

    /// Whether any resource differs from an earlier snapshot of the same registry, so that clients
    /// need this one.
    pub fn differs_from(&self, earlier: &Self) -> bool {
        ResourceType::all().into_iter().any(|kind| {
            // Every change of a set creates another `Arc`.
            !Arc::ptr_eq(&self.sets[kind.index()], &earlier.sets[kind.index()])
        })
    }

    fn set(&self, kind: ResourceType) -> &Set {
        &self.sets[kind.index()]
    }
}

impl Set {
    fn put(&mut self, resource: Resource) {
        let added = hash_of(&resource);
        let name = Arc::clone(resource.name());
        let removed = self.resources.insert(name, resource).as_ref().map_or(0, hash_of);
        self.move_version(added, removed);
    }

    fn remove(&mut self, name: &str) {
        let removed = self.resources.remove(name).as_ref().map_or(0, hash_of);
        self.move_version(0, removed);
    }

    fn move_version(&mut self, added: u64, removed: u64) {
        self.version = Version::new(self.version.hash().wrapping_add(added).wrapping_sub(removed));
    }

    fn difference(&self, earlier: &Self) -> BTreeSet<Arc<str>> {
        let differences = earlier.resources.diff(&self.resources);
        let names = differences.map(|item| match item {
            DiffItem::Add(name, _) | DiffItem::Remove(name, _) => name,
            DiffItem::Update { new: (name, _), .. } => name,
        });
        names.cloned().collect()
    }
}

/// The version of a set of exactly these resources.
pub fn version_of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Version {
    let shares = resources.into_iter().map(hash_of);
    Version::new(shares.fold(0, u64::wrapping_add))
}

/// The part of one resource in the version of its type.
pub(crate) fn hash_of(resource: &Resource) -> u64 {
    xxh3_64_with_seed(resource.name().as_bytes(), resource.version().hash())
}
