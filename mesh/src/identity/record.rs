//! The content of the identity file, and how it is written and read.

use std::{collections::BTreeSet, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::DataDirError;
use crate::{
    file,
    ids::{MeshId, NodeId},
    place::{self, Place},
};

/// Layout of the data directory that this version reads and writes.
pub(super) const FORMAT: u32 = 2;
pub(super) const IDENTITY_FILE: &str = "identity";
const IDENTITY_DRAFT: &str = "identity.new";
const HEADER: &str = "quorate-identity";
/// Entries that a new volume may contain.
const IGNORED: [&str; 1] = ["lost+found"];

/// The content of the identity file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) node_id: NodeId,
    pub(super) store_id: u64,
    /// Whether the log store was made and marked with the store id.
    pub(super) store_made: bool,
    pub(super) mesh_id: Option<String>,
    pub(super) formation: Option<FormationRecord>,
    pub(super) boot_epoch: u64,
    pub(super) services: BTreeSet<String>,
    /// A secret that only this directory and its copies have, in hexadecimal digits.
    pub(super) secret: String,
    pub(super) place: Option<Place>,
    /// Whether another start was found to run from a copy. The directory cannot be started until an
    /// operator has decided which copy is kept.
    pub(super) overtaken: bool,
    /// Whether an operator has decided for this copy, and its groups have not yet raised their
    /// terms beyond those of the other copies.
    #[serde(default)]
    pub(super) terms_forgotten: bool,
}

/// The formation that made this server a member of its mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormationRecord {
    pub(crate) mesh_id: String,
    pub(crate) members: Vec<FormationMemberRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormationMemberRecord {
    pub(crate) node_id: NodeId,
    pub(crate) store_id: u64,
    pub(crate) address: String,
}

impl Record {
    pub(super) fn new(services: BTreeSet<String>, place: Place) -> Self {
        Self {
            node_id: random_id(),
            store_id: random_id(),
            store_made: false,
            mesh_id: None,
            formation: None,
            boot_epoch: 0,
            services,
            secret: (0..4).map(|_| format!("{:016x}", rand::random::<u64>())).collect(),
            place: Some(place),
            overtaken: false,
            terms_forgotten: false,
        }
    }
}

pub(super) fn save(path: &Path, record: &Record) -> io::Result<()> {
    let body = serde_json::to_string_pretty(record)?;
    let text = format!("{HEADER} {FORMAT} {:08x}\n{body}\n", crc32c::crc32c(body.as_bytes()));
    file::replace(path, IDENTITY_DRAFT, IDENTITY_FILE, text.as_bytes())
}

pub(super) fn read_record(path: &Path) -> Result<Option<Record>, DataDirError> {
    let in_dir = |source| DataDirError::Io { path: path.to_owned(), source };
    let text = match fs::read_to_string(path.join(IDENTITY_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if is_empty(path).map_err(in_dir)? {
                Ok(None)
            } else {
                Err(DataDirError::NotADataDir(path.to_owned()))
            };
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged(path, "not text"));
        }
        Err(error) => return Err(in_dir(error)),
    };
    parse(path, &text).map(Some)
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Record, DataDirError> {
    let (header, body) = text.split_once('\n').ok_or_else(|| damaged(path, "no header"))?;
    let mut words = header.split(' ');
    if words.next() != Some(HEADER) {
        return Err(damaged(path, "no header"));
    }
    let format = words.next().and_then(|word| word.parse::<u32>().ok());
    let format = format.ok_or_else(|| damaged(path, "no format"))?;
    if format > FORMAT {
        return Err(DataDirError::NewerFormat { path: path.to_owned(), found: format });
    }
    if format < FORMAT {
        return Err(DataDirError::OlderFormat { path: path.to_owned(), found: format });
    }
    let sum = words.next().and_then(|word| u32::from_str_radix(word, 16).ok());
    let body = body.trim_end();
    if sum != Some(crc32c::crc32c(body.as_bytes())) {
        return Err(damaged(path, "checksum does not match"));
    }
    let record: Record =
        serde_json::from_str(body).map_err(|_| damaged(path, "content does not parse"))?;
    if record.mesh_id.as_ref().is_some_and(|text| text.parse::<MeshId>().is_err()) {
        return Err(damaged(path, "mesh id does not parse"));
    }
    Ok(record)
}

fn is_empty(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        // A crash before the first identity file was in place leaves its draft.
        let known =
            IGNORED.iter().chain([&IDENTITY_DRAFT, &place::DIR]).any(|known| name == **known);
        if !known {
            return Ok(false);
        }
    }
    Ok(true)
}

fn damaged(path: &Path, reason: &'static str) -> DataDirError {
    DataDirError::Damaged { path: path.to_owned(), reason }
}

pub(super) fn random_id() -> u64 {
    rand::random::<u64>().max(1)
}
