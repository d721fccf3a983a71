//! The few parts of xDS messages that the load reads and writes, on the bytes themselves.
//!
//! The clients share the machine with the server that they measure. So nothing is made of a response
//! but what a client needs in order to go on: its type, version and nonce, and the names in it. Field
//! numbers are those of `discovery.proto`, `base.proto`, `cluster.proto` and `endpoint.proto` of
//! Envoy's API v3.

mod fields;
mod messages;
#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};
use clap::ValueEnum;

use self::fields::{Fields, Value, all, bytes_of, put};
pub(super) use self::messages::Messages;

/// The flag of a gRPC message and its length.
const PREFIX: usize = 5;

/// The name `*` as it stands in a request.
pub(super) const EVERYTHING: &[u8] = b"\x1a\x01*";

/// In Envoy's `Cluster.DiscoveryType`: the endpoints come by EDS.
const BY_EDS: u64 = 3;

/// How a client asks: for what changed, or for whole sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Variant {
    /// Incremental xDS.
    Delta,
    /// State of the world.
    Sotw,
}

/// The types that the load asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Clusters,
    Endpoints,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent what is no xDS response")]
pub(super) struct Malformed;

impl Variant {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Sotw => "sotw",
        }
    }

    /// The method of the aggregated discovery service.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Delta => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            }
            Self::Sotw => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
        }
    }
}

impl Kind {
    const fn type_url(self) -> &'static str {
        match self {
            Self::Clusters => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        }
    }

    fn of(type_url: &[u8]) -> Option<Self> {
        [Self::Clusters, Self::Endpoints]
            .into_iter()
            .find(|kind| kind.type_url().as_bytes() == type_url)
    }
}

/// One response, of either variant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Response<'a> {
    variant: Variant,
    message: &'a [u8],
    /// None for a type that nobody asked for.
    pub(super) kind: Option<Kind>,
    version: &'a [u8],
    nonce: &'a [u8],
}

impl<'a> Response<'a> {
    pub(super) fn parse(variant: Variant, message: &'a [u8]) -> Result<Self, Malformed> {
        let mut response = Self { variant, message, kind: None, version: &[], nonce: &[] };
        for field in Fields(message) {
            match field? {
                (1, Value::Bytes(version)) => response.version = version,
                (4, Value::Bytes(type_url)) => response.kind = Kind::of(type_url),
                (5, Value::Bytes(nonce)) => response.nonce = nonce,
                _ => {}
            }
        }
        Ok(response)
    }

    pub(super) fn resources(&self) -> impl Iterator<Item = Result<Resource<'a>, Malformed>> {
        let variant = self.variant;
        Fields(self.message).filter_map(move |field| match field {
            Ok((2, Value::Bytes(resource))) => Some(Resource::parse(variant, resource)),
            Ok(_) => None,
            Err(malformed) => Some(Err(malformed)),
        })
    }

    /// The request that acknowledges it. `names` is what a state-of-the-world client repeats.
    pub(super) fn ack(&self, kind: Kind, names: &'a [u8]) -> Request<'a> {
        match self.variant {
            Variant::Delta => Request { nonce: self.nonce, ..Request::first(kind, &[], &[]) },
            Variant::Sotw => Request {
                version: self.version,
                nonce: self.nonce,
                ..Request::first(kind, &[], names)
            },
        }
    }
}

/// A named resource of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource<'a> {
    pub(super) name: &'a [u8],
    /// The encoded cluster or load assignment.
    body: &'a [u8],
}

impl<'a> Resource<'a> {
    fn parse(variant: Variant, message: &'a [u8]) -> Result<Self, Malformed> {
        match variant {
            Variant::Delta => {
                let body = bytes_of(bytes_of(message, 2)?, 2)?;
                Ok(Self { name: bytes_of(message, 3)?, body })
            }
            // The name is the first field of a cluster and of a load assignment.
            Variant::Sotw => {
                let body = bytes_of(message, 2)?;
                Ok(Self { name: bytes_of(body, 1)?, body })
            }
        }
    }

    /// Of a cluster: the name of its load assignment, if it has one by EDS.
    pub(super) fn assignment_name(&self) -> Result<Option<&'a [u8]>, Malformed> {
        let (mut by_eds, mut name) = (false, self.name);
        for field in Fields(self.body) {
            match field? {
                (2, Value::Varint(kind)) => by_eds = kind == BY_EDS,
                (3, Value::Bytes(config)) => {
                    let other = bytes_of(config, 2)?;
                    name = if other.is_empty() { name } else { other };
                }
                _ => {}
            }
        }
        Ok(by_eds.then_some(name))
    }

    /// Of a load assignment: the largest weight of an endpoint.
    pub(super) fn largest_weight(&self) -> Result<u32, Malformed> {
        let mut largest = 0;
        for locality in all(self.body, 2) {
            for endpoint in all(locality?, 2) {
                for field in Fields(bytes_of(endpoint?, 4)?) {
                    if let (1, Value::Varint(weight)) = field? {
                        largest = largest.max(u32::try_from(weight).map_err(|_| Malformed)?);
                    }
                }
            }
        }
        Ok(largest)
    }
}

/// A request, of either variant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    kind: Kind,
    /// Who asks, see [`node()`].
    node: &'a [u8],
    version: &'a [u8],
    /// What to subscribe to, see [`name_list`].
    names: &'a [u8],
    nonce: &'a [u8],
}

impl<'a> Request<'a> {
    /// Asks for these names of a type; `node` is empty but on the first request of a stream.
    pub(super) const fn first(kind: Kind, node: &'a [u8], names: &'a [u8]) -> Self {
        Self { kind, node, version: &[], names, nonce: &[] }
    }

    /// Adds the request to `out`, as a gRPC message.
    pub(super) fn write(&self, variant: Variant, out: &mut BytesMut) {
        let type_url = self.kind.type_url().as_bytes();
        let begin = out.len();
        out.reserve(PREFIX + self.names.len() + self.node.len() + type_url.len() + 128);
        out.put_bytes(0, PREFIX);
        match variant {
            Variant::Delta => {
                put(out, 1, self.node);
                put(out, 2, type_url);
                out.put_slice(self.names);
                put(out, 6, self.nonce);
            }
            Variant::Sotw => {
                put(out, 1, self.version);
                put(out, 2, self.node);
                out.put_slice(self.names);
                put(out, 4, type_url);
                put(out, 5, self.nonce);
            }
        }
        let length = u32::try_from(out.len() - begin - PREFIX).unwrap_or(u32::MAX);
        out[begin + 1..begin + PREFIX].copy_from_slice(&length.to_be_bytes());
    }
}

/// The names of a subscription, as they stand in a request of either variant.
pub(super) fn name_list<'a>(names: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut list = BytesMut::new();
    for name in names {
        put(&mut list, 3, name);
    }
    list.freeze()
}

/// Who asks: Envoy's `Node`.
pub(super) fn node(id: &str, cluster: &str) -> Bytes {
    let mut node = BytesMut::new();
    put(&mut node, 1, id.as_bytes());
    put(&mut node, 2, cluster.as_bytes());
    put(&mut node, 6, b"quorate-bench");
    put(&mut node, 7, env!("CARGO_PKG_VERSION").as_bytes());
    node.freeze()
}
