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

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};
use envoy_types::pb::google::protobuf::Any;
use prost::Name as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use xxhash_rust::xxh3::xxh3_64;

#[cfg(test)]
mod tests;

/// The types of resources that this server knows.
///
/// They are listed in make-before-break order (xDS protocol, "Eventual consistency
/// considerations").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Cluster,
    Endpoints,
    Listener,
    Route,
}

impl ResourceType {
    /// The number of types.
    pub const COUNT: usize = Self::all().len();

    /// Every type, in make-before-break order.
    pub const fn all() -> [Self; 4] {
        [Self::Cluster, Self::Endpoints, Self::Listener, Self::Route]
    }

    /// The type with this URL, if this server knows it.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::all().into_iter().find(|kind| kind.type_url() == url)
    }

    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// Whether a client may subscribe to all resources of the type (xDS protocol, "How the client
    /// specifies what resources to return").
    ///
    /// For the same types a state-of-the-world response is the full set, so that a name missing
    /// from it is deleted.
    pub const fn has_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Position in a table with one entry per type.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cds",
            Self::Endpoints => "eds",
            Self::Listener => "lds",
            Self::Route => "rds",
        })
    }
}

/// Version of a resource or of all resources of a type: a hash of the content.
///
/// It tells only whether two contents are equal, not which one is later. For that there is the
/// revision of the [snapshot](crate::snapshot::Snapshot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    pub const fn new(hash: u64) -> Self {
        Self(hash)
    }

    /// Parses what [`Display`](fmt::Display) wrote. Any other text was not written by this server.
    pub fn parse(text: &str) -> Option<Self> {
        let canonical =
            text.len() == 16 && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
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

/// One xDS resource, encoded. Clones share the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Resource {
    kind: ResourceType,
    name: Arc<str>,
    version: Version,
    wildcard: bool,
    awaits: Arc<[Arc<str>]>,
    encoded: Encoded,
}

impl Resource {
    /// Encodes a message as the resource of a name.
    ///
    /// The message must encode to the same bytes on every replica. The maps of the Envoy types
    /// have a random order, so a map field may hold one entry at most.
    pub fn new(
        kind: ResourceType,
        name: impl Into<Arc<str>>,
        message: &impl prost::Message,
    ) -> Self {
        let name = name.into();
        let body = message.encode_to_vec();
        let version = Version(xxh3_64(&body));
        Self {
            kind,
            version,
            wildcard: true,
            awaits: awaited_by(kind, &name, &body).into(),
            encoded: Encoded::new(kind, &name, version, &body),
            name,
        }
    }

    /// Leaves the resource out of wildcard subscriptions: it is sent only to those who name it.
    pub fn not_in_wildcard(mut self) -> Self {
        self.wildcard = false;
        self
    }

    pub const fn kind(&self) -> ResourceType {
        self.kind
    }

    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub const fn version(&self) -> Version {
        self.version
    }

    /// Whether a wildcard subscription of its type includes the resource.
    pub const fn in_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names that a client requests because of this resource, and waits for before it uses the
    /// resource ("warming"): the load assignment of a cluster with EDS, the routes of a listener.
    pub fn awaits(&self) -> &[Arc<str>] {
        &self.awaits
    }

    /// Approximate number of bytes in a response.
    pub const fn size(&self) -> usize {
        self.encoded.bytes.len()
    }

    /// The encoded `google.protobuf.Any` that holds the message.
    pub fn any(&self) -> Bytes {
        self.encoded.bytes.slice(self.encoded.any_at..)
    }

    /// The encoded `envoy.service.discovery.v3.Resource` with name, version and message.
    pub fn wrapped(&self) -> Bytes {
        self.encoded.bytes.clone()
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}@{}", self.kind, self.name, self.version)
    }
}

/// A step from one snapshot to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceChange {
    /// A new resource, or new content of a resource.
    Put(Resource),
    /// The resource of this name was removed.
    Remove(ResourceType, Arc<str>),
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

fn field_len(tag: u32, value: &[u8]) -> usize {
    key_len(tag) + encoded_len_varint(value.len() as u64) + value.len()
}

fn put_field(bytes: &mut BytesMut, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(value.len() as u64, bytes);
    bytes.put_slice(value);
}

fn awaited_by(kind: ResourceType, name: &Arc<str>, body: &[u8]) -> Vec<Arc<str>> {
    match kind {
        ResourceType::Cluster => load_assignment_of(name, body).into_iter().collect(),
        ResourceType::Listener => routes_of(body),
        ResourceType::Endpoints | ResourceType::Route => Vec::new(),
    }
}

/// The load assignment that a cluster requests: the service name of its EDS configuration, or else
/// its own name.
fn load_assignment_of(name: &Arc<str>, body: &[u8]) -> Option<Arc<str>> {
    let cluster = <Cluster as prost::Message>::decode(body).ok()?;
    let eds = ClusterDiscoveryType::Type(DiscoveryType::Eds as i32);
    if cluster.cluster_discovery_type != Some(eds) {
        return None;
    }
    match cluster.eds_cluster_config {
        Some(config) if !config.service_name.is_empty() => Some(config.service_name.into()),
        _ => Some(Arc::clone(name)),
    }
}

/// The route configurations that the connection managers of a listener request.
fn routes_of(body: &[u8]) -> Vec<Arc<str>> {
    let Ok(listener) = <Listener as prost::Message>::decode(body) else { return Vec::new() };
    let chains = listener.filter_chains.into_iter().chain(listener.default_filter_chain);
    let filters = chains.flat_map(|chain| chain.filters).filter_map(|it| match it.config_type {
        Some(filter::ConfigType::TypedConfig(config)) => Some(config),
        Some(filter::ConfigType::ConfigDiscovery(_)) | None => None,
    });
    let api = listener.api_listener.and_then(|it| it.api_listener);
    let mut routes: Vec<Arc<str>> = filters.chain(api).filter_map(|it| route_of(&it)).collect();
    routes.sort();
    routes.dedup();
    routes
}

fn route_of(filter: &Any) -> Option<Arc<str>> {
    if filter.type_url != HttpConnectionManager::type_url() {
        return None;
    }
    let manager = <HttpConnectionManager as prost::Message>::decode(&*filter.value).ok()?;
    match manager.route_specifier? {
        RouteSpecifier::Rds(rds) => Some(rds.route_config_name.into()),
        RouteSpecifier::RouteConfig(_) | RouteSpecifier::ScopedRoutes(_) => None,
    }
}
