//! Disks that do not hold what was written to them: the server says so and changes nothing.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
};

use harness::{
    Mesh, Server, cli,
    disk::{contents, files, newest_log, with_extension},
    eventually, eventually_some,
    kv::Kv,
    wait::{LATE, SOON},
};
use tempfile::TempDir;

const WRITES: usize = 300;

#[tokio::test]
async fn one_changed_byte_in_the_middle_of_the_log_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let (mut server, _) = stopped_with_writes(directory.path()).await;
    let log = newest_log(&server.data_dir().join("raft"));
    let bytes = fs::metadata(&log).unwrap().len();
    for at in [bytes / 10, bytes / 2, bytes * 9 / 10] {
        flip(&log, at);
        refused_and_untouched(&server, "raft is damaged").await;
        flip(&log, at);
    }
    has_every_write(&mut server).await;
}

#[tokio::test]
async fn a_write_that_was_never_finished_is_cut_off() {
    let directory = TempDir::new().unwrap();
    let (mut server, _) = stopped_with_writes(directory.path()).await;
    let log = newest_log(&server.data_dir().join("raft"));
    let bytes = fs::metadata(&log).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(&log).unwrap();
    file.write_all_at(b"\x9a\x01\x02\x03\xff\x00\x01 the begin of a write", bytes).unwrap();
    has_every_write(&mut server).await;
}

#[tokio::test]
async fn missing_and_foreign_stores_are_refused_and_nothing_is_touched() {
    let directory = TempDir::new().unwrap();
    let (mut server, _) = stopped_with_writes(directory.path()).await;
    let kept = directory.path().join("kept");
    for file in ["data/CURRENT", "raft/CURRENT", "raft.synced"] {
        let path = server.data_dir().join(file);
        fs::rename(&path, &kept).unwrap();
        refused_and_untouched(&server, "is missing or empty").await;
        fs::rename(&kept, &path).unwrap();
    }
    let elsewhere = TempDir::new().unwrap();
    let (other, _) = stopped_with_writes(elsewhere.path()).await;
    for store in ["data", "raft"] {
        let (ours, theirs) = (server.data_dir().join(store), other.data_dir().join(store));
        fs::rename(&ours, &kept).unwrap();
        fs::rename(&theirs, &ours).unwrap();
        refused_and_untouched(&server, "it belongs to another data directory").await;
        fs::rename(&ours, &theirs).unwrap();
        fs::rename(&kept, &ours).unwrap();
    }
    has_every_write(&mut server).await;
}

#[tokio::test]
async fn damage_that_shows_later_ends_the_server_by_name() {
    let directory = TempDir::new().unwrap();
    let (mut server, _) = stopped_with_writes(directory.path()).await;
    // A stop brings the rows into table files.
    let table = with_extension(&server.data_dir().join("data"), "sst");
    let table = table.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    // The rows come first in the file, far from what is read when it is opened.
    flip(table, 40);
    server.start();
    let mut kv = Kv::at(server.kv());
    let ended = eventually_some("the server ends", LATE, async || {
        let _ = kv.all("key/", false).await;
        server.exit_status()
    });
    assert_eq!(ended.await.code(), Some(7));
    assert!(server.output().lines().any(|line| line.starts_with("REFUSED: ")));
    flip(table, 40);
    has_every_write(&mut server).await;
}

#[tokio::test]
async fn a_damaged_follower_never_harms_the_leader() {
    let mut mesh = Mesh::start(3, 0).await;
    let leader = mesh.disco_leader().await;
    let follower = (leader + 1) % 3;
    assert_eq!(mesh.disco[follower].terminate().await.code(), Some(0));
    let log = newest_log(&mesh.disco[follower].data_dir().join("raft"));
    let bytes = fs::metadata(&log).unwrap().len();
    flip(&log, bytes / 2);
    refused_and_untouched(&mesh.disco[follower], "raft is damaged").await;
    flip(&log, bytes / 2);
    mesh.disco[follower].start();
    eventually("the follower is back", LATE, async || mesh.disco[follower].is_ready().await).await;
    assert!(mesh.disco[leader].is_ready().await);
}

#[tokio::test]
async fn only_the_user_can_read_a_data_directory() {
    let directory = TempDir::new().unwrap();
    let (server, _) = stopped_with_writes(directory.path()).await;
    let open = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o077;
    let data_dir = server.data_dir();
    for path in files(&data_dir).iter().chain([&data_dir]) {
        assert_eq!(open(path), 0, "{}", path.display());
    }
}

/// A stopped server of its own mesh, with acknowledged writes.
async fn stopped_with_writes(directory: &Path) -> (Server, i64) {
    let mut server = Server::new(directory, "single", "all");
    server.start();
    let mut kv = Kv::at(server.kv());
    eventually("a write succeeds", SOON, async || kv.put("first", "1").await.is_ok()).await;
    let mut revision = 0;
    for number in 0..WRITES {
        revision = kv.put(&format!("key/{number:04}"), &"v".repeat(100)).await.unwrap();
    }
    assert_eq!(server.terminate().await.code(), Some(0));
    (server, revision)
}

async fn has_every_write(server: &mut Server) {
    server.start();
    eventually("the server is ready", SOON, async || server.is_ready().await).await;
    let kept = Kv::at(server.kv()).all("key/", false).await.unwrap();
    assert_eq!(kept.len(), WRITES);
    assert_eq!(server.terminate().await.code(), Some(0));
}

async fn refused_and_untouched(server: &Server, reason: &str) {
    let before = contents(&server.data_dir());
    let args = server.args();
    let output = cli::quorate(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(output.code, 7, "{output:#?}");
    let line = output.stdout.lines().find(|line| line.starts_with("REFUSED: "));
    let line = line.unwrap_or_else(|| panic!("{output:#?}"));
    assert!(line.contains(reason) && line.contains("start with an empty one"), "{line}");
    assert_eq!(contents(&server.data_dir()), before, "{reason}");
}

fn flip(file: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}
