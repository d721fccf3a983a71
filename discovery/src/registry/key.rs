//! The key of a record and of its row.

use super::record::{Instance, ResourceKey};

/// The key of a record. Its encoded form is the key of its row: a tag, then the name of the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    Server(u64),
    Node(u64),
    Service(String),
    Instance { service: String, id: String },
    Group(u32),
    Resource(ResourceKey),
}

const SERVER: &[u8] = b"server/";
const NODE: &[u8] = b"node/";
const SERVICE: &[u8] = b"service/";
const INSTANCE: &[u8] = b"instance/";
const GROUP: &[u8] = b"group/";
const RESOURCE: &[u8] = b"resource/";

impl RecordKey {
    pub(super) fn of_instance(instance: &Instance) -> Self {
        Self::Instance { service: instance.service.clone(), id: instance.id.clone() }
    }

    /// The key of the record's row. Numbers are big-endian, so rows are in the order of records.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Server(id) => [SERVER, &id.to_be_bytes()].concat(),
            Self::Node(id) => [NODE, &id.to_be_bytes()].concat(),
            Self::Service(name) => [SERVICE, name.as_bytes()].concat(),
            Self::Instance { service, id } => {
                [INSTANCE, service.as_bytes(), b"/", id.as_bytes()].concat()
            }
            Self::Group(group) => [GROUP, &group.to_be_bytes()].concat(),
            Self::Resource(key) => encode_resource(key),
        }
    }

    /// The record whose row has this key.
    pub fn decode(key: &[u8]) -> Option<Self> {
        if let Some(id) = key.strip_prefix(SERVER) {
            return Some(Self::Server(u64::from_be_bytes(id.try_into().ok()?)));
        }
        if let Some(id) = key.strip_prefix(NODE) {
            return Some(Self::Node(u64::from_be_bytes(id.try_into().ok()?)));
        }
        if let Some(group) = key.strip_prefix(GROUP) {
            return Some(Self::Group(u32::from_be_bytes(group.try_into().ok()?)));
        }
        if let Some(row) = key.strip_prefix(RESOURCE) {
            return Some(Self::Resource(decode_resource(row)?));
        }
        if let Some(name) = key.strip_prefix(SERVICE) {
            return Some(Self::Service(text(name)?));
        }
        // A service's name contains no '/', so the first one ends it.
        let (service, id) = str::from_utf8(key.strip_prefix(INSTANCE)?).ok()?.split_once('/')?;
        Some(Self::Instance { service: service.to_owned(), id: id.to_owned() })
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    str::from_utf8(bytes).ok().map(str::to_owned)
}

/// Names hold no control character, so NUL ends each.
fn encode_resource(key: &ResourceKey) -> Vec<u8> {
    let ResourceKey { file, type_url, name, variant } = key;
    let names = format!("{file}\0{type_url}\0{name}\0");
    [RESOURCE, names.as_bytes(), &variant.to_be_bytes()].concat()
}

fn decode_resource(row: &[u8]) -> Option<ResourceKey> {
    let (names, variant) = row.split_at_checked(row.len().checked_sub(4)?)?;
    let mut names = str::from_utf8(names).ok()?.split('\0').map(str::to_owned);
    let (file, type_url, name) = (names.next()?, names.next()?, names.next()?);
    let is_whole = names.next().is_some_and(|it| it.is_empty()) && names.next().is_none();
    let variant = u32::from_be_bytes(variant.try_into().ok()?);
    is_whole.then_some(ResourceKey { file, type_url, name, variant })
}
