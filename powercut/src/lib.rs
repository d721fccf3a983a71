//! Power cuts for tests: what is left of a directory if only synced data survives.
//!
//! Killing a process loses nothing that it wrote, because the operating system keeps it. So a test
//! that only kills would pass without any sync. Here a test runs its first half in a separate
//! process, into which a small recorder is preloaded. The recorder keeps the bytes of each file and
//! the names in each directory as of their last sync. From these the disk is made that the second
//! half reads.
//!
//! ```ignore
//! #[test]
//! fn a_note_survives_a_power_cut() {
//!     let image = powercut::cut(|dir| note_something(dir));
//!     assert!(is_noted(image.path()));
//! }
//! ```
//!
//! [`cut`] must be called once, from the test itself, on a closure written there: the separate
//! process runs the same test, which it finds by the closure's name, and ends in the middle of it.

use std::{
    any::type_name_of_val,
    env, fs,
    io::Write as _,
    os::unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, abort},
};

use tempfile::TempDir;

const ROOT: &str = "POWERCUT_ROOT";
const DURABLE: &str = "POWERCUT_DURABLE";
/// The signal that ends the first half: `abort` runs no destructors or exit handlers.
const ABORTED: i32 = 6;

/// Runs `before` with an empty directory until the power is cut at its end, and returns what is
/// left of the directory.
///
/// # Panics
///
/// If `before` does not come to its end, or the recorder cannot be made.
#[must_use]
pub fn cut(before: impl FnOnce(&Path)) -> TempDir {
    let test = test_of(&before);
    cut_in(&test, before)
}

/// As [`cut`], for a helper that passes the name of the test: see [`test_of`].
///
/// # Panics
///
/// As [`cut`].
#[must_use]
pub fn cut_in(test: &str, before: impl FnOnce(&Path)) -> TempDir {
    if let Some(root) = env::var_os(ROOT) {
        before(Path::new(&root));
        abort();
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    let work_path = work.path().canonicalize().expect("the path of a temporary directory");
    let (root, durable) = (work_path.join("root"), work_path.join("durable"));
    for dir in [&root, &durable] {
        fs::create_dir(dir).expect("a directory in the temporary one");
    }
    let executable = env::current_exe().expect("the path of this test");
    let output = Command::new(executable)
        .args(["--exact", test, "--nocapture"])
        .env("LD_PRELOAD", recorder(&work_path))
        .env(ROOT, &root)
        .env(DURABLE, &durable)
        .output()
        .expect("the test as a process");
    assert_eq!(
        output.status.signal(),
        Some(ABORTED),
        "{test} did not come to the power cut: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let image = tempfile::tempdir().expect("a temporary directory");
    let inode = fs::metadata(&root).expect("the directory of the test").ino();
    restore(&durable, inode, image.path());
    image
}

/// The content of a file that a power cut would leave now. The first half of a test can use it to
/// wait for a sync of another thread.
#[must_use]
pub fn durable_now(file: &Path) -> Option<Vec<u8>> {
    let durable = PathBuf::from(env::var_os(DURABLE)?);
    let inode = fs::metadata(file).ok()?.ino();
    fs::read(durable.join(format!("f{inode}"))).ok()
}

/// The name of the test in which a closure is written, as the test harness knows it.
///
/// # Panics
///
/// If the closure is not in a module.
#[must_use]
pub fn test_of(closure: &impl Sized) -> String {
    let path = type_name_of_val(closure);
    let (_, inside) = path.split_once("::").expect("a closure in a module of a test");
    inside.replace("::{{closure}}", "")
}

fn recorder(work: &Path) -> PathBuf {
    let (source, library) = (work.join("recorder.c"), work.join("recorder.so"));
    let mut file = fs::File::create(&source).expect("a file in the temporary directory");
    file.write_all(include_bytes!("recorder.c")).expect("the recorder's source");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .expect("the C compiler, which builds RocksDB too");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    library
}

/// Writes the durable content of a directory.
fn restore(durable: &Path, inode: u64, into: &Path) {
    // A directory that was never synced is empty.
    let Ok(names) = fs::read_to_string(durable.join(format!("d{inode}"))) else { return };
    for line in names.lines() {
        let (item, name) = line.split_once(' ').expect("an item and its name");
        let (kind, inode) = item.split_at(1);
        let path = into.join(name);
        if kind == "d" {
            fs::create_dir(&path).expect("a directory of the image");
            restore(durable, inode.parse().expect("an inode"), &path);
        } else {
            // A file that was never synced is empty.
            let bytes = fs::read(durable.join(item)).unwrap_or_default();
            fs::write(&path, bytes).expect("a file of the image");
        }
    }
}

#[cfg(test)]
mod tests;
