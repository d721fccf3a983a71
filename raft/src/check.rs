//! Looks at the stores of a data directory before anything in it is changed.
//!
//! A server whose disk does not hold what it acknowledged must not start: it would vote and answer
//! without entries that it has acknowledged. Everything that reading can show is checked here, on
//! databases that are opened for reading only. So a refusal changes no byte, and a person can still
//! copy, compare or restore the directory.
//!
//! | found | by |
//! |---|---|
//! | a table file or its list that is gone or damaged | RocksDB, when it opens the databases |
//! | a write-ahead log that lacks synced writes | [`wal::verify`], from the note of the last sync |
//! | a store of another server | the ids in all three stores |
//! | a log that does not begin where it was purged | the indexes of its entries |
//! | a state that is missing, or older than the log reaches back | the log's records |
//!
//! Damage inside a table file is found when the block is read. Then the server ends: see
//! [`DamageAlarm`](crate::damage::DamageAlarm).

use std::{io, path::Path};

use mesh::GroupId;
use rocksdb::DB;

use crate::{
    db::{self, CURRENT, Expect},
    log_store::{
        self, Stored,
        synced::{self, NoteError},
        wal::{self, Torn, Verified},
    },
    rows::StorageError,
    state::{self, family_name, read_stored_applied},
};

/// Why a data directory cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the stores of the data directory")]
    Storage(#[source] StorageError),
    #[error("cannot write the identity file")]
    Identity(#[source] io::Error),
    #[error("cannot use the data directory")]
    Io(#[from] io::Error),
    #[error("{0} is missing or empty although this server had one")]
    StoreMissing(&'static str),
    #[error(
        "{store} is of store {found:016x}, the identity says {expected:016x}: \
         it belongs to another data directory"
    )]
    StoreSwapped { store: &'static str, expected: u64, found: u64 },
    #[error("{store} is damaged: what was written and synced cannot be read")]
    Damaged {
        store: &'static str,
        #[source]
        reason: Reason,
    },
    #[error(
        "the state of group {group} ends at entry {applied}, but the log before entry {purged} is \
         gone: data/ is older than raft/"
    )]
    StateBehind { group: GroupId, applied: u64, purged: u64 },
}

/// What is wrong with a damaged store.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    #[error(transparent)]
    Storage(StorageError),
    #[error("{0}")]
    Log(String),
}

impl OpenError {
    /// Whether the disk does not hold what this server left on it, so that a person must look at
    /// it.
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::StoreMissing(_)
            | Self::StoreSwapped { .. }
            | Self::Damaged { .. }
            | Self::StateBehind { .. } => true,
            Self::Storage(_) | Self::Identity(_) | Self::Io(_) => false,
        }
    }
}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// The result of a check that found nothing wrong: the stores may be opened.
#[derive(Debug)]
pub struct Checked {
    pub(crate) expect: Expect,
    /// What an unfinished write left in the log.
    torn: Option<Torn>,
}

/// Reads the stores in the data directory `dir`; `made` tells whether this server ever had them.
/// Changes nothing.
///
/// # Errors
///
/// If the stores are damaged, missing, or of another server.
pub fn check(dir: &Path, store_id: u64, made: bool) -> Result<Checked, OpenError> {
    if !made {
        // The first start ended before this server took part in anything, so nothing is lost.
        return Ok(Checked { expect: Expect::MadeOrNot, torn: None });
    }
    for store in [RAFT, DATA] {
        if !dir.join(store).join(CURRENT).exists() {
            return Err(OpenError::StoreMissing(store));
        }
    }
    let noted = synced::read(dir).map_err(|error| match error {
        NoteError::Missing(_) => OpenError::StoreMissing(NOTE),
        NoteError::Damaged(_) => damaged(NOTE, error.to_string()),
        NoteError::Io { source, .. } => OpenError::Io(source),
    })?;
    same_store(NOTE, store_id, noted.store_id)?;
    let (log, torn) = check_log(dir, store_id, noted.sequence)?;
    check_state(dir, store_id, &Stored(&log))?;
    Ok(Checked { expect: Expect::Made, torn })
}

impl Checked {
    /// Cuts off what an unfinished write left, so that RocksDB cannot read it as a write.
    pub(crate) fn cut(&self) -> io::Result<()> {
        let Some(Torn { path, whole }) = &self.torn else { return Ok(()) };
        let file = std::fs::OpenOptions::new().write(true).open(path)?;
        let bytes = file.metadata()?.len().saturating_sub(*whole);
        tracing::info!(file = %path.display(), bytes, "cut off a write that was never finished");
        // Not synced: if a power cut restores the bytes, the next start cuts them off again.
        file.set_len(*whole)
    }
}

const RAFT: &str = log_store::FOLDER;
const DATA: &str = state::FOLDER;
const NOTE: &str = synced::FILE;

/// Returns the log, and what is to be cut off.
fn check_log(dir: &Path, store_id: u64, synced: u64) -> Result<(DB, Option<Torn>), OpenError> {
    let path = dir.join(RAFT);
    let database = db::read_log(&path, &path).map_err(in_store(RAFT))?;
    let stored = Stored(&database);
    let found = stored.store_id().map_err(in_store(RAFT))?;
    same_store(RAFT, store_id, found.unwrap_or(store_id))?;
    // Opened with the data directory as the place of the write-ahead log. There is none in it, so
    // this is the last write that the tables hold.
    let tables = db::read_log(&path, dir).map_err(in_store(RAFT))?.latest_sequence_number();
    let files = wal::read(&path)?;
    let Verified { last, torn } =
        wal::verify(&files, tables, synced).map_err(|damage| damaged(RAFT, damage.to_string()))?;
    let read = database.latest_sequence_number();
    if read < synced {
        let reason =
            format!("RocksDB reads the log up to write {read}, but {last} writes are there");
        return Err(damaged(RAFT, reason));
    }
    if found.is_none() {
        return Err(OpenError::StoreMissing(RAFT));
    }
    for (group, _) in stored.records().map_err(in_store(RAFT))? {
        let log = stored.log(group).map_err(in_store(RAFT))?;
        if !log.begins_right() {
            let (first, purged) =
                (log.first_kept.unwrap_or(0), log.purged.map_or(0, |id| id.index));
            let reason = format!(
                "the log of group {group} begins at entry {first} and was purged up to {purged}"
            );
            return Err(damaged(RAFT, reason));
        }
    }
    Ok((database, torn))
}

fn check_state(dir: &Path, store_id: u64, log: &Stored<'_>) -> Result<(), OpenError> {
    let state = db::read_state(&dir.join(DATA)).map_err(in_store(DATA))?;
    let owner = state::read_owner(&state).map_err(in_store(DATA))?;
    same_store(DATA, store_id, owner.ok_or(OpenError::StoreMissing(DATA))?)?;
    for (group, record) in log.records().map_err(in_store(RAFT))? {
        let family = family_name(group, record.generation);
        let Some(handle) = state.cf_handle(&family) else {
            let reason = format!("the state {family} is missing although the log store names it");
            return Err(damaged(DATA, reason));
        };
        let applied = read_stored_applied(&state, &handle).map_err(in_store(DATA))?;
        let purged = log.log(group).map_err(in_store(RAFT))?.purged;
        if let Some(purged) = purged
            && Some(purged.index) > applied
        {
            let applied = applied.unwrap_or(0);
            return Err(OpenError::StateBehind { group, applied, purged: purged.index });
        }
    }
    Ok(())
}

fn same_store(store: &'static str, expected: u64, found: u64) -> Result<(), OpenError> {
    if found == expected {
        return Ok(());
    }
    Err(OpenError::StoreSwapped { store, expected, found })
}

fn in_store(store: &'static str) -> impl Fn(StorageError) -> OpenError {
    move |error| {
        if error.is_damage() {
            OpenError::Damaged { store, reason: Reason::Storage(error) }
        } else {
            OpenError::Storage(error)
        }
    }
}

fn damaged(store: &'static str, reason: String) -> OpenError {
    OpenError::Damaged { store, reason: Reason::Log(reason) }
}

#[cfg(test)]
mod tests;
