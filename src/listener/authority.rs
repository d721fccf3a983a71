//! Lets clients in whose `:authority` is no authority.
//!
//! etcd's own clients send the endpoint as they were given it: `http://10.0.0.7:2379`, or
//! `endpoint://client-…/10.0.0.7:2379`. Go's HTTP/2 server takes that; ours resets the stream, and
//! nobody who reads "PROTOCOL_ERROR" would think of the endpoint's spelling. No service here reads
//! the authority, so a connection whose first request carries a malformed one gets [`STAND_IN`] in
//! its place.
//!
//! [`Filter`] works on the bytes that a client sends, before HTTP/2 is read (RFC 9113 §4, RFC 7541).
//! It follows frames until the first block of headers. If that one is well formed, as nearly all
//! are, the rest of the connection passes untouched and uncopied. Otherwise each block of headers is
//! decoded and written again. A client sends one authority on all of a connection, so one look is
//! enough.

use bytes::{Buf, BufMut, BytesMut};
use loona_hpack::Decoder;

#[cfg(test)]
mod tests;

/// What stands for an authority that is none.
const STAND_IN: &[u8] = b"localhost";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER: usize = 9;

const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// Length of the priority fields that a HEADERS frame may begin with.
const PRIORITY_FIELDS: usize = 5;

/// Largest payload of a frame that is written: what every receiver must take.
const FRAME_LIMIT: usize = 16 * 1024;

/// Largest block of headers that is looked at, as hyper's own limit.
const BLOCK_LIMIT: usize = 64 * 1024;

/// Size of the table that the client's encoder may use: we never announce another one.
const TABLE_SIZE: usize = 4096;

/// The bytes cannot be HTTP/2, or are beyond a limit: the connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed HTTP/2 headers")]
pub(super) struct Malformed;

/// What one client has sent, in the order in which it comes.
pub(super) struct Filter {
    mode: Mode,
    /// Received and not yet judged.
    pending: BytesMut,
    /// Bytes of a frame that pass without being looked at.
    passing: usize,
    decoder: Decoder<'static>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Preface,
    /// Until the first block of headers.
    Looking,
    /// Every block of headers is written again.
    Rewriting,
    /// Nothing is looked at any more.
    Open,
}

/// A block of headers with all of its frames.
struct Block {
    stream: [u8; 4],
    ends_stream: bool,
    fragment: Vec<u8>,
    /// Bytes of all its frames.
    length: usize,
}

impl Filter {
    pub(super) fn new() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(TABLE_SIZE);
        Self { mode: Mode::Preface, pending: BytesMut::new(), passing: 0, decoder }
    }

    /// Whether everything that comes may be passed on without [`Filter::take`].
    pub(super) fn is_open(&self) -> bool {
        self.mode == Mode::Open && self.pending.is_empty()
    }

    /// Takes in received bytes, and appends to `out` what may be read.
    ///
    /// # Errors
    ///
    /// Only where headers have to be written again and cannot be; what else is wrong is left for
    /// the HTTP/2 implementation to tell the client.
    pub(super) fn take(&mut self, received: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
        self.pending.extend_from_slice(received);
        loop {
            let goes_on = match self.mode {
                Mode::Open => {
                    out.put(self.pending.split());
                    false
                }
                Mode::Preface => self.pass_preface(out),
                Mode::Looking | Mode::Rewriting => self.pass_frame(out)?,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Says whether there is more to do.
    fn pass_preface(&mut self, out: &mut BytesMut) -> bool {
        let length = self.pending.len().min(PREFACE.len());
        if self.pending[..length] != PREFACE[..length] {
            // HTTP/1, or nothing that we know.
            self.mode = Mode::Open;
            return true;
        }
        if length < PREFACE.len() {
            return false;
        }
        out.put(self.pending.split_to(length));
        self.mode = Mode::Looking;
        true
    }

    fn pass_frame(&mut self, out: &mut BytesMut) -> Result<bool, Malformed> {
        if self.passing > 0 {
            let length = self.passing.min(self.pending.len());
            out.put(self.pending.split_to(length));
            self.passing -= length;
            return Ok(self.passing == 0);
        }
        let Some(header) = FrameHeader::read(&self.pending) else { return Ok(false) };
        if header.kind != HEADERS {
            self.passing = FRAME_HEADER + header.length;
            return Ok(true);
        }
        match Block::read(&self.pending) {
            Ok(Some(block)) => self.pass_block(&block, out),
            Ok(None) => Ok(false),
            // Nothing was written again yet, so the bytes can go on as they are.
            Err(Malformed) if self.mode == Mode::Looking => {
                self.mode = Mode::Open;
                Ok(true)
            }
            Err(malformed) => Err(malformed),
        }
    }

    fn pass_block(&mut self, block: &Block, out: &mut BytesMut) -> Result<bool, Malformed> {
        let decoded = self.decoder.decode(&block.fragment);
        if self.mode == Mode::Looking {
            match &decoded {
                Ok(headers) if headers.iter().any(is_malformed_authority) => {
                    self.mode = Mode::Rewriting;
                }
                Ok(_) | Err(_) => {
                    self.mode = Mode::Open;
                    return Ok(true);
                }
            }
        }
        let headers = decoded.map_err(|_| Malformed)?;
        self.pending.advance(block.length);
        block.write(&headers, out);
        Ok(true)
    }
}

type Header = (Vec<u8>, Vec<u8>);

fn is_malformed_authority((name, value): &Header) -> bool {
    name == b":authority" && http::uri::Authority::try_from(value.as_slice()).is_err()
}

struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl FrameHeader {
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER] = bytes.first_chunk()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        Some(Self { length, kind, flags, stream: [s0, s1, s2, s3] })
    }

    fn write(&self, out: &mut BytesMut) {
        let length = u32::try_from(self.length).expect("a frame is cut to the limit");
        out.put_slice(&length.to_be_bytes()[1..]);
        out.put_u8(self.kind);
        out.put_u8(self.flags);
        out.put_slice(&self.stream);
    }
}

impl Block {
    /// The block that `bytes` begin with, once all of it is there.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut block: Option<Self> = None;
        let mut at = 0;
        loop {
            let Some(header) = bytes.get(at..).and_then(FrameHeader::read) else {
                return Ok(None);
            };
            let begins = at + FRAME_HEADER;
            let ends = begins + header.length;
            if ends > BLOCK_LIMIT {
                return Err(Malformed);
            }
            let Some(payload) = bytes.get(begins..ends) else { return Ok(None) };
            match &mut block {
                None => {
                    let fragment = fragment_of(&header, payload).ok_or(Malformed)?.to_vec();
                    let ends_stream = header.flags & END_STREAM != 0;
                    let stream = header.stream;
                    block = Some(Self { stream, ends_stream, fragment, length: ends });
                }
                Some(block) if header.kind == CONTINUATION && header.stream == block.stream => {
                    block.fragment.extend_from_slice(payload);
                    block.length = ends;
                }
                Some(_) => return Err(Malformed),
            }
            at = ends;
            if header.flags & END_HEADERS != 0 {
                return Ok(block);
            }
        }
    }

    /// Writes `headers` as this block, without the table that encoders share with decoders: what is
    /// written never changes what the client's encoder believes of it.
    fn write(&self, headers: &[Header], out: &mut BytesMut) {
        let mut fragment = BytesMut::new();
        for header in headers {
            let (name, value) = header;
            let value = if is_malformed_authority(header) { STAND_IN } else { value };
            // A literal without indexing, with a new name (RFC 7541 §6.2.2).
            fragment.put_u8(0);
            write_string(name, &mut fragment);
            write_string(value, &mut fragment);
        }
        let mut kind = HEADERS;
        let mut flags = if self.ends_stream { END_STREAM } else { 0 };
        loop {
            let payload = fragment.split_to(fragment.len().min(FRAME_LIMIT));
            if fragment.is_empty() {
                flags |= END_HEADERS;
            }
            FrameHeader { length: payload.len(), kind, flags, stream: self.stream }.write(out);
            out.put(payload);
            if fragment.is_empty() {
                return;
            }
            (kind, flags) = (CONTINUATION, 0);
        }
    }
}

/// The fragment of a HEADERS frame, without padding and priority.
fn fragment_of<'a>(header: &FrameHeader, payload: &'a [u8]) -> Option<&'a [u8]> {
    let (padding, payload) = match header.flags & PADDED {
        0 => (0, payload),
        _ => payload.split_first().map(|(length, rest)| (usize::from(*length), rest))?,
    };
    let skipped = if header.flags & PRIORITY == 0 { 0 } else { PRIORITY_FIELDS };
    payload.get(skipped..payload.len().checked_sub(padding)?)
}

/// A string without Huffman coding (RFC 7541 §5.2).
fn write_string(text: &[u8], out: &mut BytesMut) {
    const PREFIX: usize = 0x7f;
    if text.len() < PREFIX {
        out.put_u8(u8::try_from(text.len()).expect("it is below the prefix"));
    } else {
        out.put_u8(0x7f);
        let mut rest = text.len() - PREFIX;
        while rest >= 0x80 {
            out.put_u8(u8::try_from(rest % 0x80).expect("a remainder is small") | 0x80);
            rest /= 0x80;
        }
        out.put_u8(u8::try_from(rest).expect("it is below 128"));
    }
    out.put_slice(text);
}
