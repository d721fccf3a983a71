//! xDS resources: named, typed messages whose version is the hash of their content.
//!
//! A resource is encoded once, when it is made, in a form that both variants of the protocol use:
//! the delta variant sends the `Resource` wrapper, the state-of-the-world variant the `Any` inside
//! it. Every response to every client shares those bytes.
//!
//! Versions are content hashes, so replicas compute the same ones independently, and a client that
//! reconnects to another replica is sent nothing that it already has. Two builds also agree if they
//! make the same message, since a message is encoded in the order of its field numbers, without
//! fields that hold their default, and a map field holds at most one entry. A test pins the
//! versions of known resources, so that a new build, code generator or library cannot change them
//! unnoticed.

use std::fmt;
use std::sync::Arc;

use arcstr::ArcStr;
use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

mod kind;
mod references;
#[cfg(test)]
mod tests;

pub use kind::{Part, ResourceType};
pub use references::Reference;
use references::references_of;

/// The name of a resource. Clones share the text, and take the room of a pointer: a client may ask
/// for thousands of names.
pub type Name = ArcStr;

/// Version of a resource or of all resources of a type: a hash of the content.
///
/// It tells only whether two contents are equal, not which one is later. For that there is the
/// revision of the [snapshot](crate::snapshot::Snapshot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The length of a version as text.
    pub(crate) const TEXT_LEN: usize = 16;

    pub const fn new(hash: u64) -> Self {
        Self(hash)
    }

    /// Parses what [`Display`](fmt::Display) wrote. Any other text was not written by this server.
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = text.len() == Self::TEXT_LEN
            && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
        if !canonical {
            return None;
        }
        u64::from_str_radix(text, 16).ok().map(Self)
    }

    pub const fn hash(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One xDS resource, encoded. Clones share everything.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource(Arc<Content>);

#[derive(Clone, PartialEq, Eq)]
struct Content {
    kind: ResourceType,
    wildcard: bool,
    name: Name,
    version: Version,
    /// The part of this resource in the version of its type.
    share: u64,
    references: Box<[Reference]>,
    encoded: Encoded,
}

impl Resource {
    /// Encodes a message as the resource of a name.
    ///
    /// The message must encode to the same bytes on every replica. The maps of the Envoy types
    /// have a random order, so a map field may hold one entry at most.
    pub fn new(kind: ResourceType, name: impl Into<Name>, message: &impl prost::Message) -> Self {
        let name = name.into();
        let body = message.encode_to_vec();
        let version = Version(xxh3_64(&body));
        Self(Arc::new(Content {
            kind,
            wildcard: true,
            version,
            share: xxh3_64_with_seed(name.as_bytes(), version.hash()),
            references: references_of(kind, &name, &body).into(),
            encoded: Encoded::new(kind, &name, version, &body),
            name,
        }))
    }

    /// Leaves the resource out of wildcard subscriptions: it is sent only to those who name it.
    pub fn not_in_wildcard(self) -> Self {
        let mut content = Arc::unwrap_or_clone(self.0);
        content.wildcard = false;
        Self(Arc::new(content))
    }

    pub fn kind(&self) -> ResourceType {
        self.0.kind
    }

    pub fn name(&self) -> &Name {
        &self.0.name
    }

    pub fn version(&self) -> Version {
        self.0.version
    }

    /// Whether a wildcard subscription of its type includes the resource.
    pub fn in_wildcard(&self) -> bool {
        self.0.wildcard
    }

    /// The resources that a client requests because of this one: the load assignment of a cluster
    /// with EDS, the routes of a listener. It waits for them before it uses this one ("warming").
    pub fn references(&self) -> &[Reference] {
        &self.0.references
    }

    /// Approximate number of bytes in a response.
    pub fn size(&self) -> usize {
        self.0.encoded.bytes.len()
    }

    /// The encoded `google.protobuf.Any` that holds the message.
    pub fn any(&self) -> &[u8] {
        let Encoded { bytes, any_at } = &self.0.encoded;
        &bytes[*any_at..]
    }

    /// The encoded `envoy.service.discovery.v3.Resource` with name, version and message.
    pub fn wrapped(&self) -> &[u8] {
        &self.0.encoded.bytes
    }

    /// The part of this resource in the version of its type: a hash of its name and content.
    pub(crate) fn share(&self) -> u64 {
        self.0.share
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}@{}", self.kind(), self.name(), self.version())
    }
}

/// A step from one snapshot to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceChange {
    /// A new resource, or new content of a resource.
    Put(Resource),
    /// The resource of this name was removed.
    Remove(ResourceType, Name),
}

/// The `Resource` wrapper with the `Any` as its last field, so that the `Any` is a slice of it.
#[derive(Clone, PartialEq, Eq)]
struct Encoded {
    bytes: Bytes,
    any_at: usize,
}

impl Encoded {
    fn new(kind: ResourceType, name: &str, version: Version, body: &[u8]) -> Self {
        // Field numbers of envoy.service.discovery.v3.Resource and google.protobuf.Any.
        const VERSION: u32 = 1;
        const RESOURCE: u32 = 2;
        const NAME: u32 = 3;
        const TYPE_URL: u32 = 1;
        const VALUE: u32 = 2;

        let version = version.to_string();
        let url = kind.type_url().as_bytes();
        let any_len = field_len(TYPE_URL, url) + field_len(VALUE, body);
        let len = field_len(NAME, name.as_bytes())
            + field_len(VERSION, version.as_bytes())
            + key_len(RESOURCE)
            + encoded_len_varint(any_len as u64)
            + any_len;

        let mut bytes = BytesMut::with_capacity(len);
        put_field(&mut bytes, NAME, name.as_bytes());
        put_field(&mut bytes, VERSION, version.as_bytes());
        encode_key(RESOURCE, WireType::LengthDelimited, &mut bytes);
        encode_varint(any_len as u64, &mut bytes);
        let any_at = bytes.len();
        put_field(&mut bytes, TYPE_URL, url);
        put_field(&mut bytes, VALUE, body);
        Self { bytes: bytes.freeze(), any_at }
    }
}

pub(crate) fn field_len(tag: u32, value: &[u8]) -> usize {
    key_len(tag) + encoded_len_varint(value.len() as u64) + value.len()
}

pub(crate) fn put_field(bytes: &mut BytesMut, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(value.len() as u64, bytes);
    bytes.put_slice(value);
}
