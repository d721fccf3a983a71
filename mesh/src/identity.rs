//! The data directory: the identity of this server, and the lock that keeps other processes out.
//!
//! ```text
//! DIR/identity    node id, store id, mesh id, formation, boot epoch, services, secret, place
//! DIR/place/      stands for where the directory was made
//! DIR/book.json   address hints, best effort
//! DIR/raft/       log store        DIR/data/   state       DIR/tmp/   Raft snapshots in transfer
//! ```
//!
//! Opening checks first and creates last, so a refusal changes nothing. The identity file is
//! replaced atomically and synced, so it is always either the old or the new one. A server whose
//! directory is empty is a new server with a new id; it never gets an old id again.

mod record;

use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::record::{FORMAT, Record, random_id, read_record, save};
pub(crate) use self::record::{FormationMemberRecord, FormationRecord};
use crate::{
    file,
    ids::{MeshId, NodeId},
    place,
    starts::Start,
};

/// By how much reclaiming a directory raises its boot epoch above that of its copies.
const RECLAIM_AHEAD: u64 = 1000;

/// The identity of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub node_id: NodeId,
    pub store_id: u64,
    pub mesh_id: Option<MeshId>,
    /// Counts the starts of this server.
    pub boot_epoch: u64,
    /// Random number of this start. It distinguishes the start from that of a copy of the
    /// directory.
    pub start: u64,
    pub services: BTreeSet<String>,
    /// Whether the data directory was made by this start.
    pub first_start: bool,
    /// Whether the data directory is not where it was made. Then it may be a copy.
    pub moved: bool,
}

/// An open data directory. It stays locked while this value or a database in it exists.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    record: Record,
    expected_mesh: Option<MeshId>,
    first_start: bool,
    start: u64,
    moved: bool,
    lock: Arc<DirLock>,
}

/// A data directory that this server may open: see [`DataDir::claim`].
#[derive(Debug)]
pub struct ClaimedDir {
    path: PathBuf,
    services: BTreeSet<String>,
    expected_mesh: Option<MeshId>,
    /// None if there is no such directory yet.
    lock: Option<DirLock>,
    found: Option<Record>,
}

/// Why a data directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("data directory {} is used by another process", .0.display())]
    Locked(PathBuf),
    #[error(
        "data directory {} belongs to a server with services {ours}, not {wanted}; \
         give it its services back or choose another directory", .path.display()
    )]
    OtherServices { path: PathBuf, ours: String, wanted: String },
    #[error("data directory {} belongs to mesh {ours}, not {wanted}", .path.display())]
    OtherMesh { path: PathBuf, ours: MeshId, wanted: MeshId },
    #[error(
        "data directory {} has format {found}, this version reads format {FORMAT}; \
         use the version that wrote it or a newer one", .path.display()
    )]
    NewerFormat { path: PathBuf, found: u32 },
    #[error(
        "data directory {} has format {found}, of a version before 0.1.0, and this one reads format \
         {FORMAT}; use the version that wrote it, or begin with another directory", .path.display()
    )]
    OlderFormat { path: PathBuf, found: u32 },
    #[error(
        "data directory {} was overtaken: a copy of it was started too, or it is one. Keep one of the \
         copies and remove the others; then, on the one that is kept and with its server stopped: \
         quorate reclaim --data-dir {}", .0.display(), .0.display()
    )]
    Overtaken(PathBuf),
    #[error("identity file in {} is damaged: {reason}", .path.display())]
    Damaged { path: PathBuf, reason: &'static str },
    #[error(
        "{} is not empty and has no identity file: it is no data directory, or part of one",
        .0.display()
    )]
    NotADataDir(PathBuf),
    #[error("cannot use data directory {}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// An exclusive lock on a directory, held by its open handle.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "the open handle is the lock")] File);

impl Identity {
    /// This start.
    pub fn start(&self) -> Start {
        Start { epoch: self.boot_epoch, number: self.start }
    }
}

impl DataDir {
    /// Opens the directory, or makes it if there is none or it is empty, and counts the start.
    ///
    /// # Errors
    ///
    /// As [`DataDir::claim`] and [`ClaimedDir::open`].
    pub fn open(
        path: &Path,
        services: &BTreeSet<String>,
        expected_mesh: Option<&MeshId>,
    ) -> Result<Self, DataDirError> {
        Self::claim(path, services, expected_mesh)?.open()
    }

    /// Checks whether a server may use the directory, and locks it if it exists. Creates and
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// Refuses a directory that is in use, damaged, of a newer format, or that belongs to other
    /// services or to another mesh than `expected_mesh`.
    pub fn claim(
        path: &Path,
        services: &BTreeSet<String>,
        expected_mesh: Option<&MeshId>,
    ) -> Result<ClaimedDir, DataDirError> {
        let in_dir = |source| DataDirError::Io { path: path.to_owned(), source };
        let (lock, found) = if path.try_exists().map_err(in_dir)? {
            let lock = DirLock::take(path)?;
            (Some(lock), read_record(path)?)
        } else {
            (None, None)
        };
        if let Some(record) = &found {
            check(path, record, services, expected_mesh)?;
        }
        Ok(ClaimedDir {
            path: path.to_owned(),
            services: services.clone(),
            expected_mesh: expected_mesh.cloned(),
            lock,
            found,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn identity(&self) -> Identity {
        let Record { node_id, store_id, mesh_id, boot_epoch, services, .. } = self.record.clone();
        Identity {
            node_id,
            store_id,
            mesh_id: mesh_id.and_then(|text| text.parse().ok()),
            boot_epoch,
            start: self.start,
            services,
            first_start: self.first_start,
            moved: self.moved,
        }
    }

    /// The only mesh that this server may belong to, if one is configured.
    pub(crate) fn expected_mesh(&self) -> Option<&MeshId> {
        self.expected_mesh.as_ref()
    }

    /// The lock that keeps other processes out of the directory. Databases in it hold it too.
    pub fn lock(&self) -> Arc<DirLock> {
        self.lock.clone()
    }

    /// Whether the stores were made in the directory.
    pub fn store_made(&self) -> bool {
        self.record.store_made
    }

    pub(crate) fn formation(&self) -> Option<&FormationRecord> {
        self.record.formation.as_ref()
    }

    /// Records, durably, that the stores were made.
    pub fn set_store_made(&mut self) -> io::Result<()> {
        self.update(|record| record.store_made = true)
    }

    /// Records, durably, that another start runs, or ran, from a copy of this directory.
    pub(crate) fn set_overtaken(&mut self) -> io::Result<()> {
        self.update(|record| record.overtaken = true)
    }

    pub(crate) fn terms_forgotten(&self) -> bool {
        self.record.terms_forgotten
    }

    /// Records, durably, that every group has raised its term beyond the forgotten ones.
    pub(crate) fn set_terms_raised(&mut self) -> io::Result<()> {
        self.update(|record| record.terms_forgotten = false)
    }

    /// Records, durably, that the directory belongs where it is now.
    pub(crate) fn set_place(&mut self) -> io::Result<()> {
        let place = place::make(&self.path)?;
        self.update(|record| record.place = Some(place))?;
        self.moved = false;
        Ok(())
    }

    pub(crate) fn secret(&self) -> &str {
        &self.record.secret
    }

    /// Makes this directory the only one of its copies that may be used. It may start here again;
    /// its starts are later than the counted starts of any copy, and it votes in no term that
    /// another copy may have voted in.
    ///
    /// # Errors
    ///
    /// As [`DataDir::claim`]; and if there is no such directory.
    pub fn reclaim(path: &Path) -> Result<NodeId, DataDirError> {
        let in_dir = |source| DataDirError::Io { path: path.to_owned(), source };
        let lock = DirLock::take(path)?;
        let Some(mut record) = read_record(path)? else {
            return Err(DataDirError::NotADataDir(path.to_owned()));
        };
        record.place = Some(place::make(path).map_err(in_dir)?);
        record.overtaken = false;
        record.terms_forgotten = true;
        record.boot_epoch = record.boot_epoch.saturating_add(RECLAIM_AHEAD);
        save(path, &record).map_err(in_dir)?;
        drop(lock);
        Ok(record.node_id)
    }

    /// Records the mesh, durably.
    pub(crate) fn set_mesh(&mut self, mesh_id: &MeshId) -> io::Result<()> {
        self.update(|record| record.mesh_id = Some(mesh_id.to_string()))
    }

    /// Records the formation and its mesh, durably and in one step.
    pub(crate) fn set_formation(&mut self, formation: FormationRecord) -> io::Result<()> {
        self.update(|record| {
            record.mesh_id = Some(formation.mesh_id.clone());
            record.formation = Some(formation);
        })
    }

    fn update(&mut self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let old = self.record.clone();
        change(&mut self.record);
        if self.record == old {
            return Ok(());
        }
        self.save().inspect_err(|_| self.record = old)
    }

    fn save(&self) -> io::Result<()> {
        save(&self.path, &self.record)
    }
}

impl ClaimedDir {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the stores in the directory and whether they were made; none if it is new.
    pub fn stores(&self) -> Option<(u64, bool)> {
        self.found.as_ref().map(|record| (record.store_id, record.store_made))
    }

    /// Opens the directory, or makes it, and counts the start.
    ///
    /// # Errors
    ///
    /// If the directory cannot be written, or another process has made it since it was claimed.
    pub fn open(self) -> Result<DataDir, DataDirError> {
        let Self { path, services, expected_mesh, lock, found } = self;
        let in_dir = |source| DataDirError::Io { path: path.clone(), source };
        let lock = match lock {
            Some(lock) => lock,
            None => {
                file::make_private_dir(&path).map_err(in_dir)?;
                let lock = DirLock::take(&path)?;
                if read_record(&path)?.is_some() {
                    return Err(DataDirError::Locked(path));
                }
                lock
            }
        };
        file::keep_private(&path).map_err(in_dir)?;
        let first_start = found.is_none();
        let mut record = match found {
            Some(record) => record,
            None => Record::new(services, place::make(&path).map_err(in_dir)?),
        };
        let moved = place::find(&path).map_err(in_dir)? != record.place;
        record.boot_epoch = record.boot_epoch.saturating_add(1);
        let (start, lock) = (random_id(), Arc::new(lock));
        let dir =
            DataDir { path: path.clone(), record, expected_mesh, first_start, start, moved, lock };
        dir.save().map_err(in_dir)?;
        Ok(dir)
    }
}

impl DirLock {
    fn take(path: &Path) -> Result<Self, DataDirError> {
        let in_dir = |source| DataDirError::Io { path: path.to_owned(), source };
        let handle = File::open(path).map_err(in_dir)?;
        match handle.try_lock() {
            Ok(()) => Ok(Self(handle)),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(in_dir(source)),
        }
    }
}

fn check(
    path: &Path,
    record: &Record,
    services: &BTreeSet<String>,
    expected_mesh: Option<&MeshId>,
) -> Result<(), DataDirError> {
    if record.overtaken {
        return Err(DataDirError::Overtaken(path.to_owned()));
    }
    if record.services != *services {
        return Err(DataDirError::OtherServices {
            path: path.to_owned(),
            ours: list(&record.services),
            wanted: list(services),
        });
    }
    let ours = record.mesh_id.as_ref().and_then(|text| text.parse::<MeshId>().ok());
    if let (Some(ours), Some(wanted)) = (ours, expected_mesh)
        && ours != *wanted
    {
        return Err(DataDirError::OtherMesh {
            path: path.to_owned(),
            ours,
            wanted: wanted.clone(),
        });
    }
    Ok(())
}

fn list(services: &BTreeSet<String>) -> String {
    services.iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
