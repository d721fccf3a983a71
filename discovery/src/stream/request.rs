//! State-of-the-world requests, whose names are read only if they are other names than before.
//!
//! Every answer of such a client repeats all names that it asks for, often thousands. So a request
//! keeps them as they came, with a hash, and a subscription that knows the hash does not read them.

use bytes::{Buf, Bytes};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{MOST_NAMES, Violation};

/// The field of `DiscoveryRequest` with the names.
const NAMES: u32 = 3;

/// The byte before each name: the field and its wire type.
const NAMES_KEY: u8 = (NAMES << 3) as u8 | WireType::LengthDelimited as u8;

/// A request of the state-of-the-world variant.
#[derive(Clone, Debug)]
pub struct SotwRequest {
    /// Everything but the names.
    pub head: DiscoveryRequest,
    /// The encoded message.
    message: Bytes,
    count: usize,
    list: u64,
}

/// Bytes that are no request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("not a DiscoveryRequest: {0}")]
pub struct Malformed(String);

impl SotwRequest {
    /// Reads an encoded `envoy.service.discovery.v3.DiscoveryRequest`.
    ///
    /// # Errors
    ///
    /// If the bytes are no such message. Names that are not UTF-8 are found only when they are
    /// read.
    pub fn decode(message: Bytes) -> Result<Self, Malformed> {
        let mut others = Vec::new();
        let (mut list, mut count) = (0, 0);
        let mut rest = &*message;
        while rest.has_remaining() {
            let fields = rest;
            let names = skip_names(&mut rest)?;
            if names > 0 {
                count += names;
                list = xxh3_64_with_seed(&fields[..fields.len() - rest.len()], list);
            } else {
                next_field(&mut rest)?;
                others.extend_from_slice(&fields[..fields.len() - rest.len()]);
            }
        }
        let head = DiscoveryRequest::decode(&*others)?;
        Ok(Self { head, message, count, list })
    }

    /// A hash of the names, in their order.
    pub(super) const fn list(&self) -> u64 {
        self.list
    }

    /// The names.
    pub(super) fn names(&self) -> Result<Vec<String>, Violation> {
        if self.count > MOST_NAMES {
            return Err(Violation::TooManyNames);
        }
        let mut names = Vec::with_capacity(self.count);
        let mut rest = &*self.message;
        while rest.has_remaining() {
            let field = next_field(&mut rest).map_err(|_| Violation::NoText)?;
            if let Some(name) = field {
                names.push(str::from_utf8(name).map_err(|_| Violation::NoText)?.to_owned());
            }
        }
        Ok(names)
    }
}

impl From<DiscoveryRequest> for SotwRequest {
    fn from(request: DiscoveryRequest) -> Self {
        let message = request.encode_to_vec().into();
        Self::decode(message).expect("it was just encoded")
    }
}

/// Skips names that follow each other. Returns how many.
fn skip_names(rest: &mut &[u8]) -> Result<usize, Malformed> {
    let mut count = 0;
    while rest.first() == Some(&NAMES_KEY) {
        next_field(rest)?;
        count += 1;
    }
    Ok(count)
}

/// Takes the next field: a name, or none if it is another field.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Malformed> {
    let (tag, wire_type) = decode_key(rest)?;
    if tag != NAMES || wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, rest, DecodeContext::default())?;
        return Ok(None);
    }
    let len = usize::try_from(decode_varint(rest)?).unwrap_or(usize::MAX);
    let Some((name, after)) = rest.split_at_checked(len) else {
        return Err(Malformed("a name ends after the message".to_owned()));
    };
    *rest = after;
    Ok(Some(name))
}

impl From<DecodeError> for Malformed {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(names: &[&str]) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: "1".to_owned(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            type_url: "t".to_owned(),
            response_nonce: "2".to_owned(),
            ..DiscoveryRequest::default()
        }
    }

    #[test]
    fn names_are_told_apart_by_their_hash() {
        let lists: [&[&str]; 5] = [&[], &["a", "b"], &["b", "a"], &["ab"], &["a", "", "b"]];
        for one in lists {
            for other in lists {
                let [one_list, other_list] =
                    [one, other].map(|it| SotwRequest::from(request(it)).list());
                assert_eq!(one == other, one_list == other_list, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn nothing_of_a_request_is_lost() {
        let whole = request(&["a", "b"]);
        let read = SotwRequest::from(whole.clone());
        assert_eq!(read.names(), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(
            DiscoveryRequest { resource_names: whole.resource_names.clone(), ..read.head },
            whole
        );
    }

    #[test]
    fn malformed_bytes_are_refused() {
        for bytes in
            [&b"\x1a\x05a"[..], b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\xff", b"\x07"]
        {
            assert!(SotwRequest::decode(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
        let no_text = SotwRequest::decode(Bytes::from_static(b"\x1a\x01\xff")).unwrap();
        assert_eq!(no_text.names(), Err(Violation::NoText));
    }
}
