//! Responses, and their form on the wire.
//!
//! A response has two parts: the tail is the same for all clients that get the same resources, so
//! it can be encoded once for all of them; the head holds what differs. Fields of a message may come
//! in any order, so the message is one after the other.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use xxhash_rust::xxh3::Xxh3;

use super::ProtocolVariant;
use crate::resource::{Name, Resource, Version, field_len, put_field};

/// The fields of `DeltaDiscoveryResponse` and of `DiscoveryResponse` (both in
/// `envoy.service.discovery.v3`), which have the same numbers but for the last one.
const VERSION: u32 = 1;
const RESOURCES: u32 = 2;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
const REMOVED: u32 = 6;
const CONTROL_PLANE_DELTA: u32 = 7;
const CONTROL_PLANE_SOTW: u32 = 6;

/// The field of `envoy.config.core.v3.ControlPlane`.
const IDENTIFIER: u32 = 1;

/// One response, independent of the protocol variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub type_url: Cow<'static, str>,
    /// Version of the whole type. For SotW an opaque label; for delta only information for
    /// debugging.
    pub version: Version,
    pub nonce: String,
    pub control_plane: Arc<str>,
    pub resources: Arc<[Resource]>,
    /// Names that the client is to drop. In SotW they are missing from the full set; for types
    /// without a full set SotW cannot drop names.
    pub removed: Arc<[Name]>,
}

impl Response {
    /// The encoded message, in one piece.
    pub fn encode(&self, variant: ProtocolVariant) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.head_len() + self.tail_len(variant));
        self.put_head(&mut bytes);
        self.put_tail(variant, &mut bytes);
        bytes.freeze()
    }

    /// The length of the part that only this response has.
    pub fn head_len(&self) -> usize {
        field_len(VERSION, &[0; Version::TEXT_LEN]) + field_len(NONCE, self.nonce.as_bytes())
    }

    /// Writes the part that only this response has.
    pub fn put_head(&self, bytes: &mut BytesMut) {
        put_field(bytes, VERSION, self.version.to_string().as_bytes());
        put_field(bytes, NONCE, self.nonce.as_bytes());
    }

    /// The length of the part that equal responses share.
    pub fn tail_len(&self, variant: ProtocolVariant) -> usize {
        let resources: usize = self
            .resources
            .iter()
            .map(|it| len_delimited(RESOURCES, encoded(it, variant).len()))
            .sum();
        let removed: usize = match variant {
            ProtocolVariant::Delta => {
                self.removed.iter().map(|it| field_len(REMOVED, it.as_bytes())).sum()
            }
            ProtocolVariant::Sotw => 0,
        };
        let control_plane = field_len(IDENTIFIER, self.control_plane.as_bytes());
        field_len(TYPE_URL, self.type_url.as_bytes())
            + len_delimited(control_plane_field(variant), control_plane)
            + resources
            + removed
    }

    /// Writes the part that equal responses share.
    pub fn put_tail(&self, variant: ProtocolVariant, bytes: &mut BytesMut) {
        put_field(bytes, TYPE_URL, self.type_url.as_bytes());
        encode_key(control_plane_field(variant), WireType::LengthDelimited, bytes);
        let identifier = self.control_plane.as_bytes();
        encode_varint(field_len(IDENTIFIER, identifier) as u64, bytes);
        put_field(bytes, IDENTIFIER, identifier);
        for resource in &*self.resources {
            put_field(bytes, RESOURCES, encoded(resource, variant));
        }
        if variant == ProtocolVariant::Delta {
            for name in &*self.removed {
                put_field(bytes, REMOVED, name.as_bytes());
            }
        }
    }

    /// A hash by which equal tails are found.
    pub fn tail_hash(&self, variant: ProtocolVariant) -> u128 {
        let mut hash = Xxh3::new();
        hash.update(&[variant as u8]);
        hash.update(self.type_url.as_bytes());
        for resource in &*self.resources {
            hash.update(&resource.share().to_le_bytes());
        }
        for name in &*self.removed {
            hash.update(&name.len().to_le_bytes());
            hash.update(name.as_bytes());
        }
        hash.digest128()
    }
}

/// A resource as responses of the variant hold it.
fn encoded(resource: &Resource, variant: ProtocolVariant) -> &[u8] {
    match variant {
        ProtocolVariant::Delta => resource.wrapped(),
        ProtocolVariant::Sotw => resource.any(),
    }
}

const fn control_plane_field(variant: ProtocolVariant) -> u32 {
    match variant {
        ProtocolVariant::Delta => CONTROL_PLANE_DELTA,
        ProtocolVariant::Sotw => CONTROL_PLANE_SOTW,
    }
}

fn len_delimited(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}
