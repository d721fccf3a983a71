//! Atomic replacement of small files, and private directories.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

/// Permissions of a data directory.
const PRIVATE: u32 = 0o700;

/// Replaces the content of `file` in `dir` by `bytes`. A reader finds the old content or the new
/// one, never a mixture, also after a crash. `draft` is the name of the temporary file, so that a
/// check of the directory can recognize one that a crash left behind.
///
/// # Errors
///
/// If the disk fails. The file may then have the old content or the new one.
pub fn replace(dir: &Path, draft: &str, file: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = dir.join(draft);
    let mut out = File::create(&draft)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    drop(out);
    fs::rename(&draft, dir.join(file))?;
    File::open(dir)?.sync_all()
}

/// Makes a directory that only its user can enter, and its parents, durably. If a power cut removed
/// the directory, the server would come back as a new server.
pub(crate) fn make_private_dir(path: &Path) -> io::Result<()> {
    let missing = path.ancestors().take_while(|it| !it.as_os_str().is_empty() && !it.exists());
    let missing: Vec<&Path> = missing.collect();
    DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
    for made in missing {
        let above = made.parent().filter(|it| !it.as_os_str().is_empty());
        File::open(above.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// Removes the permissions of other users, whatever the umask was when the directory was made. That
/// they could read what is in it is told.
pub(crate) fn keep_private(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode != PRIVATE {
        let is_empty = fs::read_dir(path)?.next().is_none();
        if mode & !PRIVATE != 0 && !is_empty {
            let (dir, mode) = (path.display(), format!("{mode:o}"));
            tracing::warn!(%dir, mode, "others could use the data directory; it is 0700 from here on");
        }
        fs::set_permissions(path, Permissions::from_mode(PRIVATE))?;
    }
    Ok(())
}
