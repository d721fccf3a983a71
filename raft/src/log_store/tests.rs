use futures::stream;
use openraft::{
    RaftLogReader, RaftSnapshotBuilder,
    storage::{IOFlushed, RaftLogStorage, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    type_config::TypeConfigExt,
};

use super::*;
use crate::{
    state::GroupState,
    testing::{GROUP, Stores, entry},
    types::{Entry, TypeConfig, Vote, log_id},
};

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_conformance_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}

#[tokio::test]
async fn entries_and_votes_are_there_after_a_kill() {
    let stores = Stores::open();
    let (mut log, _) = stores.group().await;
    append(&mut log, 0..=3).await;
    log.save_vote(&Vote::new(7, 42)).await.unwrap();
    log.save_committed(Some(log_id(1, 2))).await.unwrap();
    append(&mut log, 4..=4).await;

    let after = stores.killed();
    let (mut log, _) = after.group().await;
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries(0..=4));
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 42)));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 2)));
    assert!(!log.is_blank());
}

#[tokio::test]
async fn entries_can_be_read_before_they_are_on_disk() {
    let stores = Stores::open();
    let (mut log, _) = stores.group().await;
    log.append(entries(1..=100), IOFlushed::noop()).await.unwrap();
    assert_eq!(log.try_get_log_entries(1..101).await.unwrap(), entries(1..=100));
}

#[tokio::test]
async fn a_conflict_replaces_the_tail() {
    let stores = Stores::open();
    let (mut log, _) = stores.group().await;
    append(&mut log, 0..=9).await;
    log.truncate_after(Some(log_id(1, 4))).await.unwrap();
    let replaced = vec![entry(2, 5, "put a 5")];
    append_entries(&mut log, replaced.clone()).await;
    let expected: Vec<Entry> = entries(0..=4).into_iter().chain(replaced).collect();
    assert_eq!(log.try_get_log_entries(0..).await.unwrap(), expected);

    let (mut log, _) = stores.killed().group().await;
    assert_eq!(log.try_get_log_entries(0..).await.unwrap(), expected);
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(2, 5)));
}

#[tokio::test]
async fn purged_entries_are_gone_and_stay_gone() {
    let stores = Stores::open();
    let (mut log, mut state) = stores.group().await;
    append(&mut log, 1..=3000).await;
    // A log is purged only up to what the state has on disk.
    let applied = entries(1..=2500).into_iter().map(|entry| Ok((entry, None)));
    state.apply(stream::iter(applied)).await.unwrap();
    state.get_snapshot_builder().await.build_snapshot().await.unwrap();
    log.purge(log_id(1, 2500)).await.unwrap();
    assert_eq!(log.try_get_log_entries(0..2503).await.unwrap(), entries(2501..=2502));
    // The next synced write comes after the mark of the purge.
    append(&mut log, 3001..=3001).await;

    let after = stores.killed();
    let (mut log, _) = after.group().await;
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 2500)));
    assert_eq!(state.last_log_id, Some(log_id(1, 3001)));
    assert_eq!(log.try_get_log_entries(0..).await.unwrap(), entries(2501..=3001));
}

#[tokio::test]
async fn a_purge_beyond_the_log_leaves_an_empty_log() {
    let stores = Stores::open();
    let (mut log, _) = stores.group().await;
    append(&mut log, 1..=3).await;
    log.purge(log_id(4, 1_000_000_000)).await.unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(log_id(4, 1_000_000_000)));
    append_entries(&mut log, vec![entry(4, 1_000_000_001, "put a 1")]).await;
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_limited_read_stops_at_its_bytes_but_moves_on() {
    let stores = Stores::open();
    let (mut log, _) = stores.group().await;
    let large = format!("put a {}", "v".repeat(3 << 20));
    let all: Vec<Entry> = (1..=6).map(|index| entry(1, index, &large)).collect();
    for entry in &all {
        append_entries(&mut log, vec![entry.clone()]).await;
    }
    // The first entries are on disk only: the cache keeps 4 MiB.
    let some = log.limited_get_log_entries(1, 7).await.unwrap();
    assert!((1..=4).contains(&some.len()), "{} entries", some.len());
    assert_eq!(some[..], all[..some.len()]);
    let stream = log.entries_stream(1..7).await;
    let streamed: Vec<Entry> = futures::TryStreamExt::try_collect(stream).await.unwrap();
    assert_eq!(streamed, all);
}

#[tokio::test]
async fn groups_do_not_see_each_other() {
    let stores = Stores::open();
    let mut first = stores.log.group(2).await.unwrap();
    let mut second = stores.log.group(3).await.unwrap();
    append(&mut first, 1..=3).await;
    append(&mut second, 1..=1).await;
    second.purge(log_id(1, 1)).await.unwrap();
    append(&mut second, 2..=2).await;
    assert_eq!(first.try_get_log_entries(..).await.unwrap(), entries(1..=3));
    let reopened = stores.log.group(GROUP).await.unwrap();
    assert_eq!(reopened.clone().try_get_log_entries(..).await.unwrap(), entries(1..=3));
}

#[tokio::test]
async fn a_log_that_is_opened_again_has_what_its_earlier_life_submitted() {
    let stores = Stores::open();
    let (mut log, _) = stores.group().await;
    let all = entries(0..=30_000);
    log.append(all.clone(), IOFlushed::noop()).await.unwrap();
    log.truncate_after(Some(log_id(1, 29_000))).await.unwrap();
    drop(log);
    let mut log = stores.log.group(GROUP).await.unwrap();
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 29_000)));
    append(&mut log, 29_001..=29_002).await;
    let found = log.try_get_log_entries(28_999..).await.unwrap();
    assert_eq!(found, entries(28_999..=29_002));
}

struct Builder;

impl StoreBuilder<TypeConfig, GroupLog, GroupState, Stores> for Builder {
    async fn build(
        &self,
    ) -> Result<(Stores, GroupLog, GroupState), openraft::StorageError<TypeConfig>> {
        let stores = Stores::open();
        let (log, state) = stores.group().await;
        Ok((stores, log, state))
    }
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(|index| entry(1, index, &format!("put key{index} {index}"))).collect()
}

async fn append(log: &mut GroupLog, range: std::ops::RangeInclusive<u64>) {
    append_entries(log, entries(range)).await;
}

async fn append_entries(log: &mut GroupLog, entries: Vec<Entry>) {
    let (flushed, written) = TypeConfig::oneshot();
    log.append(entries, IOFlushed::signal(flushed)).await.unwrap();
    written.await.unwrap().unwrap();
}
