//! What a server has acknowledged is on disk after a power cut: one test for each sync.
//!
//! Each test fails if the sync that it is about is removed: `powercut` loses everything that was
//! not synced.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::stream;
use openraft::{
    RaftLogReader, RaftSnapshotBuilder,
    storage::{IOFlushed, RaftLogStorage, RaftStateMachine},
    type_config::TypeConfigExt,
};
use tempfile::TempDir;

use crate::{
    log_store::{GroupLog, synced},
    state::GroupState,
    testing::{GROUP, Stores, entry},
    types::{Entry, TypeConfig, Vote, log_id},
};

/// Generous, since it only ends a test that hangs.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn the_stores_of_a_first_start_are_whole() {
    let image = powercut::cut(|dir| {
        let stores = Stores::open_in(dir);
        std::mem::forget(stores);
    });
    reopened(image, |stores| async move {
        assert_eq!(stores.log.records().unwrap(), []);
    });
}

#[test]
fn appended_entries_are_there() {
    let image = power_cut_after(|stores| async move {
        let (mut log, _state) = stores.group().await;
        append(&mut log, entries(0..=3)).await;
    });
    reopened(image, |stores| async move {
        let (mut log, _) = stores.group().await;
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries(0..=3));
    });
}

#[test]
fn a_vote_is_there() {
    let image = power_cut_after(|stores| async move {
        let (mut log, _state) = stores.group().await;
        log.save_vote(&Vote::new(7, 42)).await.unwrap();
    });
    reopened(image, |stores| async move {
        let (mut log, _) = stores.group().await;
        assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 42)));
    });
}

#[test]
fn the_record_of_a_group_is_there() {
    let image = power_cut_after(|stores| async move {
        stores.group().await;
    });
    reopened(image, |stores| async move {
        assert_eq!(stores.log.records().unwrap().len(), 1);
    });
}

#[test]
fn a_purge_that_dropped_files_left_its_mark() {
    let image = power_cut_after(|stores| async move {
        let (mut log, mut state) = stores.group().await;
        let db = &stores.log.db;
        // This flush keeps the group's record out of the next table file, so that file holds
        // entries only. The compaction moves it below level 0, where files overlap. The purge then
        // deletes it whole.
        db.flush().unwrap();
        append(&mut log, entries(0..=300)).await;
        apply(&mut state, entries(0..=300)).await;
        state.get_snapshot_builder().await.build_snapshot().await.unwrap();
        db.flush().unwrap();
        db.compact_range(Some(GROUP.to_be_bytes()), Some((GROUP + 1).to_be_bytes()));
        append(&mut log, entries(301..=302)).await;
        let before = db.live_files().unwrap().len();
        log.purge(log_id(1, 300)).await.unwrap();
        until(|| db.live_files().unwrap().len() < before);
    });
    reopened(image, |stores| async move {
        let (mut log, _) = stores.group().await;
        let state = log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(log_id(1, 300)));
        assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries(301..=302));
    });
}

#[test]
fn a_built_snapshot_is_on_disk_before_it_is_reported() {
    let image = power_cut_after(|stores| async move {
        let (_, mut state) = stores.group().await;
        apply(&mut state, entries(0..=2)).await;
        let built = state.get_snapshot_builder().await.build_snapshot().await.unwrap();
        assert_eq!(built.meta.last_log_id, Some(log_id(1, 2)));
    });
    reopened(image, |stores| async move {
        assert_eq!(stores.rows(), ["key0=0", "key1=1", "key2=2"]);
    });
}

/// So that a server which was stopped in order has nothing to replay at its next start.
#[test]
fn a_stopped_group_is_on_disk() {
    let image = power_cut_after(|stores| async move {
        let (_, mut state, published) = stores.published_group().await;
        apply(&mut state, entries(0..=2)).await;
        published.flush(&stores.state.db).unwrap();
    });
    reopened(image, |stores| async move {
        assert_eq!(stores.rows(), ["key0=0", "key1=1", "key2=2"]);
    });
}

#[test]
fn a_current_snapshot_is_on_disk_before_it_is_reported() {
    let image = power_cut_after(|stores| async move {
        let (_, mut state) = stores.group().await;
        apply(&mut state, entries(0..=0)).await;
        state.get_snapshot_builder().await.build_snapshot().await.unwrap();
        apply(&mut state, entries(1..=2)).await;
        let current = state.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!(current.meta.last_log_id, Some(log_id(1, 2)));
    });
    reopened(image, |stores| async move {
        assert_eq!(stores.rows(), ["key0=0", "key1=1", "key2=2"]);
    });
}

#[test]
fn an_installed_snapshot_is_there_whole() {
    let image = powercut::cut(|dir| {
        run(async {
            let (leader, follower) = (Stores::open(), Stores::open_in(dir));
            let (_, mut source) = leader.group().await;
            apply(&mut source, entries(0..=50)).await;
            let (_, mut target) = follower.group().await;
            apply(&mut target, vec![entry(1, 0, "put stale row")]).await;
            target.get_snapshot_builder().await.build_snapshot().await.unwrap();
            let built = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
            let staged = received(&leader, &follower, &built.meta);
            target.install_snapshot(&built.meta, staged).await.unwrap();
            std::mem::forget((leader, follower, target));
        });
    });
    reopened(image, |stores| async move {
        assert_eq!(stores.rows().len(), 51, "{:?}", stores.rows());
        let (_, mut state) = stores.group().await;
        assert_eq!(state.applied_state().await.unwrap().0, Some(log_id(1, 50)));
    });
}

#[test]
fn the_note_of_the_last_sync_keeps_up() {
    let image = powercut::cut(|dir| {
        run(async {
            let stores = Stores::open_in(dir);
            let (mut log, _) = stores.group().await;
            append(&mut log, entries(0..=9)).await;
            let (file, exact) = (dir.join("dir").join(synced::FILE), stores.log.db.clone());
            let written = std::fs::read(&file).unwrap();
            until(|| powercut::durable_now(&file).as_ref() == Some(&written));
            assert!(exact.latest_sequence_number() > 10);
            std::mem::forget((stores, log, exact));
        });
    });
    let noted = synced::read(&image.path().join("dir")).unwrap();
    // The id of the store, the record of the group and ten entries.
    assert_eq!(noted.sequence, 12);
}

/// Sends a table file from `source` to `target`, and returns the received Raft snapshot.
fn received(
    source: &Stores,
    target: &Stores,
    meta: &crate::types::SnapshotMeta,
) -> crate::state::SnapshotData {
    use crate::state::{Receiver, SnapshotData, SnapshotFile, Staged};
    let file = SnapshotFile::export(&source.state, &source.view()).unwrap();
    let (offset, data) = file.reader().unwrap().next(1 << 20).unwrap().unwrap();
    let mut receiver = Receiver::new(&target.state, data.len() as u64).unwrap();
    receiver.write(offset, &data, crc32c::crc32c(&data)).unwrap();
    let file = receiver.finish().unwrap();
    SnapshotData::Staged(Staged::ingest(&target.state, GROUP, &file, meta).unwrap())
}

/// Runs the first half of a test on stores that are never closed.
fn power_cut_after<F: Future<Output = ()>>(first_half: impl FnOnce(Arc<Stores>) -> F) -> TempDir {
    let test = powercut::test_of(&first_half);
    powercut::cut_in(&test, move |dir| {
        let stores = Arc::new(Stores::open_in(dir));
        run(first_half(stores.clone()));
        // Closing the stores would write what is not on disk yet.
        std::mem::forget(stores);
    })
}

/// Opens what the power cut left, as a starting server does.
fn reopened<F: Future<Output = ()>>(image: TempDir, second_half: impl FnOnce(Stores) -> F) {
    run(second_half(Stores::open_at(image)));
}

fn run(half: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(half);
}

fn until(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "waited in vain");
        std::thread::yield_now();
    }
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(|index| entry(1, index, &format!("put key{index} {index}"))).collect()
}

async fn append(log: &mut GroupLog, entries: Vec<Entry>) {
    for entry in entries {
        let (flushed, written) = TypeConfig::oneshot();
        log.append([entry], IOFlushed::signal(flushed)).await.unwrap();
        written.await.unwrap().unwrap();
    }
}

async fn apply(state: &mut GroupState, entries: Vec<Entry>) {
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    state.apply(stream::iter(entries)).await.unwrap();
}
