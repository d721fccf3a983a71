//! The key of a record and of its row.

use super::record::Instance;

/// The key of a record. Its encoded form is the key of its row: a tag, then the name of the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    Server(u64),
    Node(u64),
    Service(String),
    Instance { service: String, id: String },
    Group(u32),
}

const SERVER: &[u8] = b"server/";
const NODE: &[u8] = b"node/";
const SERVICE: &[u8] = b"service/";
const INSTANCE: &[u8] = b"instance/";
const GROUP: &[u8] = b"group/";

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
