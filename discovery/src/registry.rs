//! The registry: the replicated state of the DISCO group.
//!
//! The registry is a deterministic state machine. It applies committed commands in order and
//! answers each. Every replica that has applied the same commands holds the same registry and gave
//! the same answers. Time is not an input: a lease is only an id that records refer to, and it ends
//! when a command ends it. [`crate::lease::LeaseTable`] on the leader keeps the time.
//!
//! It keeps servers (of DISCO), nodes (of data), services, their instances, the data groups, and the
//! xDS resources that people wrote.
//! Each is one row, named by a [`RecordKey`]. A command's [`Outcome`] names the rows it touched, so
//! that only these are written and translated for Envoy. What follows from the rows (the holders of
//! a lease, the ports that are taken) is not stored.
//!
//! Three rules always hold:
//!
//! - A namespace's first voters are decided once. No command can change them.
//! - A record belongs to one lease. Another owner is refused while that lease exists and its owner
//!   is heard.
//! - A service keeps its sidecar port while it exists, also without instances, and for a while
//!   after it was removed.

mod groups;
mod instances;
mod key;
mod members;
pub mod name;
mod progress;
mod query;
mod record;
mod refusal;
mod resources;
mod services;
#[cfg(test)]
pub(crate) mod tests;
mod ttl;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use proto::quorate::v1::{
    ExpireLease, GroupRecord, Health, InstanceRecord, MarkLeases, NodeRecord, NodeState,
    RecordServer, RegistryCommand, RegistryDone, RegistryReply, ResourceRecord, ServiceRecord,
    registry_command::Command, registry_reply,
};
use thiserror::Error;

use self::refusal::{Refusal, malformed};
pub use self::{
    groups::{DEFAULT_NAMESPACE, MAX_REPLICAS, ordered},
    key::RecordKey,
    name::may_be_registered,
    progress::{Acknowledged, Progress},
    query::ServerStatus,
    record::{
        EMPTY_HOLD, Grant, Group, Instance, Leader, Locality, Member, Node, Protocol, Reference,
        Reported, ResourceKey, Selector, Server, Service, UserResource,
    },
    resources::{MAX_FILE_BYTES, MAX_RESOURCE_BYTES, MAX_RESOURCES},
    services::SIDECAR_PORTS,
    ttl::{DEFAULT_TTL, MAX_TTL, MIN_TTL},
};

/// All records, as of the last applied command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    servers: BTreeMap<u64, Server>,
    nodes: BTreeMap<u64, Node>,
    services: BTreeMap<String, Service>,
    /// Removed services whose port is still reserved.
    retired: BTreeMap<String, Service>,
    /// By service, then by id. A service without instances has no entry.
    instances: BTreeMap<String, BTreeMap<String, Instance>>,
    groups: BTreeMap<u32, Group>,
    resources: BTreeMap<ResourceKey, UserResource>,

    /// Derived: the records that belong to each lease. A lease without records has no entry.
    holders: BTreeMap<u64, BTreeSet<RecordKey>>,
    /// Derived: sidecar ports that are taken.
    ports: BTreeSet<u16>,
    /// Derived: the group of a namespace.
    namespaces: BTreeMap<String, u32>,
}

/// The effects of a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub reply: RegistryReply,
    /// Rows to write, or to delete if [`Registry::record`] returns none.
    pub touched: BTreeSet<RecordKey>,
    /// Leases that were granted, granted again or ended, or whose records changed.
    pub leases: BTreeSet<u64>,
}

/// A row that no registry has written in this form.
#[derive(Debug, Error)]
pub enum RestoreError {
    #[error("row {key:?} has no known key")]
    Key { key: Vec<u8> },
    #[error("row {key:?} cannot be decoded")]
    Decode { key: RecordKey, source: prost::DecodeError },
    #[error("row {key:?} is not valid: {message}")]
    Invalid { key: RecordKey, message: String },
}

/// The log entry of a command.
#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u64,
    term: u64,
}

/// What a command touches, collected while it is applied.
#[derive(Debug, Default)]
struct Effects {
    touched: BTreeSet<RecordKey>,
    leases: BTreeSet<u64>,
}

impl Registry {
    /// Applies one committed command.
    ///
    /// A refused command changes nothing.
    pub fn apply(&mut self, command: RegistryCommand, index: u64, term: u64) -> Outcome {
        let mut effects = Effects::default();
        let outcome = match self.execute(command, Entry { index, term }, &mut effects) {
            Ok(done) => registry_reply::Outcome::Done(done),
            Err(refusal) => registry_reply::Outcome::Refused(refusal.into_proto()),
        };
        let Effects { touched, leases } = effects;
        Outcome { reply: RegistryReply { outcome: Some(outcome) }, touched, leases }
    }

    fn execute(
        &mut self,
        command: RegistryCommand,
        entry: Entry,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let command = command.command.ok_or_else(|| malformed("the command is empty"))?;
        match command {
            Command::RegisterInstance(it) => self.register_instance(it, entry, effects),
            Command::DeregisterInstance(it) => Ok(self.deregister_instance(it, effects)),
            Command::SetInstanceHealth(it) => self.set_instance_health(it, effects),
            Command::ExpireLease(it) => Ok(self.expire_lease(it, entry, effects)),
            Command::ReapInstance(it) => Ok(self.reap_instance(it, effects)),
            Command::RecordServer(it) => self.record_server(it, effects),
            Command::RecordNode(it) => self.record_node(it, entry, effects),
            Command::SetNodeState(it) => self.set_node_state(it, effects),
            Command::DecideGroup(it) => self.decide_group(it, effects),
            Command::AssignReplica(it) => self.assign_replica(it, effects),
            Command::ReportLeader(it) => self.report_leader(it, effects),
            Command::MarkLeases(it) => Ok(self.mark_leases(it, entry, effects)),
            Command::DeregisterSilent(it) => Ok(self.deregister_silent(&it, effects)),
            Command::ConfigureService(it) => self.configure_service(it, effects),
            Command::RemoveService(it) => self.remove_service(&it, entry, effects),
            Command::ReapService(it) => Ok(self.reap_service(&it, effects)),
            Command::RemoveNode(it) => self.remove_node(&it, effects),
            Command::RemoveServer(it) => Ok(self.remove_server(&it, effects)),
            Command::PutResources(it) => self.put_resources(it, entry, effects),
            Command::DeleteResources(it) => Ok(self.delete_resources(&it, effects)),
        }
    }

    /// Marks leases whose owners are silent, and removes the marks of those heard again.
    ///
    /// A mark does not end the lease. It allows another owner to take over the records, and clients
    /// are sent to the others first.
    fn mark_leases(
        &mut self,
        command: MarkLeases,
        entry: Entry,
        effects: &mut Effects,
    ) -> RegistryDone {
        if command.term != entry.term {
            return RegistryDone::default();
        }
        for mark in command.marks {
            if self.grant(mark.lease_id).is_none_or(|it| it.granted_index != mark.granted_index) {
                continue;
            }
            // Reported even if nothing changed: the lease table waits for the effect of its
            // proposal.
            effects.leases.insert(mark.lease_id);
            let silent_since = mark.silent.then_some(entry.index);
            for holder in self.holders.get(&mark.lease_id).cloned().unwrap_or_default() {
                match holder {
                    RecordKey::Instance { service, id } => {
                        self.mark_instance(&service, &id, silent_since, effects);
                    }
                    RecordKey::Node(node_id) => self.mark_node(node_id, silent_since, effects),
                    RecordKey::Server(_)
                    | RecordKey::Service(_)
                    | RecordKey::Group(_)
                    | RecordKey::Resource(_) => {}
                }
            }
        }
        RegistryDone { changed: !effects.touched.is_empty(), ..RegistryDone::default() }
    }

    /// Ends a lease, unless it was granted again or another leader was elected since the proposal.
    fn expire_lease(
        &mut self,
        command: ExpireLease,
        entry: Entry,
        effects: &mut Effects,
    ) -> RegistryDone {
        let current = self.grant(command.lease_id).map(|grant| grant.granted_index);
        if command.term != entry.term || current != Some(command.granted_index) {
            return RegistryDone::default();
        }
        let holders = self.holders.get(&command.lease_id).cloned().unwrap_or_default();
        for holder in holders {
            match holder {
                RecordKey::Instance { service, id } => {
                    self.down_instance(&service, &id, entry, effects);
                }
                RecordKey::Node(node_id) => self.down_node(node_id, effects),
                RecordKey::Server(_)
                | RecordKey::Service(_)
                | RecordKey::Group(_)
                | RecordKey::Resource(_) => {}
            }
        }
        RegistryDone { lease_id: command.lease_id, changed: true, ..RegistryDone::default() }
    }

    /// The row of a record; none if there is no such record.
    pub fn record(&self, key: &RecordKey) -> Option<Vec<u8>> {
        match key {
            RecordKey::Server(id) => self.servers.get(id).map(|it| it.to_record().encode_to_vec()),
            RecordKey::Node(id) => self.nodes.get(id).map(|it| it.to_record().encode_to_vec()),
            RecordKey::Service(name) => {
                let service = self.services.get(name).or_else(|| self.retired.get(name));
                service.map(|it| it.to_record().encode_to_vec())
            }
            RecordKey::Instance { service, id } => {
                self.instance(service, id).map(|it| it.to_record().encode_to_vec())
            }
            RecordKey::Group(group) => {
                self.groups.get(group).map(|it| it.to_proto().encode_to_vec())
            }
            RecordKey::Resource(key) => {
                self.resources.get(key).map(|it| it.to_record().encode_to_vec())
            }
        }
    }

    /// The key of every record, in order.
    pub fn keys(&self) -> BTreeSet<RecordKey> {
        let instances = self.instances.values().flat_map(|by_id| by_id.values());
        (self.servers.keys().map(|id| RecordKey::Server(*id)))
            .chain(self.nodes.keys().map(|id| RecordKey::Node(*id)))
            .chain(self.services.keys().map(|name| RecordKey::Service(name.clone())))
            .chain(self.retired.keys().map(|name| RecordKey::Service(name.clone())))
            .chain(instances.map(RecordKey::of_instance))
            .chain(self.groups.keys().map(|group| RecordKey::Group(*group)))
            .chain(self.resources.keys().map(|key| RecordKey::Resource(key.clone())))
            .collect()
    }

    /// Restores a registry from its rows: keys from [`RecordKey::encode`], values from
    /// [`Registry::record`].
    ///
    /// # Errors
    ///
    /// If a row was not written by a registry: the store is damaged, or has a later format.
    pub fn restore<K, V>(rows: impl IntoIterator<Item = (K, V)>) -> Result<Self, RestoreError>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut registry = Self::default();
        for (key, value) in rows {
            let key = RecordKey::decode(key.as_ref())
                .ok_or_else(|| RestoreError::Key { key: key.as_ref().to_vec() })?;
            registry.restore_row(key, value.as_ref())?;
        }
        Ok(registry)
    }

    fn restore_row(&mut self, key: RecordKey, value: &[u8]) -> Result<(), RestoreError> {
        let mut effects = Effects::default();
        let restored = match key {
            RecordKey::Server(_) => Server::parse(decode::<RecordServer>(&key, value)?).map(|it| {
                self.put_server(it, &mut effects);
            }),
            RecordKey::Node(_) => Node::parse(decode::<NodeRecord>(&key, value)?)
                .map(|it| self.put_node(it, &mut effects)),
            RecordKey::Service(_) => Service::from_record(decode::<ServiceRecord>(&key, value)?)
                .map(|it| self.put_service(it, &mut effects)),
            RecordKey::Instance { .. } => {
                Instance::from_record(decode::<InstanceRecord>(&key, value)?)
                    .map(|it| self.put_instance(it, &mut effects))
            }
            RecordKey::Group(_) => Group::from_record(decode::<GroupRecord>(&key, value)?)
                .map(|it| self.put_group(it, &mut effects)),
            RecordKey::Resource(_) => {
                UserResource::from_record(decode::<ResourceRecord>(&key, value)?)
                    .map(|it| self.put_resource(it, &mut effects))
            }
        };
        let message = match restored {
            Ok(()) if effects.touched.contains(&key) => return Ok(()),
            Ok(()) => "it holds another record".to_owned(),
            Err(refusal) => refusal.message,
        };
        Err(RestoreError::Invalid { key, message })
    }

    /// The grant of a lease: the shortest time and the latest grant of its records. None if the
    /// lease has ended.
    pub fn grant(&self, lease_id: u64) -> Option<Grant> {
        self.holders.get(&lease_id)?.iter().filter_map(|holder| self.grant_of(holder)).reduce(
            |a, b| Grant {
                lease_id,
                ttl: a.ttl.min(b.ttl),
                granted_index: a.granted_index.max(b.granted_index),
            },
        )
    }

    /// Every lease, in the order of their ids.
    pub fn grants(&self) -> impl Iterator<Item = Grant> {
        self.holders.keys().filter_map(|lease_id| self.grant(*lease_id))
    }

    /// The locality of a lease's first record.
    pub fn locality_of_lease(&self, lease_id: u64) -> Option<&Locality> {
        self.holders.get(&lease_id)?.iter().find_map(|holder| match holder {
            RecordKey::Instance { service, id } => {
                self.instance(service, id).map(|it| &it.locality)
            }
            RecordKey::Node(node_id) => self.nodes.get(node_id).map(|it| &it.locality),
            RecordKey::Server(_)
            | RecordKey::Service(_)
            | RecordKey::Group(_)
            | RecordKey::Resource(_) => None,
        })
    }

    /// The log index at which a lease was marked as silent; none if it is not marked.
    pub fn silent_since(&self, lease_id: u64) -> Option<u64> {
        let holders = self.holders.get(&lease_id)?;
        holders.iter().filter_map(|holder| self.silence_of(holder)).min()
    }

    /// The instances that belong to a lease.
    pub fn instances_of_lease(&self, lease_id: u64) -> impl Iterator<Item = &Instance> {
        self.holders.get(&lease_id).into_iter().flatten().filter_map(|holder| match holder {
            RecordKey::Instance { service, id } => self.instance(service, id),
            RecordKey::Server(_)
            | RecordKey::Node(_)
            | RecordKey::Service(_)
            | RecordKey::Group(_)
            | RecordKey::Resource(_) => None,
        })
    }

    /// Whether the owners of all of a lease's records have announced that they stop.
    pub fn is_leaving(&self, lease_id: u64) -> bool {
        self.holders.get(&lease_id).is_some_and(|holders| {
            holders.iter().all(|holder| match holder {
                RecordKey::Instance { service, id } => {
                    self.instance(service, id).is_some_and(|it| it.health == Health::Draining)
                }
                RecordKey::Node(node_id) => {
                    self.nodes.get(node_id).is_some_and(|it| it.state == NodeState::Stopping)
                }
                RecordKey::Server(_)
                | RecordKey::Service(_)
                | RecordKey::Group(_)
                | RecordKey::Resource(_) => false,
            })
        })
    }

    fn silence_of(&self, holder: &RecordKey) -> Option<u64> {
        match holder {
            RecordKey::Instance { service, id } => self.instance(service, id)?.silent_since,
            RecordKey::Node(node_id) => self.nodes.get(node_id)?.silent_since,
            RecordKey::Server(_)
            | RecordKey::Service(_)
            | RecordKey::Group(_)
            | RecordKey::Resource(_) => None,
        }
    }

    fn grant_of(&self, holder: &RecordKey) -> Option<Grant> {
        match holder {
            RecordKey::Instance { service, id } => self.instance(service, id).map(|it| it.grant),
            RecordKey::Node(node_id) => self.nodes.get(node_id).map(|it| it.grant),
            RecordKey::Server(_)
            | RecordKey::Service(_)
            | RecordKey::Group(_)
            | RecordKey::Resource(_) => None,
        }
    }

    /// Updates which records belong to which lease, after a record's lease changed from `before` to
    /// `after`.
    fn update_holders(
        &mut self,
        key: &RecordKey,
        before: Option<u64>,
        after: Option<u64>,
        effects: &mut Effects,
    ) {
        effects.leases.extend(before.into_iter().chain(after));
        if before == after {
            return;
        }
        if let Some(lease_id) = before
            && let Some(holders) = self.holders.get_mut(&lease_id)
        {
            holders.remove(key);
            if holders.is_empty() {
                self.holders.remove(&lease_id);
            }
        }
        if let Some(lease_id) = after {
            self.holders.entry(lease_id).or_default().insert(key.clone());
        }
    }
}

fn decode<M: Message + Default>(key: &RecordKey, value: &[u8]) -> Result<M, RestoreError> {
    M::decode(value).map_err(|source| RestoreError::Decode { key: key.clone(), source })
}
