//! The place where a data directory was made, which a copy of it does not share.
//!
//! A directory of its own, `place/`, is made with the data directory and never replaced. Its inode
//! number and its birth time are in the identity file. Copying, restoring or moving to another file
//! system makes another inode, even if times and owners are preserved; renaming does not. A
//! block-level clone of the whole file system has the same place, so it is not detected.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// The name of that directory.
pub(crate) const DIR: &str = "place";

/// Where a data directory was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    inode: u64,
    /// Birth time in nanoseconds since 1970; none if the file system does not keep it.
    born: Option<u64>,
}

/// The place of a data directory; none if the directory `place/` is missing, for instance in a
/// partial copy.
pub(crate) fn find(data_dir: &Path) -> io::Result<Option<Place>> {
    let metadata = match fs::symlink_metadata(data_dir.join(DIR)) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let born = metadata.created().ok().and_then(nanoseconds);
    Ok(Some(Place { inode: metadata.ino(), born }))
}

/// The place of a data directory. Makes `place/` if it is missing. It is on disk when the identity
/// file is, which is written after it and syncs the directory of both.
pub(crate) fn make(data_dir: &Path) -> io::Result<Place> {
    fs::create_dir_all(data_dir.join(DIR))?;
    find(data_dir)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

fn nanoseconds(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}
