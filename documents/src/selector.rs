//! Who gets a resource.
//!
//! A selector names what the client says of itself in its node. What is not named does not matter;
//! all that is named must match; of a list one must.

use std::collections::{BTreeMap, BTreeSet};

/// How a client reads resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientKind {
    Envoy,
    Grpc,
}

/// What a client says of itself, as far as selectors ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub node_id: String,
    pub cluster: String,
    pub zone: String,
    pub kind: ClientKind,
    /// Scalars of the node's metadata by their paths, as text.
    pub metadata: BTreeMap<Vec<String>, String>,
}

/// Empty sets and maps match every client.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    pub node_ids: BTreeSet<String>,
    pub clusters: BTreeSet<String>,
    pub zones: BTreeSet<String>,
    pub kinds: BTreeSet<ClientKind>,
    pub metadata: BTreeMap<Vec<String>, BTreeSet<String>>,
}

impl Selector {
    pub fn matches(&self, client: &Client) -> bool {
        let metadata = |(path, values): (&Vec<String>, &BTreeSet<String>)| {
            client.metadata.get(path).is_some_and(|value| values.contains(value))
        };
        allows(&self.node_ids, &client.node_id)
            && allows(&self.clusters, &client.cluster)
            && allows(&self.zones, &client.zone)
            && allows(&self.kinds, &client.kind)
            && self.metadata.iter().all(metadata)
    }

    /// Whether there can be a client that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        let metadata = |(path, values): (&Vec<String>, &BTreeSet<String>)| {
            other.metadata.get(path).is_none_or(|others| meet(values, others))
        };
        meet(&self.node_ids, &other.node_ids)
            && meet(&self.clusters, &other.clusters)
            && meet(&self.zones, &other.zones)
            && meet(&self.kinds, &other.kinds)
            && self.metadata.iter().all(metadata)
    }

    pub fn reaches(&self, kind: ClientKind) -> bool {
        allows(&self.kinds, &kind)
    }

    /// Whether it names this kind of clients, and no other.
    pub fn is_only_for(&self, kind: ClientKind) -> bool {
        self.kinds.len() == 1 && self.kinds.contains(&kind)
    }
}

fn allows<T: Ord>(values: &BTreeSet<T>, value: &T) -> bool {
    values.is_empty() || values.contains(value)
}

fn meet<T: Ord>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> bool {
    one.is_empty() || other.is_empty() || !one.is_disjoint(other)
}
