//! Replacing a small file as a whole.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// Writes `bytes` under the name `file` in `dir`: a reader finds the old content or the new one,
/// never a mixture, also after a crash. The draft has a name of its own, so that a directory can
/// tell it from what it knows.
///
/// # Errors
///
/// Those of the disk. The file may then have the old content or the new one.
pub fn replace(dir: &Path, draft: &str, file: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = dir.join(draft);
    let mut out = File::create(&draft)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    drop(out);
    fs::rename(&draft, dir.join(file))?;
    File::open(dir)?.sync_all()
}
