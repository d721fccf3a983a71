//! The rows of a namespace, as bytes.
//!
//! | row | key | value |
//! |---|---|---|
//! | meta | `m` | [`Meta`] |
//! | current | `c` key | the [`KeyRecord`] that the key has |
//! | history | `h` escaped-key `00 01` revision | a record that the key had until that revision |
//! | change | `r` revision | one byte of kind, then the key that changed there |
//!
//! A revision is 12 bytes: main as u64 and sub as u32, big-endian, so that rows are in its order.
//!
//! The key of a history row contains the revision that *ended* the record. So the record of a key
//! at revision `at` is the one that began at or before `at` and ended after it; in the history it
//! is the first row of the key beyond `at`. A deletion needs no row of its own: it ends a record,
//! and no other begins. A compaction may remove every record that ended at or before its revision.
//!
//! Change rows list what happened in order. With them a compaction finds the history rows to be
//! removed without a scan of the others.
//!
//! Keys are any bytes. In a current row the key is last and stands as it is. In a history row
//! something follows it, so each `00` in it is written `00 FF` and `00 01` ends it: no key's rows
//! lie among another's, and the order of the rows is the order of the keys.

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use proto::mvccpb::KeyValue;
use raft::rows::{Read, StorageError, Write};

const META: &[u8] = b"m";
const CURRENT: u8 = b'c';
const HISTORY: u8 = b'h';
const CHANGE: u8 = b'r';

const META_FORMAT: u8 = 1;
const META_LEN: usize = 1 + 8 + 8 + Revision::LEN + 8;

const KEY_END: [u8; 2] = [0x00, 0x01];
const KEY_ZERO: [u8; 2] = [0x00, 0xFF];
/// Greater than [`KEY_END`] and less than any further byte of a longer key.
const AFTER_KEY_END: [u8; 2] = [0x00, 0x02];

/// When something changed: the namespace's revision and the place within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Revision {
    pub(super) main: i64,
    pub(super) sub: u32,
}

impl Revision {
    const LEN: usize = 12;

    fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.main.cast_unsigned().to_be_bytes());
        bytes[8..].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (main, sub) = bytes.split_first_chunk::<8>()?;
        let sub = sub.try_into().ok()?;
        Some(Self { main: u64::from_be_bytes(*main).cast_signed(), sub: u32::from_be_bytes(sub) })
    }
}

/// The counters of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Of the last change.
    pub revision: i64,
    /// Reads below it are refused; -1 until the first compaction, as in etcd.
    pub compacted: i64,
    /// Where the removal of compacted rows goes on: every change row before it is gone.
    pub(super) swept: Revision,
    /// Bytes of all other rows, keys and values.
    pub size: u64,
}

impl Default for Meta {
    fn default() -> Self {
        Self { revision: 1, compacted: -1, swept: Revision::default(), size: 0 }
    }
}

impl Meta {
    /// Reads the counters from the rows; the initial ones if there are no rows.
    pub fn load(rows: &dyn Read) -> Result<Self, StorageError> {
        let Some(bytes) = rows.get(META)? else { return Ok(Self::default()) };
        Self::decode(&bytes).ok_or_else(|| corrupt("meta", META))
    }

    pub(super) fn store(&self, rows: &mut dyn Write) {
        rows.put(META.to_vec(), self.encode());
    }

    /// Counts a row that is added.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.size = self.size.saturating_add(bytes as u64);
    }

    /// Counts a row that is removed.
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.size = self.size.saturating_sub(bytes as u64);
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(META_LEN);
        bytes.push(META_FORMAT);
        bytes.extend(self.revision.to_be_bytes());
        bytes.extend(self.compacted.to_be_bytes());
        bytes.extend(self.swept.to_bytes());
        bytes.extend(self.size.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[META_FORMAT])?;
        let (revision, rest) = rest.split_first_chunk::<8>()?;
        let (compacted, rest) = rest.split_first_chunk::<8>()?;
        let (swept, rest) = rest.split_first_chunk::<{ Revision::LEN }>()?;
        let size = rest.try_into().ok()?;
        Some(Self {
            revision: i64::from_be_bytes(*revision),
            compacted: i64::from_be_bytes(*compacted),
            swept: Revision::from_bytes(swept)?,
            size: u64::from_be_bytes(size),
        })
    }
}

/// One version of a key, without the key.
///
/// Encoded as four varints and the value, which goes on to the end of the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyRecord<'a> {
    pub(super) create_revision: i64,
    pub(super) mod_revision: i64,
    pub(super) version: i64,
    pub(super) lease: i64,
    pub(super) value: &'a [u8],
}

impl<'a> KeyRecord<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let head = self.head();
        let len: usize = head.iter().map(|field| encoded_len_varint(*field)).sum();
        let mut bytes = Vec::with_capacity(len + self.value.len());
        for field in head {
            encode_varint(field, &mut bytes);
        }
        bytes.extend(self.value);
        bytes
    }

    pub(super) fn decode(mut bytes: &'a [u8]) -> Option<Self> {
        let mut field = || decode_varint(&mut bytes).ok().map(u64::cast_signed);
        let (create_revision, mod_revision) = (field()?, field()?);
        let (version, lease) = (field()?, field()?);
        Some(Self { create_revision, mod_revision, version, lease, value: bytes })
    }

    pub(super) fn to_proto(self, key: &[u8]) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: Bytes::copy_from_slice(self.value),
            lease: self.lease,
        }
    }

    fn head(&self) -> [u64; 4] {
        [self.create_revision, self.mod_revision, self.version, self.lease].map(i64::cast_unsigned)
    }
}

/// What a change did to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    /// The key was not there before: no history row ends here.
    Create = 0,
    Update = 1,
    Delete = 2,
}

impl ChangeKind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Create, Self::Update, Self::Delete].into_iter().find(|it| *it as u8 == byte)
    }
}

pub(super) fn current_row(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len());
    row.push(CURRENT);
    row.extend(key);
    row
}

/// After every current row.
pub(super) fn current_end() -> Vec<u8> {
    vec![CURRENT + 1]
}

pub(super) fn current_key(row: &[u8]) -> &[u8] {
    row.strip_prefix(&[CURRENT]).unwrap_or_default()
}

/// The row of the record of `key` that ended at `ended`.
pub(super) fn history_row(key: &[u8], ended: Revision) -> Vec<u8> {
    let mut row = history_from(key);
    row.extend(KEY_END);
    row.extend(ended.to_bytes());
    row
}

/// Before every history row of `key` and of any greater key, after those of lesser ones.
pub(super) fn history_from(key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(1 + key.len() + KEY_END.len() + Revision::LEN);
    row.push(HISTORY);
    for byte in key {
        match byte {
            0 => row.extend(KEY_ZERO),
            _ => row.push(*byte),
        }
    }
    row
}

/// After every history row of `key`.
pub(super) fn history_after(key: &[u8]) -> Vec<u8> {
    let mut row = history_from(key);
    row.extend(AFTER_KEY_END);
    row
}

/// After every history row.
pub(super) fn history_end() -> Vec<u8> {
    vec![HISTORY + 1]
}

/// When the record in a history row ended, without reading its key.
pub(super) fn history_ended(row: &[u8]) -> Option<Revision> {
    Revision::from_bytes(row.last_chunk::<{ Revision::LEN }>()?)
}

/// The key of a history row.
pub(super) fn history_key(row: &[u8]) -> Option<Vec<u8>> {
    let row = row.strip_prefix(&[HISTORY])?;
    let (escaped, _) = row.split_last_chunk::<{ Revision::LEN }>()?;
    let mut rest = escaped.strip_suffix(&KEY_END)?;
    let mut key = Vec::with_capacity(rest.len());
    while let Some((byte, after)) = rest.split_first() {
        key.push(*byte);
        rest = match byte {
            0 => after.strip_prefix(&KEY_ZERO[1..])?,
            _ => after,
        };
    }
    Some(key)
}

pub(super) fn change_row(at: Revision) -> Vec<u8> {
    let mut row = vec![CHANGE];
    row.extend(at.to_bytes());
    row
}

pub(super) fn change_value(kind: ChangeKind, key: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + key.len());
    value.push(kind as u8);
    value.extend(key);
    value
}

pub(super) fn change_at(row: &[u8]) -> Option<Revision> {
    Revision::from_bytes(row.strip_prefix(&[CHANGE])?)
}

pub(super) fn change_of(value: &[u8]) -> Option<(ChangeKind, &[u8])> {
    let (kind, key) = value.split_first()?;
    Some((ChangeKind::from_byte(*kind)?, key))
}

/// A row that this code did not write.
pub(super) fn corrupt(what: &str, row: &[u8]) -> StorageError {
    StorageError::new(format!("corrupt {what} row {}", row.escape_ascii()))
}
