//! The operations of etcd's transactions, which may be transactions again.
//!
//! Written by hand for one reason: the decoder of generated messages goes 100 messages deep, which
//! is not quite 50 transactions within each other, and etcd's clients nest deeper. [`Nested`] counts
//! transactions for itself. How many fit into each other is still bounded, so that no message can
//! exhaust the stack.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
};

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message, Oneof,
    encoding::{DecodeContext, WireType},
};

use super::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse,
};

/// Transactions that are decoded within each other; etcd itself allows fewer than 128, since each
/// takes at least one of the operations that a request may have.
const DEPTH: u32 = 130;

/// An operation of a transaction.
#[derive(Clone, PartialEq, Message)]
pub struct RequestOp {
    #[prost(oneof = "request_op::Request", tags = "1, 2, 3, 4")]
    pub request: Option<request_op::Request>,
}

pub mod request_op {
    use super::{DeleteRangeRequest, Nested, Oneof, PutRequest, RangeRequest, TxnRequest};

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Request {
        #[prost(message, tag = "1")]
        RequestRange(RangeRequest),
        #[prost(message, tag = "2")]
        RequestPut(PutRequest),
        #[prost(message, tag = "3")]
        RequestDeleteRange(DeleteRangeRequest),
        #[prost(message, tag = "4")]
        RequestTxn(Nested<TxnRequest>),
    }
}

/// The answer to an operation.
#[derive(Clone, PartialEq, Message)]
pub struct ResponseOp {
    #[prost(oneof = "response_op::Response", tags = "1, 2, 3, 4")]
    pub response: Option<response_op::Response>,
}

pub mod response_op {
    use super::{DeleteRangeResponse, Nested, Oneof, PutResponse, RangeResponse, TxnResponse};

    #[derive(Clone, PartialEq, Oneof)]
    pub enum Response {
        #[prost(message, tag = "1")]
        ResponseRange(RangeResponse),
        #[prost(message, tag = "2")]
        ResponsePut(PutResponse),
        #[prost(message, tag = "3")]
        ResponseDeleteRange(DeleteRangeResponse),
        #[prost(message, tag = "4")]
        ResponseTxn(Nested<TxnResponse>),
    }
}

/// A message within others of its kind, decoded as if it began anew, up to a depth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nested<T>(Box<T>);

impl<T> Nested<T> {
    pub fn into_inner(self) -> T {
        *self.0
    }
}

impl<T> From<T> for Nested<T> {
    fn from(message: T) -> Self {
        Self(Box::new(message))
    }
}

impl<T> Deref for Nested<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Nested<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Message + Default> Message for Nested<T> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.0.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let level = Level::enter();
        // Beyond the depth the decoder's own limit holds from where it is.
        let ctx = if level.depth <= DEPTH { DecodeContext::default() } else { ctx };
        self.0.merge_field(tag, wire_type, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

thread_local! {
    static OPEN: Cell<u32> = const { Cell::new(0) };
}

/// One of the messages that this thread is within.
struct Level {
    depth: u32,
}

impl Level {
    fn enter() -> Self {
        OPEN.with(|open| {
            open.set(open.get() + 1);
            Self { depth: open.get() }
        })
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        OPEN.with(|open| open.set(open.get() - 1));
    }
}

#[cfg(test)]
mod tests;
