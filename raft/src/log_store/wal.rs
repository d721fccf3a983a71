//! Reads the write-ahead log of RocksDB from disk and finds where it ends or is damaged.
//!
//! RocksDB drops everything after the first record that it cannot read, as if that were an
//! unfinished write. It cannot tell the difference: a damaged length looks like a file that ends
//! early, and a block of zeros looks like one that was never written. [`scan`] only finds which
//! writes follow each other without a gap, and up to which byte. [`verify`] decides what that
//! means, from the write that is known to have been synced.
//!
//! Format ("Write Ahead Log File Format" in RocksDB's documentation): blocks of 32 KiB hold records
//! `crc32c u32, length u16, type u8, payload`, all little-endian; a write that does not fit into a
//! block is cut into records of type first, middle and last. A write begins with its sequence
//! number (u64) and the count of its changes (u32), each of which takes one number.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// Sequence number and count, with which a write begins.
const WRITE_START: usize = 12;
/// RocksDB adds this to a checksum before storing it, so that checksums of data that holds
/// checksums stay reliable.
const MASK_DELTA: u32 = 0xa282_ead8;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// One file, read up to the first byte that belongs to no whole write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Sequence number of the first write; None if there is none.
    pub(crate) first: Option<u64>,
    /// Sequence number that follows the last whole write.
    pub(crate) next: u64,
    /// Where the last whole write ends.
    pub(crate) end: u64,
    /// Whether the file ends there too.
    pub(crate) whole: bool,
}

/// A write-ahead log that holds every synced write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Sequence number of the last write.
    pub(crate) last: u64,
    /// What an unfinished write left after the last whole one. It is to be cut off.
    pub(crate) torn: Option<Torn>,
}

/// Bytes of a file that belong to no whole write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) path: PathBuf,
    pub(crate) whole: u64,
}

/// Synced writes are missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("the log can be read up to write {last}, but was synced up to write {synced}: {at}")]
    Short { last: u64, synced: u64, at: String },
    #[error("writes {from} to {to} are missing before {}", .file.display())]
    Gap { from: u64, to: u64, file: PathBuf },
}

/// Reads the write-ahead log files of a database, in order.
pub(crate) fn read(database: &Path) -> io::Result<Vec<(PathBuf, Segment)>> {
    let mut files = Vec::new();
    for item in fs::read_dir(database)? {
        let path = item?.path();
        if path.extension().is_some_and(|extension| extension == "log")
            && let Some(number) =
                path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok())
        {
            files.push((number, path));
        }
    }
    files.sort();
    files
        .into_iter()
        .map(|(_, path)| {
            let segment = scan(&fs::read(&path)?);
            Ok((path, segment))
        })
        .collect()
}

/// Decides whether the log is complete: `tables` is the last write that the tables may hold, and
/// `synced` the last one that is known to have been synced.
///
/// Only a write after the last synced one may be unfinished. If the server was started again since,
/// a file that is not whole is followed by one that continues where it ends. Files before the first
/// one were deleted because the tables hold their writes.
pub(crate) fn verify(
    files: &[(PathBuf, Segment)],
    tables: u64,
    synced: u64,
) -> Result<Verified, Damage> {
    let mut next = tables + 1;
    let mut unfinished: Option<(&Path, &Segment)> = None;
    for (path, segment) in files {
        let Some(first) = segment.first else {
            if !segment.whole {
                unfinished = Some((path, segment));
            }
            continue;
        };
        let expected = match unfinished {
            Some((_, before)) if before.first.is_some() => before.next,
            Some(_) | None => next,
        };
        if first > expected {
            return Err(Damage::Gap { from: expected, to: first - 1, file: path.clone() });
        }
        next = next.max(segment.next);
        unfinished = (!segment.whole).then_some((path, segment));
    }
    let last = next - 1;
    if last < synced {
        let at = match (unfinished, files.last()) {
            (Some((path, segment)), _) => {
                format!("{} is damaged at byte {}", path.display(), segment.end)
            }
            (None, Some((path, _))) => format!("{} ends too early", path.display()),
            (None, None) => "its files are missing".to_owned(),
        };
        return Err(Damage::Short { last, synced, at });
    }
    let torn = unfinished.map(|(path, segment)| Torn { path: path.to_owned(), whole: segment.end });
    Ok(Verified { last, torn })
}

/// Reads one file.
pub(crate) fn scan(bytes: &[u8]) -> Segment {
    let mut found = Segment { first: None, next: 0, end: 0, whole: true };
    let mut records = Records { bytes, at: 0 };
    loop {
        match next_write(&mut records) {
            Ok(Some((sequence, count))) => {
                if found.first.is_some() && sequence != found.next {
                    break;
                }
                found.first.get_or_insert(sequence);
                found.next = sequence.saturating_add(count);
                found.end = records.at as u64;
            }
            Ok(None) => return found,
            Err(Unreadable) => break,
        }
    }
    found.whole = false;
    found
}

/// The bytes are no valid record.
struct Unreadable;

/// The sequence number and the count of the next write; None at the end of the file.
fn next_write(records: &mut Records<'_>) -> Result<Option<(u64, u64)>, Unreadable> {
    let Some((kind, payload)) = records.next()? else { return Ok(None) };
    // Near the end of a block even these twelve bytes may be split over two records.
    let mut start = payload[..payload.len().min(WRITE_START)].to_vec();
    match kind {
        FULL => {}
        FIRST => loop {
            let (kind, payload) = records.next()?.ok_or(Unreadable)?;
            let lacking = WRITE_START - start.len();
            start.extend(&payload[..payload.len().min(lacking)]);
            match kind {
                MIDDLE => {}
                LAST => break,
                _ => return Err(Unreadable),
            }
        },
        _ => return Err(Unreadable),
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l] =
        <[u8; WRITE_START]>::try_from(start).map_err(|_| Unreadable)?;
    let sequence = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
    Ok(Some((sequence, u32::from_le_bytes([i, j, k, l]).into())))
}

/// The records of a file, up to `at`.
struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, Unreadable> {
        let left = BLOCK - self.at % BLOCK;
        if left < HEADER {
            // Too little room for a header: RocksDB fills it with zeros.
            let end = self.bytes.len().min(self.at + left);
            let filling = self.bytes.get(self.at..end).ok_or(Unreadable)?;
            if filling.iter().any(|byte| *byte != 0) {
                return Err(Unreadable);
            }
            self.at = end;
        }
        let rest = self.bytes.get(self.at..).ok_or(Unreadable)?;
        if rest.is_empty() {
            return Ok(None);
        }
        let header = *rest.first_chunk::<HEADER>().ok_or(Unreadable)?;
        let [c0, c1, c2, c3, l0, l1, kind] = header;
        let length = usize::from(u16::from_le_bytes([l0, l1]));
        if HEADER + length > BLOCK - self.at % BLOCK {
            return Err(Unreadable);
        }
        let checked = rest.get(HEADER - 1..HEADER + length).ok_or(Unreadable)?;
        if mask(crc32c::crc32c(checked)) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(Unreadable);
        }
        self.at += HEADER + length;
        Ok(Some((kind, &checked[1..])))
    }
}

const fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(MASK_DELTA)
}

#[cfg(test)]
mod tests;
