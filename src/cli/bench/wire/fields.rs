//! Fields of a protobuf message, where they lie.

use bytes::{BufMut, BytesMut};

use super::Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, of which none matters here.
    Fixed,
}

/// The fields of a protobuf message, in their order. Ends after the first error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(Malformed))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (position, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                self.0 = &self.0[position + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

/// All values of a repeated message or text.
pub(super) fn all(message: &[u8], number: u64) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    Fields(message).filter_map(move |field| match field {
        Ok((found, Value::Bytes(value))) if found == number => Some(Ok(value)),
        Ok(_) => None,
        Err(malformed) => Some(Err(malformed)),
    })
}

/// The value of a message or text; empty if it is not there.
pub(super) fn bytes_of(message: &[u8], number: u64) -> Result<&[u8], Malformed> {
    all(message, number).next().unwrap_or(Ok(&[]))
}

pub(super) fn put(out: &mut BytesMut, number: u8, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    // Field numbers up to 15 take one byte.
    out.put_u8(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        // The low seven bits and a mark that more follow.
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.put_slice(value);
}
