//! The state of the groups, in the RocksDB instance `data/`, and openraft's state machine on it.
//!
//! A group's rows live in one column family per *generation*, beside the id of the last applied
//! entry and the membership: all of it is written in one batch, so a flush always leaves the state
//! after some entry on disk, and the Raft log replays the rest. This database has no write-ahead
//! log.
//!
//! A Raft snapshot is reported only after a flush, so the log is never purged beyond what is on
//! disk. Its rows are not copied until a peer needs them: openraft holds a view of the database,
//! which is exported into a table file when it is sent. A received table file becomes a new
//! generation. The group's record is switched to it durably and the old column family is dropped,
//! so no row that the leader had deleted can survive.

mod batch;
mod machine;
mod pending_replies;
mod snapshot;
mod system_rows;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use mesh::{DirLock, GroupId};
use prost::Message;
use proto::quorate::v1 as pb;
use rocksdb::DB;
use tokio::sync::watch;

pub(crate) use self::{
    machine::GroupState,
    pending_replies::{PendingReplies, PendingReply},
    snapshot::{Receiver, SnapshotData, SnapshotFile, Staged},
    system_rows::{read_applied, read_membership, read_stored_applied},
};
use crate::{
    damage::DamageAlarm,
    db::{DEFAULT_FAMILY, Db, Expect, state_options, without_wal},
    level::FIRST,
    read_view::ReadView,
    rows::StorageError,
};

/// The store's place in the data directory.
pub(crate) const FOLDER: &str = "data";
/// Key in the default column family: the id of the store that this state belongs to.
const OWNER_KEY: &[u8] = b"owner";

/// The state of every group of a server.
#[derive(Clone)]
pub(crate) struct StateStore {
    pub(crate) db: Arc<Db>,
    shared: Arc<Shared>,
}

struct Shared {
    tmp: PathBuf,
    next_generation: AtomicU64,
    next_file: AtomicU64,
}

/// What the readers of a group share with its state machine.
pub(crate) struct Published {
    family: Mutex<String>,
    /// The last index published to readers; zero before anything was applied.
    pub(crate) applied: watch::Sender<u64>,
    /// Bytes of commands applied since the start.
    pub(crate) applied_bytes: AtomicU64,
    pub(crate) pending_replies: PendingReplies,
    /// The level of the group, as of the last applied entry.
    pub(crate) level: AtomicU32,
    /// Set when this version is too old to go on.
    pub(crate) outdated: OnceLock<String>,
}

impl StateStore {
    /// Opens the store, or makes it and marks it with the store's id. Empties the directory for
    /// transfers, and drops column families that a crash left behind: those that no group's record
    /// names. Fails if a named one is missing.
    pub(crate) fn open(
        dir: &Path,
        store_id: u64,
        lock: Arc<DirLock>,
        expect: Expect,
        recorded: &[(GroupId, u64)],
        alarm: DamageAlarm,
    ) -> Result<Self, StorageError> {
        let db = Db::open_state(&dir.join(FOLDER), lock, expect, alarm)?;
        match read_owner(&db)? {
            Some(found) if found != store_id => {
                return Err(StorageError::new(format!(
                    "the state store is {found:016x}, not {store_id:016x}"
                )));
            }
            Some(_) => {}
            None => mark(&db, store_id)?,
        }
        let tmp = dir.join("tmp");
        empty_dir(&tmp).map_err(|error| StorageError::with_source("cannot empty tmp/", error))?;
        let next_generation = drop_unused(&db, &dir.join(FOLDER), recorded)?;
        let shared = Shared {
            tmp,
            next_generation: AtomicU64::new(next_generation),
            next_file: AtomicU64::new(1),
        };
        Ok(Self { db: Arc::new(db), shared: Arc::new(shared) })
    }

    /// Makes an empty column family of a new generation.
    pub(crate) fn create_family(&self, group: GroupId) -> Result<u64, StorageError> {
        let generation = self.shared.next_generation.fetch_add(1, Ordering::Relaxed);
        self.db
            .create_cf(family_name(group, generation), &state_options())
            .map_err(|error| self.db.failed("cannot make a column family", error))?;
        Ok(generation)
    }

    pub(crate) fn drop_family(&self, group: GroupId, generation: u64) {
        if let Err(error) = self.db.drop_cf(&family_name(group, generation)) {
            tracing::warn!(%error, group, generation, "cannot drop a column family");
        }
    }

    pub(crate) fn view(&self, group: GroupId, generation: u64) -> Option<ReadView> {
        ReadView::open(&self.db, &family_name(group, generation))
    }

    /// A new file name in the directory for transfers.
    pub(crate) fn transfer_path(&self) -> PathBuf {
        let number = self.shared.next_file.fetch_add(1, Ordering::Relaxed);
        self.shared.tmp.join(format!("snapshot-{number}.sst"))
    }
}

impl Published {
    pub(crate) fn new(family: String) -> Self {
        Self {
            family: Mutex::new(family),
            applied: watch::Sender::new(0),
            applied_bytes: AtomicU64::new(0),
            pending_replies: PendingReplies::new(),
            level: AtomicU32::new(FIRST),
            outdated: OnceLock::new(),
        }
    }

    /// A view of the rows as they are now.
    pub(crate) fn view(&self, db: &Arc<Db>) -> Result<ReadView, StorageError> {
        // Locked until the family is opened, so that an install cannot drop it in between.
        let family = self.family.lock().unwrap_or_else(PoisonError::into_inner);
        ReadView::open(db, &family).ok_or_else(|| StorageError::new("the group's state is gone"))
    }

    /// Flushes the rows to disk. Blocks.
    pub(crate) fn flush(&self, db: &Arc<Db>) -> Result<(), StorageError> {
        let family = self.family.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(family) = db.cf_handle(&family) else { return Ok(()) };
        db.flush_cf(&family).map_err(|error| db.failed("cannot flush", error))
    }

    fn switch(&self, family: String) {
        *self.family.lock().unwrap_or_else(PoisonError::into_inner) = family;
    }
}

pub(crate) fn family_name(group: GroupId, generation: u64) -> String {
    format!("group-{group}-{generation}")
}

fn parse_family(name: &str) -> Option<(GroupId, u64)> {
    let (group, generation) = name.strip_prefix("group-")?.split_once('-')?;
    Some((group.parse().ok()?, generation.parse().ok()?))
}

/// Drops the column families that no group's record names. Returns the next generation.
fn drop_unused(db: &Db, path: &Path, recorded: &[(GroupId, u64)]) -> Result<u64, StorageError> {
    let mut wanted: BTreeSet<String> =
        recorded.iter().map(|(group, generation)| family_name(*group, *generation)).collect();
    let mut next_generation = 1;
    let mut unused = Vec::new();
    for name in db_families(path)? {
        let Some((_, generation)) = parse_family(&name) else { continue };
        next_generation = next_generation.max(generation + 1);
        if !wanted.remove(&name) {
            unused.push(name);
        }
    }
    if let Some(missing) = wanted.first() {
        return Err(StorageError::damaged(format!(
            "the state {missing} is missing although the log store names it"
        )));
    }
    for family in unused {
        tracing::info!(family, "dropping a column family that no group uses");
        db.drop_cf(&family).map_err(|error| db.failed("cannot drop a column family", error))?;
    }
    Ok(next_generation)
}

/// The id of the store that the state belongs to; none if it was not marked.
pub(crate) fn read_owner(db: &DB) -> Result<Option<u64>, StorageError> {
    let stored = db
        .get(OWNER_KEY)
        .map_err(|error| StorageError::of_database("cannot read the state", error))?;
    let owner = stored.map(|bytes| pb::StateOwner::decode(bytes.as_slice())).transpose();
    let owner = owner.map_err(|error| {
        StorageError::damaged_with_source("malformed owner of the state", error)
    })?;
    Ok(owner.map(|owner| owner.store_id))
}

/// Marks a fresh store, durably.
fn mark(db: &Db, store_id: u64) -> Result<(), StorageError> {
    let owner = pb::StateOwner { store_id }.encode_to_vec();
    db.put_opt(OWNER_KEY, owner, &without_wal())
        .and_then(|()| db.flush())
        .map_err(|error| db.failed("cannot mark the state store", error))
}

fn db_families(path: &Path) -> Result<Vec<String>, StorageError> {
    let families = DB::list_cf(&rocksdb::Options::default(), path)
        .map_err(|error| StorageError::of_database("cannot list column families", error))?;
    Ok(families.into_iter().filter(|name| name != DEFAULT_FAMILY).collect())
}

fn empty_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(path)
}

#[cfg(test)]
mod tests;
