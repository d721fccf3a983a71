//! The messages that a client sends on a stream, out of the body of its HTTP request.
//!
//! Each is five bytes and a message: a flag for compression, which is not offered here, and the
//! length (gRPC over HTTP/2, "Length-Prefixed-Message"). Most messages are small and come in one
//! piece, and are not copied. Nothing is kept between messages: a stream at rest has no buffer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tonic::{Status, body::Body, codegen::Body as _};

use crate::MESSAGE_LIMIT;

/// The bytes before a message.
const PREFIX: usize = 5;

/// The messages of one stream.
#[derive(Debug)]
pub(super) struct Requests {
    body: Body,
    /// What came and was not taken.
    pieces: Pieces,
}

#[derive(Debug, Default)]
struct Pieces {
    /// One piece, as it came.
    whole: Bytes,
    /// Several of them, joined. It is empty unless a message needs it.
    joined: BytesMut,
}

impl Requests {
    pub(super) fn new(body: Body) -> Self {
        Self { body, pieces: Pieces::default() }
    }

    /// The next message; none once the client has closed its side.
    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            match self.pieces.take_message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pieces.add(data);
                    }
                }
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None if self.pieces.is_empty() => return Poll::Ready(None),
                None => {
                    let cut = Status::invalid_argument("the stream ends within a message");
                    return Poll::Ready(Some(Err(cut)));
                }
            }
        }
    }
}

impl Pieces {
    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.joined.is_empty()
    }

    fn add(&mut self, data: Bytes) {
        if self.is_empty() {
            self.whole = data;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&std::mem::take(&mut self.whole));
        }
        self.joined.extend_from_slice(&data);
    }

    /// Takes the next message, if all of it has come.
    fn take_message(&mut self) -> Result<Option<Bytes>, Status> {
        let there = if self.joined.is_empty() { &self.whole[..] } else { &self.joined[..] };
        let Some((prefix, rest)) = there.split_at_checked(PREFIX) else { return Ok(None) };
        if prefix[0] != 0 {
            return Err(Status::unimplemented("compressed requests are not served"));
        }
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MESSAGE_LIMIT {
            return Err(Status::resource_exhausted(format!(
                "a request may have {MESSAGE_LIMIT} bytes at most, this one has {len}"
            )));
        }
        if rest.len() < len {
            // Room for all of it at once. A client is believed only so far as it has sent.
            if !self.joined.is_empty() && rest.len() > len / 2 {
                self.joined.reserve(len - rest.len());
            }
            return Ok(None);
        }
        if self.joined.is_empty() {
            self.whole.advance(PREFIX);
            let message = self.whole.split_to(len);
            // What is empty would still hold on to the connection's buffer.
            if self.whole.is_empty() {
                self.whole = Bytes::new();
            }
            return Ok(Some(message));
        }
        self.joined.advance(PREFIX);
        let message = self.joined.split_to(len).freeze();
        // What follows a message is short, or the begin of another one.
        self.whole = Bytes::copy_from_slice(&self.joined);
        self.joined = BytesMut::new();
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.push(0);
            bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            bytes.extend(*message);
        }
        bytes
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let messages: [&[u8]; 4] = [b"one", b"", &[7; 300], b"two"];
        let bytes = framed(&messages);
        for size in 1..=bytes.len() {
            let mut pieces = Pieces::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                pieces.add(Bytes::copy_from_slice(piece));
                while let Some(message) = pieces.take_message().unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages, "pieces of {size}");
            assert!(pieces.is_empty());
            assert_eq!(pieces.joined.capacity(), 0, "nothing is kept");
        }
    }

    #[test]
    fn what_is_not_served_is_refused() {
        let refused = |bytes: &[u8]| {
            let mut pieces = Pieces::default();
            pieces.add(Bytes::copy_from_slice(bytes));
            pieces.take_message().unwrap_err().code()
        };
        assert_eq!(refused(&[1, 0, 0, 0, 0]), tonic::Code::Unimplemented);
        assert_eq!(refused(&[0, 255, 255, 255, 255]), tonic::Code::ResourceExhausted);
    }
}
