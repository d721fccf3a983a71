//! An xDS resource that a person wrote, as it is kept.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proto::quorate::v1::{
    ClientKind, MetadataMatch, ResourceRecord, ResourceReference, ResourceSelector, WrittenResource,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::registry::refusal::{Refusal, malformed};

/// Longest name of a file or of a resource, in bytes. xdstp names are long.
const MAX_NAME: usize = 1_024;

/// Values that a selector names. What matches more is better told by metadata.
const MAX_SELECTOR_VALUES: usize = 1_000;

/// Names a resource that a person wrote. Of one type and name a file may hold several, for
/// different clients; their order in the file tells them apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceKey {
    pub file: String,
    pub type_url: String,
    pub name: String,
    pub variant: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserResource {
    pub key: ResourceKey,
    pub selector: Selector,
    /// The message, as clients are sent it.
    pub bytes: Bytes,
    pub references: BTreeSet<Reference>,
    /// The log index at which it last changed.
    pub revision: u64,
    /// A hash of its bytes, the same wherever the same resource is.
    pub version: u64,
}

/// Who gets a resource. Empty sets match every client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    pub node_ids: BTreeSet<String>,
    pub clusters: BTreeSet<String>,
    pub zones: BTreeSet<String>,
    pub kinds: BTreeSet<ClientKind>,
    /// By the path to a value in the node's metadata.
    pub metadata: BTreeMap<Vec<String>, BTreeSet<String>>,
}

/// A resource that is named by another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub type_url: String,
    pub name: String,
    pub is_required: bool,
}

impl ResourceKey {
    /// Before every key of a file, and after those of files that sort before it.
    pub(in crate::registry) fn first_of(file: &str) -> Self {
        Self { file: file.to_owned(), ..Self::default() }
    }
}

impl UserResource {
    pub(in crate::registry) fn parse(
        file: &str,
        variant: u32,
        resource: WrittenResource,
        revision: u64,
    ) -> Result<Self, Refusal> {
        check_text("the file's name", file)?;
        check_text("a type", &resource.type_url)?;
        check_text("a resource's name", &resource.name)?;
        let key = ResourceKey {
            file: file.to_owned(),
            type_url: resource.type_url,
            name: resource.name,
            variant,
        };
        let references = resource.references.into_iter().map(|it| Reference {
            type_url: it.type_url,
            name: it.name,
            is_required: it.required,
        });
        let version = xxh3_64(&resource.resource);
        Ok(Self {
            key,
            selector: Selector::parse(resource.selector.unwrap_or_default())?,
            bytes: resource.resource,
            references: references.collect(),
            revision,
            version,
        })
    }

    pub(in crate::registry) fn from_record(record: ResourceRecord) -> Result<Self, Refusal> {
        let resource = record.resource.unwrap_or_default();
        Self::parse(&record.file, record.variant, resource, record.revision)
    }

    pub(in crate::registry) fn to_record(&self) -> ResourceRecord {
        let references = self.references.iter().map(|it| ResourceReference {
            type_url: it.type_url.clone(),
            name: it.name.clone(),
            required: it.is_required,
        });
        ResourceRecord {
            file: self.key.file.clone(),
            variant: self.key.variant,
            revision: self.revision,
            resource: Some(WrittenResource {
                type_url: self.key.type_url.clone(),
                name: self.key.name.clone(),
                selector: Some(self.selector.to_proto()),
                resource: self.bytes.clone(),
                references: references.collect(),
            }),
        }
    }

    /// Whether only their revisions differ.
    pub(in crate::registry) fn says_the_same(&self, other: &Self) -> bool {
        Self { revision: other.revision, ..self.clone() } == *other
    }

    /// Bytes that it takes, about.
    pub(in crate::registry) fn size(&self) -> usize {
        let references = self.references.iter().map(|it| it.type_url.len() + it.name.len());
        self.bytes.len() + self.key.name.len() + references.sum::<usize>()
    }
}

impl Selector {
    fn parse(selector: ResourceSelector) -> Result<Self, Refusal> {
        let mut kinds = BTreeSet::new();
        for kind in selector.kinds() {
            if kind == ClientKind::Unspecified {
                return Err(malformed("a selector names a kind of clients that is not known"));
            }
            kinds.insert(kind);
        }
        if kinds.len() < BTreeSet::from_iter(&selector.kinds).len() {
            return Err(malformed("a selector names a kind of clients that is not known"));
        }
        let mut metadata = BTreeMap::new();
        for it in selector.metadata {
            if it.path.is_empty() || it.values.is_empty() {
                return Err(malformed("a selector compares metadata without a path or a value"));
            }
            metadata.insert(it.path, it.values.into_iter().collect::<BTreeSet<_>>());
        }
        let parsed = Self {
            node_ids: selector.node_ids.into_iter().collect(),
            clusters: selector.clusters.into_iter().collect(),
            zones: selector.zones.into_iter().collect(),
            kinds,
            metadata,
        };
        let values = parsed.node_ids.len()
            + parsed.clusters.len()
            + parsed.zones.len()
            + parsed.metadata.values().map(BTreeSet::len).sum::<usize>();
        if values > MAX_SELECTOR_VALUES {
            return Err(malformed(format!(
                "a selector names {values} values, and at most {MAX_SELECTOR_VALUES} are allowed"
            )));
        }
        Ok(parsed)
    }

    fn to_proto(&self) -> ResourceSelector {
        let list = |set: &BTreeSet<String>| set.iter().cloned().collect();
        let metadata = self.metadata.iter();
        ResourceSelector {
            node_ids: list(&self.node_ids),
            clusters: list(&self.clusters),
            zones: list(&self.zones),
            kinds: self.kinds.iter().map(|it| i32::from(*it)).collect(),
            metadata: metadata
                .map(|(path, values)| MetadataMatch { path: path.clone(), values: list(values) })
                .collect(),
        }
    }
}

/// NUL ends the parts of a row's key.
fn check_text(what: &str, text: &str) -> Result<(), Refusal> {
    match text.len() {
        0 => Err(malformed(format!("{what} is empty"))),
        length if length > MAX_NAME => {
            Err(malformed(format!("{what} has {length} bytes, and at most {MAX_NAME} are allowed")))
        }
        _ if text.contains(char::is_control) => {
            Err(malformed(format!("{what} has a control character")))
        }
        _ => Ok(()),
    }
}
