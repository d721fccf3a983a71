//! What lies in a directory of a server, and copies of it.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Copies a directory and what is in it to one that is made if need be. A server may run on it: the
/// copy is made anew if a file came or went meanwhile, since RocksDB could not open such a mixture.
pub fn copy(from: &Path, to: &Path) {
    loop {
        let before = files(from);
        match copy_once(from, to) {
            Ok(()) if files(from) == before => return,
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => panic!("{} cannot be copied: {error}", from.display()),
        }
        fs::remove_dir_all(to).expect("the test's directory is writable");
    }
}

fn copy_once(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for path in entries(from) {
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy_once(&path, &target)?;
        } else {
            fs::copy(path, target)?;
        }
    }
    Ok(())
}

/// Every file below a directory, in order.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in entries(directory) {
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// What every file below a directory holds.
pub fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| {
        let held = fs::read(&path).expect("a file can be read");
        (path, held)
    };
    files(directory).into_iter().map(read).collect()
}

/// The files below a directory whose names end so.
pub fn with_extension(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let ends_so = |path: &PathBuf| path.extension().is_some_and(|it| it == extension);
    files(directory).into_iter().filter(ends_so).collect()
}

/// The write-ahead log that a store wrote last.
pub fn newest_log(store: &Path) -> PathBuf {
    with_extension(store, "log").into_iter().max().expect("a store has a log")
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let listed = fs::read_dir(directory).expect("a directory can be listed");
    listed.map(|entry| entry.expect("a directory can be listed").path())
}
