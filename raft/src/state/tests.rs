use std::collections::BTreeSet;

use futures::stream;
use mesh::DataDir;
use openraft::{
    EntryPayload, RaftSnapshotBuilder,
    storage::{IOFlushed, RaftLogStorage},
    storage::{RaftStateMachine, StorageHelper},
};

use super::*;
use crate::{
    testing::{GROUP, Stores, entry, rows},
    types::{Entry, Membership, Node, log_id},
};

#[tokio::test]
async fn rows_and_applied_index_are_written_together() {
    let stores = Stores::open();
    let (_, mut state) = stores.group().await;
    apply(&mut state, [entry(1, 1, "add a"), entry(1, 2, "put b 1")]).await;
    assert_eq!(stores.rows(), ["a=x", "b=1"]);
    assert_eq!(read_applied(&stores.view()).unwrap(), Some(log_id(1, 2)));
}

#[tokio::test]
async fn entries_that_do_not_follow_the_applied_one_stop_the_replica() {
    let stores = Stores::open();
    let (_, mut state) = stores.group().await;
    state.forbid_gaps();
    apply(&mut state, [entry(1, 0, "put a 0"), entry(1, 1, "put a 1")]).await;
    for next in [entry(1, 3, "put a 3"), entry(1, 1, "put a 1"), entry(0, 2, "put a 2")] {
        let entries = stream::iter([Ok((next, None))]);
        let refused = state.apply(entries).await.unwrap_err().to_string();
        assert!(refused.contains("to be applied after"), "{refused}");
    }
    assert_eq!(stores.rows(), ["a=1"]);
    assert!(stores.state.db.alarm().found().is_some());
}

#[tokio::test]
async fn a_batch_that_fails_leaves_nothing() {
    let stores = Stores::open();
    let (_, mut state) = stores.group().await;
    apply(&mut state, [entry(1, 1, "put a 1")]).await;
    let entries = [entry(1, 2, "put a 2"), entry(1, 3, "unheard-of")];
    let entries = stream::iter(entries.map(|entry| Ok((entry, None))));
    assert!(state.apply(entries).await.is_err());
    assert_eq!(stores.rows(), ["a=1"]);
    assert_eq!(state.applied_state().await.unwrap().0, Some(log_id(1, 1)));
}

#[tokio::test]
async fn a_kill_before_any_flush_replays_the_log_and_applies_nothing_twice() {
    let stores = Stores::open();
    let (mut log, mut state) = stores.group().await;
    let all: Vec<Entry> = (0..=4).map(|index| entry(1, index, "add a")).collect();
    log.append(all.clone(), IOFlushed::noop()).await.unwrap();
    apply(&mut state, all[..2].to_vec()).await;
    state.get_snapshot_builder().await.build_snapshot().await.unwrap();
    apply(&mut state, all[2..].to_vec()).await;
    log.save_committed(Some(log_id(1, 4))).await.unwrap();
    log.save_vote(&openraft::Vote::new(1, 1)).await.unwrap();
    assert_eq!(stores.rows(), ["a=xxxxx"]);

    let after = stores.killed();
    assert_eq!(after.rows(), ["a=xx"], "only the flush survives by itself");
    let (mut log, mut state) = after.group().await;
    let mut helper = StorageHelper::new(&mut log, &mut state).with_id(1);
    helper.get_initial_state().await.unwrap();
    assert_eq!(after.rows(), ["a=xxxxx"]);
}

#[tokio::test]
async fn a_kill_before_the_first_flush_starts_from_nothing() {
    let stores = Stores::open();
    let (mut log, mut state) = stores.group().await;
    let all = vec![entry(1, 0, "add a"), entry(1, 1, "add a")];
    log.append(all.clone(), IOFlushed::noop()).await.unwrap();
    log.save_committed(Some(log_id(1, 1))).await.unwrap();
    log.save_vote(&openraft::Vote::new(1, 1)).await.unwrap();
    apply(&mut state, all).await;

    let after = stores.killed();
    assert!(after.rows().is_empty());
    let (mut log, mut state) = after.group().await;
    StorageHelper::new(&mut log, &mut state).with_id(1).get_initial_state().await.unwrap();
    assert_eq!(after.rows(), ["a=xx"]);
}

#[tokio::test]
async fn what_is_reported_as_a_snapshot_is_on_disk() {
    let stores = Stores::open();
    let (_, mut state) = stores.group().await;
    apply(&mut state, [entry(1, 1, "add a"), entry(1, 2, "add a")]).await;
    let built = state.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(built.meta.last_log_id, Some(log_id(1, 2)));
    apply(&mut state, [entry(1, 3, "add a")]).await;
    let current = state.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(log_id(1, 3)));
    assert_eq!(stores.killed().rows(), ["a=xxx"]);
}

#[tokio::test]
async fn an_installed_snapshot_leaves_no_stale_row_and_survives_a_kill() {
    let (leader, follower) = (Stores::open(), Stores::open());
    let (_, mut source) = leader.group().await;
    let voters = Membership::new(
        vec![[1, 2].into()],
        std::collections::BTreeMap::from([1, 2].map(|id| (id, Node { store_id: id * 10 }))),
    );
    let membership =
        Entry { log_id: log_id(1, 1), payload: EntryPayload::Membership(voters.unwrap()) };
    apply(&mut source, [membership, entry(1, 2, "put kept leader")]).await;
    let (_, mut target) = follower.group().await;
    apply(&mut target, [entry(1, 1, "put stale row"), entry(1, 2, "put kept follower")]).await;
    let old = follower.view();

    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
    target.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert_eq!(follower.rows(), ["kept=leader"]);
    assert_eq!(rows(&old), ["kept=follower", "stale=row"], "a view outlives the switch");
    let (applied, membership) = target.applied_state().await.unwrap();
    assert_eq!((applied, membership), source.applied_state().await.unwrap());
    drop(old);

    let after = follower.killed();
    assert_eq!(after.rows(), ["kept=leader"]);
    let families = db_families(after.state.db.path()).unwrap();
    assert_eq!(families.len(), 1, "{families:?}");
}

#[tokio::test]
async fn an_empty_state_can_be_sent_and_installed() {
    let (leader, follower) = (Stores::open(), Stores::open());
    let (_, mut source) = leader.group().await;
    let (_, mut target) = follower.group().await;
    apply(&mut target, [entry(1, 1, "put stale row")]).await;
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, None);
    target.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
    assert!(follower.rows().is_empty());
}

#[tokio::test]
async fn a_received_file_that_is_not_what_was_announced_is_refused() {
    let stores = Stores::open();
    let (_, mut state) = stores.group().await;
    apply(&mut state, [entry(1, 1, "put a 1")]).await;
    let file = SnapshotFile::export(&stores.state, &stores.view()).unwrap();
    let (offset, data) = file.reader().unwrap().next(1 << 20).unwrap().unwrap();
    let sum = crc32c::crc32c(&data);
    let size = data.len() as u64;
    let open = || Receiver::new(&stores.state, size).unwrap();

    assert!(matches!(open().write(1, &data, sum), Err(snapshot::ReceiveError::Gap { .. })));
    let damaged = open().write(offset, &data, sum ^ 1);
    assert!(matches!(damaged, Err(snapshot::ReceiveError::Checksum(0))));
    assert!(matches!(open().finish(), Err(snapshot::ReceiveError::Size { .. })));
    let mut twice = open();
    twice.write(offset, &data, sum).unwrap();
    assert!(twice.write(size, b"x", crc32c::crc32c(b"x")).is_err());

    let mut receiver = open();
    receiver.write(offset, &data, sum).unwrap();
    let received = receiver.finish().unwrap();
    let wrong = crate::types::SnapshotMeta {
        last_log_id: Some(log_id(1, 9)),
        last_membership: crate::types::StoredMembership::default(),
    };
    assert!(Staged::ingest(&stores.state, GROUP, &received, &wrong).is_err());
    let families = db_families(stores.state.db.path()).unwrap();
    assert_eq!(families.len(), 1, "the refused generation is dropped: {families:?}");
}

#[tokio::test]
async fn leftovers_of_a_crash_are_removed_at_open() {
    let stores = Stores::open();
    stores.group().await;
    stores.state.create_family(GROUP).unwrap();
    fs::write(stores.state.transfer_path(), "half a snapshot").unwrap();
    let after = stores.killed();
    assert_eq!(db_families(after.state.db.path()).unwrap().len(), 1);
    assert_eq!(fs::read_dir(after.dir.path().join("dir/tmp")).unwrap().count(), 0);
}

#[test]
fn lost_state_is_refused() {
    let recorded = [(GROUP, 99)];
    let other = tempfile::tempdir().unwrap();
    let lock = DataDir::open(other.path(), &BTreeSet::new(), None).unwrap().lock();
    let (expect, alarm) = (Expect::MadeOrNot, DamageAlarm::default());
    let opened = StateStore::open(other.path(), 1, lock, expect, &recorded, alarm);
    let error = opened.err().unwrap();
    assert!(error.is_damage() && error.to_string().contains("missing"), "{error}");
}

#[tokio::test]
async fn a_batch_reads_its_own_writes_in_order() {
    use crate::rows::{Read, Write};
    let stores = Stores::open();
    let (_, mut state) = stores.group().await;
    let stored = ["put b 0", "put c 0", "put d 0", "put e 0"];
    let stored = stored.iter().zip(1..).map(|(text, index)| entry(1, index, text));
    apply(&mut state, stored.collect::<Vec<_>>()).await;
    let record = stores.log.record(GROUP).unwrap().unwrap();
    let family = stores.state.db.cf_handle(&family_name(GROUP, record.generation)).unwrap();
    let mut batch = batch::BatchRows::new(&stores.state.db, family);
    batch.put("a".into(), "1".into());
    batch.put("c".into(), "1".into());
    batch.delete("d".into());
    batch.put("f".into(), "1".into());
    assert_eq!(rows(&batch), ["a=1", "b=0", "c=1", "e=0", "f=1"]);
    assert_eq!(batch.get(b"d").unwrap(), None);
    assert_eq!(batch.get(b"b").unwrap(), Some(b"0".to_vec()));
    let mut reverse = Vec::new();
    batch
        .scan(b"b", Some(b"f"), true, &mut |key, _| {
            reverse.push(String::from_utf8_lossy(key).into_owned());
            true
        })
        .unwrap();
    assert_eq!(reverse, ["e", "c", "b"]);
    let mut first = None;
    batch
        .scan(b"b", None, false, &mut |key, _| {
            first = Some(key.to_vec());
            false
        })
        .unwrap();
    assert_eq!(first, Some(b"b".to_vec()));
}

async fn apply(state: &mut GroupState, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<_> = entries.into_iter().map(|entry| Ok((entry, None))).collect();
    state.apply(stream::iter(entries)).await.unwrap();
}
