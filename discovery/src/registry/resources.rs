//! xDS resources that people wrote, by the file that they stand in.
//!
//! A file is put as a whole: what it holds afterwards is what was put, and a part of it never shows
//! alone. What is put again unchanged keeps its revision, and its row is not written. What a
//! resource means was checked before it was proposed; here it is bytes with a name.

use std::collections::{BTreeMap, BTreeSet};

use proto::quorate::v1::{DeleteResources, PutResources, RegistryDone, registry_refusal::Reason};

use super::{
    Effects, Entry, Registry,
    key::RecordKey,
    record::{ResourceKey, UserResource},
    refusal::{Refusal, malformed},
};

/// Resources that all files hold together. Clients hold sets of a few thousand with effort.
pub const MAX_RESOURCES: usize = 20_000;

/// Bytes that all resources have together: every replica keeps them in memory.
pub const MAX_RESOURCE_BYTES: usize = 256 << 20;

/// Bytes of one file's resources. A group takes commands of 8 MiB at most, framing included.
pub const MAX_FILE_BYTES: usize = 6 << 20;

impl Registry {
    /// Makes the resources of a file those given.
    pub(super) fn put_resources(
        &mut self,
        command: PutResources,
        entry: Entry,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let existed = self.resources_of(&command.file).next().is_some();
        let put = self.parse_resources(command, entry)?;
        let file = put.file;
        self.check_limits(&file, &put.resources)?;
        let gone: Vec<ResourceKey> = (self.resources_of(&file).map(|it| it.key.clone()))
            .filter(|key| !put.resources.contains_key(key))
            .collect();
        let removed = u32::try_from(gone.len()).unwrap_or(u32::MAX);
        for key in gone {
            self.remove_resource(key, effects);
        }
        for resource in put.resources.into_values() {
            let before = self.resources.get(&resource.key);
            if before.is_none_or(|it| !it.says_the_same(&resource)) {
                self.put_resource(resource, effects);
            }
        }
        let changed = !effects.touched.is_empty();
        Ok(RegistryDone { existed, changed, removed, ..RegistryDone::default() })
    }

    /// Removes what a file holds.
    pub(super) fn delete_resources(
        &mut self,
        command: &DeleteResources,
        effects: &mut Effects,
    ) -> RegistryDone {
        let gone: Vec<ResourceKey> =
            self.resources_of(&command.file).map(|it| it.key.clone()).collect();
        let removed = u32::try_from(gone.len()).unwrap_or(u32::MAX);
        for key in gone {
            self.remove_resource(key, effects);
        }
        let changed = removed > 0;
        RegistryDone { existed: changed, changed, removed, ..RegistryDone::default() }
    }

    fn parse_resources(&self, command: PutResources, entry: Entry) -> Result<Put, Refusal> {
        let mut resources = BTreeMap::new();
        let mut variants: BTreeMap<(String, String), u32> = BTreeMap::new();
        for resource in command.resources {
            // Of one name a file may hold several, for different clients; their order tells them
            // apart.
            let named = (resource.type_url.clone(), resource.name.clone());
            let variant = variants.entry(named).or_default();
            let parsed = UserResource::parse(&command.file, *variant, resource, entry.index)?;
            *variant += 1;
            resources.insert(parsed.key.clone(), parsed);
        }
        if resources.is_empty() {
            return Err(malformed("a file without resources: delete it instead"));
        }
        Ok(Put { file: command.file, resources })
    }

    /// The limits hold for what is there after the command.
    fn check_limits(
        &self,
        file: &str,
        resources: &BTreeMap<ResourceKey, UserResource>,
    ) -> Result<(), Refusal> {
        let others = || self.resources.values().filter(|it| it.key.file != file);
        let bytes: usize = resources.values().map(UserResource::size).sum();
        let all_bytes = bytes + others().map(UserResource::size).sum::<usize>();
        let all = resources.len() + others().count();
        let limits = [
            (bytes, MAX_FILE_BYTES, "bytes in one file"),
            (all_bytes, MAX_RESOURCE_BYTES, "bytes in all files"),
            (all, MAX_RESOURCES, "resources in all files"),
        ];
        match limits.into_iter().find(|(count, most, _)| count > most) {
            None => Ok(()),
            Some((count, most, what)) => Err(Refusal::new(
                Reason::Exhausted,
                format!("{count} {what}, and at most {most} are kept: split it or delete others"),
            )),
        }
    }

    pub(super) fn put_resource(&mut self, resource: UserResource, effects: &mut Effects) {
        effects.touched.insert(RecordKey::Resource(resource.key.clone()));
        self.resources.insert(resource.key.clone(), resource);
    }

    fn remove_resource(&mut self, key: ResourceKey, effects: &mut Effects) {
        self.resources.remove(&key);
        effects.touched.insert(RecordKey::Resource(key));
    }

    pub fn resource(&self, key: &ResourceKey) -> Option<&UserResource> {
        self.resources.get(key)
    }

    /// Of all files, in the order of their names.
    pub fn resources(&self) -> impl Iterator<Item = &UserResource> {
        self.resources.values()
    }

    /// Of one file, by type and name.
    pub fn resources_of(&self, file: &str) -> impl Iterator<Item = &UserResource> {
        let from = ResourceKey::first_of(file);
        self.resources.range(from..).map(|(_, it)| it).take_while(move |it| it.key.file == file)
    }

    /// Resources of a type and name, of all files and for whichever clients.
    pub fn resources_named(
        &self,
        type_url: &str,
        name: &str,
    ) -> impl Iterator<Item = &UserResource> {
        self.resources().filter(move |it| it.key.type_url == type_url && it.key.name == name)
    }

    /// The files that hold resources.
    pub fn resource_files(&self) -> BTreeSet<&str> {
        self.resources.keys().map(|it| it.file.as_str()).collect()
    }
}

/// A command that was parsed.
struct Put {
    file: String,
    resources: BTreeMap<ResourceKey, UserResource>,
}
