//! Responses as the bytes of the HTTP body.
//!
//! A large response is often the same for many clients: the first one after their start, or a full
//! set of clusters after a change. So the part that they share is encoded once and kept for a while.
//! A small one is encoded for each client, which costs less than to look for it.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::{BufMut, Bytes, BytesMut};
use discovery::stream::{ProtocolVariant, Response};

/// The flag and the length before a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// A larger response is sent in two parts, of which the larger one is shared.
const SHARED_FROM: usize = 16 << 10;

/// Most bytes of shared parts that are kept.
const KEPT: usize = 16 << 20;

/// The shared parts of large responses, latest first.
#[derive(Debug, Default)]
pub(super) struct Tails(Mutex<VecDeque<(u128, Bytes)>>);

impl Tails {
    /// The bytes of a response: in one piece, or its own part and the one that it shares.
    pub(super) fn frame(
        &self,
        response: &Response,
        variant: ProtocolVariant,
    ) -> (Bytes, Option<Bytes>) {
        let (head, tail) = (response.head_len(), response.tail_len(variant));
        let is_shared = tail >= SHARED_FROM;
        let own = if is_shared { head } else { head + tail };
        let mut bytes = BytesMut::with_capacity(PREFIX + own);
        bytes.put_u8(0);
        // Responses are split long before four gigabytes, but for a single full set.
        bytes.put_u32(u32::try_from(head + tail).unwrap_or(u32::MAX));
        response.put_head(&mut bytes);
        if is_shared {
            return (bytes.freeze(), Some(self.shared(response, variant, tail)));
        }
        response.put_tail(variant, &mut bytes);
        (bytes.freeze(), None)
    }

    fn shared(&self, response: &Response, variant: ProtocolVariant, len: usize) -> Bytes {
        let hash = response.tail_hash(variant);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|it| it.0 == hash)
            && let Some(known) = kept.remove(at)
        {
            let tail = known.1.clone();
            kept.push_front(known);
            return tail;
        }
        let mut bytes = BytesMut::with_capacity(len);
        response.put_tail(variant, &mut bytes);
        let tail = bytes.freeze();
        kept.push_front((hash, tail.clone()));
        let mut size = 0;
        kept.retain(|(_, it)| {
            size += it.len();
            size <= KEPT
        });
        tail
    }
}

#[cfg(test)]
mod tests {
    use discovery::{
        resource::{Resource, ResourceType},
        stream::Response,
    };
    use envoy_types::pb::envoy::{
        config::endpoint::v3::ClusterLoadAssignment, service::discovery::v3::DeltaDiscoveryResponse,
    };
    use prost::Message;

    use super::*;

    fn response(nonce: &str, name: &str, size: usize) -> Response {
        let message =
            ClusterLoadAssignment { cluster_name: "x".repeat(size), ..Default::default() };
        Response {
            type_url: ResourceType::Endpoints.type_url().into(),
            version: Default::default(),
            nonce: nonce.to_owned(),
            control_plane: "replica".into(),
            resources: [Resource::new(ResourceType::Endpoints, name, &message)].into(),
            removed: Default::default(),
        }
    }

    fn decoded(frame: &(Bytes, Option<Bytes>)) -> DeltaDiscoveryResponse {
        let whole = [&*frame.0, frame.1.as_deref().unwrap_or_default()].concat();
        let (prefix, message) = whole.split_at(PREFIX);
        assert_eq!(prefix[0], 0, "not compressed");
        assert_eq!(prefix[1..], u32::try_from(message.len()).unwrap().to_be_bytes());
        DeltaDiscoveryResponse::decode(message).unwrap()
    }

    #[test]
    fn what_is_large_and_equal_is_encoded_once() {
        let tails = Tails::default();
        let frame =
            |nonce, name, size| tails.frame(&response(nonce, name, size), ProtocolVariant::Delta);
        let (one, other) = (frame("1", "a", SHARED_FROM), frame("2", "a", SHARED_FROM));
        let third = frame("3", "b", SHARED_FROM);
        assert_eq!((decoded(&one).nonce, decoded(&other).nonce), ("1".to_owned(), "2".to_owned()));
        let shared = |it: &(Bytes, Option<Bytes>)| it.1.as_ref().unwrap().as_ptr();
        assert_eq!(shared(&one), shared(&other));
        assert_ne!(shared(&one), shared(&third));
        assert_eq!(decoded(&third).resources[0].name, "b");

        let small = frame("4", "a", 10);
        assert_eq!(small.1, None);
        assert_eq!(decoded(&small).nonce, "4");
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let tails = Tails::default();
        for number in 0..40 {
            let name = number.to_string();
            tails.frame(&response("1", &name, KEPT / 16), ProtocolVariant::Delta);
        }
        let kept: usize = tails.0.lock().unwrap().iter().map(|it| it.1.len()).sum();
        assert!(kept <= KEPT, "{kept}");
        assert!(kept > KEPT / 2, "the latest are kept: {kept}");
    }
}
