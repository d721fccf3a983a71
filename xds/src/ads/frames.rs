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
