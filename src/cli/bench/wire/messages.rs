//! Messages of a gRPC body.

use bytes::{Buf, BytesMut};

use super::{Malformed, PREFIX};

/// A response beyond this is taken for nonsense.
const LONGEST_MESSAGE: usize = 1 << 30;

/// Puts the messages of a gRPC body together, from chunks that begin and end anywhere.
#[derive(Debug, Default)]
pub(in super::super) struct Messages {
    rest: BytesMut,
}

impl Messages {
    /// Gives every message that is complete with this chunk to `each`.
    pub(in super::super) fn push<E: From<Malformed>>(
        &mut self,
        chunk: &[u8],
        each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        // Most messages come in one chunk, and are read where they are.
        if self.rest.is_empty() {
            let read = read(chunk, each)?;
            self.rest.extend_from_slice(&chunk[read..]);
            return Ok(());
        }
        self.rest.extend_from_slice(chunk);
        let read = read(&self.rest, each)?;
        self.rest.advance(read);
        if self.rest.is_empty() {
            // Memory for a large response is not kept by every client for the small ones after it.
            self.rest = BytesMut::new();
        }
        Ok(())
    }
}

/// Reads whole messages, and returns how many bytes they had.
fn read<E: From<Malformed>>(
    buffer: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<usize, E> {
    let mut read = 0;
    while let Some(length) = message_length(&buffer[read..])? {
        let begin = read + PREFIX;
        let Some(message) = buffer.get(begin..begin + length) else { break };
        each(message)?;
        read = begin + length;
    }
    Ok(read)
}

fn message_length(buffer: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(&[compressed, a, b, c, d]) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| Malformed)?;
    // Nobody asked for compression.
    let fine = compressed == 0 && length <= LONGEST_MESSAGE;
    if fine { Ok(Some(length)) } else { Err(Malformed) }
}
