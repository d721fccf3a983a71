//! Raft snapshots as files: exported from a view, received from a peer, ingested into a new
//! generation.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use mesh::GroupId;
use rocksdb::{IngestExternalFileOptions, SstFileWriter};

use super::{
    StateStore, family_name,
    system_rows::{read_applied, read_membership},
};
use crate::{db::state_options, read_view::ReadView, rows::StorageError, types::SnapshotMeta};

/// The rows of a Raft snapshot on their way through openraft.
pub(crate) enum SnapshotData {
    /// A view of this server's own state. It is exported when it is sent.
    View(ReadView),
    /// A received one, checked and ingested as a generation that no group uses yet.
    Staged(Staged),
}

/// A table file in the directory for transfers. Dropping the value removes the file.
///
/// A state without any row is an empty file, since RocksDB cannot make an empty table.
pub(crate) struct SnapshotFile {
    path: PathBuf,
    size: u64,
}

/// A generation that no group's record names. Dropping the value drops the generation, unless it is
/// kept.
pub(crate) struct Staged {
    store: StateStore,
    group: GroupId,
    generation: u64,
    kept: bool,
}

/// Writes a file that is being received, in order.
pub(crate) struct Receiver {
    file: SnapshotFile,
    out: File,
    announced: u64,
}

/// A received Raft snapshot is not what its sender said.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("chunk at {found} where {expected} was expected")]
    Gap { expected: u64, found: u64 },
    #[error("checksum of the chunk at {0} does not match")]
    Checksum(u64),
    #[error("size {found}, announced {announced}")]
    Size { announced: u64, found: u64 },
    #[error("cannot write the received snapshot")]
    Io(#[from] io::Error),
}

impl SnapshotFile {
    /// Copies everything in a view into a table file. Blocks.
    pub(crate) fn export(store: &StateStore, view: &ReadView) -> Result<Self, StorageError> {
        let context = |error| StorageError::with_source("cannot export a Raft snapshot", error);
        let mut file = Self { path: store.transfer_path(), size: 0 };
        let options = state_options();
        let mut writer = SstFileWriter::create(&options);
        writer.open(&file.path).map_err(context)?;
        let mut rows: u64 = 0;
        view.visit_all(|key, value| {
            rows += 1;
            writer.put(key, value).map_err(context)
        })?;
        if rows == 0 {
            drop(writer);
            File::create(&file.path).map_err(|error| {
                StorageError::with_source("cannot export a Raft snapshot", error)
            })?;
            return Ok(file);
        }
        writer.finish().map_err(context)?;
        file.size = writer.file_size();
        Ok(file)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn reader(&self) -> io::Result<Chunks> {
        Ok(Chunks { file: File::open(&self.path)?, offset: 0 })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        // An ingested file is gone already. If removing fails, the next start empties the
        // directory.
        let _ = fs::remove_file(&self.path);
    }
}

/// Reads a table file chunk by chunk.
pub(crate) struct Chunks {
    file: File,
    offset: u64,
}

impl Chunks {
    /// The next chunk and its offset; None at the end. Blocks.
    pub(crate) fn next(&mut self, size: usize) -> io::Result<Option<(u64, Vec<u8>)>> {
        let mut bytes = Vec::with_capacity(size);
        let read = io::Read::by_ref(&mut self.file).take(size as u64).read_to_end(&mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        let offset = self.offset;
        self.offset += read as u64;
        Ok(Some((offset, bytes)))
    }
}

impl Receiver {
    pub(crate) fn new(store: &StateStore, announced: u64) -> Result<Self, ReceiveError> {
        let path = store.transfer_path();
        let out = File::create(&path)?;
        Ok(Self { file: SnapshotFile { path, size: 0 }, out, announced })
    }

    /// Writes the next chunk. Blocks.
    pub(crate) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        checksum: u32,
    ) -> Result<(), ReceiveError> {
        let expected = self.file.size;
        if offset != expected {
            return Err(ReceiveError::Gap { expected, found: offset });
        }
        if crc32c::crc32c(data) != checksum {
            return Err(ReceiveError::Checksum(offset));
        }
        let found = expected + data.len() as u64;
        if found > self.announced {
            return Err(ReceiveError::Size { announced: self.announced, found });
        }
        self.out.write_all(data)?;
        self.file.size = found;
        Ok(())
    }

    /// Checks the size. RocksDB syncs the file when it ingests it.
    pub(crate) fn finish(self) -> Result<SnapshotFile, ReceiveError> {
        let Self { file, announced, .. } = self;
        if file.size != announced {
            return Err(ReceiveError::Size { announced, found: file.size });
        }
        Ok(file)
    }
}

impl Staged {
    /// Ingests a file as a new generation and checks that it agrees with `meta`. Blocks.
    pub(crate) fn ingest(
        store: &StateStore,
        group: GroupId,
        file: &SnapshotFile,
        meta: &SnapshotMeta,
    ) -> Result<Self, StorageError> {
        let generation = store.create_family(group)?;
        let staged = Self { store: store.clone(), group, generation, kept: false };
        if file.size() > 0 {
            let family = store
                .db
                .cf_handle(&family_name(group, generation))
                .ok_or_else(|| StorageError::new("a fresh column family is gone"))?;
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            store
                .db
                .ingest_external_file_cf_opts(&family, &options, vec![file.path()])
                .map_err(|error| StorageError::with_source("cannot ingest", error))?;
        }
        let view = store
            .view(group, generation)
            .ok_or_else(|| StorageError::new("a fresh column family is gone"))?;
        // Reads every row once. Damage by the sender's disk is then reported to the sender; found
        // later, it would count as damage of this disk.
        view.verify()?;
        let held = SnapshotMeta {
            last_log_id: read_applied(&view)?,
            last_membership: read_membership(&view)?,
        };
        if held != *meta {
            return Err(StorageError::new("a Raft snapshot's rows differ from its header"));
        }
        Ok(staged)
    }

    /// Keeps the generation, which a group's record is to name, and returns its number.
    pub(super) fn keep(mut self) -> u64 {
        self.kept = true;
        self.generation
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            self.store.drop_family(self.group, self.generation);
        }
    }
}
