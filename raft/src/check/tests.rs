//! Damages every file of a stopped server in every way. The server then refuses to start, or has
//! everything that it acknowledged.

use std::{collections::BTreeMap, fs, os::unix::fs::FileExt as _, path::Path};

use futures::stream;
use harness::disk::{self, contents, files, newest_log};
use openraft::{
    RaftLogReader, RaftSnapshotBuilder,
    storage::{IOFlushed, RaftLogStorage, RaftStateMachine},
    type_config::TypeConfigExt,
};
use tempfile::TempDir;

use super::*;
use crate::{
    testing::{Dir, GROUP, Stores, entry, store_id, try_open_stores},
    types::{Entry, TypeConfig, Vote, log_id},
};

/// What was acknowledged: entries up to here, and the vote.
const LAST: u64 = 260;
const PURGED: u64 = 40;
const TERM: u64 = 5;

#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip(u64),
    Cut(u64),
    Zero(u64),
    Remove,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_is_refused_or_harmless() {
    let (base, served) = (stopped_server().await, Counts::default());
    harm_every_file(&base, served, |length| {
        let stride = (length / 40).max(7);
        let ends = (0..length.min(24)).chain(length.saturating_sub(24)..length);
        ends.step_by(3).chain((0..length).step_by(to_usize(stride))).map(Harm::Flip).collect()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_zeroed_or_removed_is_refused_or_harmless() {
    let (base, served) = (stopped_server().await, Counts::default());
    harm_every_file(&base, served, |length| {
        let mut harms = vec![Harm::Remove];
        for part in 0..8 {
            harms.push(Harm::Cut(length * part / 8));
            harms.push(Harm::Zero(length * part / 8 / 4096 * 4096));
        }
        harms.extend([1, 2, 5, 8, 40].map(|back| Harm::Cut(length.saturating_sub(back))));
        harms
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_last_write_is_cut_off() {
    let base = stopped_server().await;
    let dir = copy(&base);
    let log = newest_log(&dir.path().join("dir/raft"));
    let whole = fs::metadata(&log).unwrap().len();
    for tail in [&b"\x01"[..], &[0; 9000], b"some bytes of a write that never got whole, and more"]
    {
        let file = fs::OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all_at(tail, whole).unwrap();
        // Only checked and cut: opening the stores would begin another log file.
        let checked = check(&dir.path().join("dir"), store_id(dir.path()), true).unwrap();
        checked.cut().unwrap();
        assert_eq!(fs::metadata(&log).unwrap().len(), whole);
    }
    fs::OpenOptions::new().append(true).open(&log).unwrap().write_all_at(b"torn", whole).unwrap();
    everything_is_there(Stores::open_at(dir)).await;
}

#[test]
fn a_missing_list_of_tables_is_refused_and_nothing_touched() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = runtime.block_on(stopped_server());
    for store in ["raft", "data"] {
        let dir = copy(&base);
        fs::remove_file(dir.path().join("dir").join(store).join(CURRENT)).unwrap();
        let before = contents(dir.path());
        let refused = check(&dir.path().join("dir"), store_id(dir.path()), true).unwrap_err();
        assert!(matches!(refused, OpenError::StoreMissing(_)), "{refused}");
        assert_eq!(contents(dir.path()), before);
    }
}

#[test]
fn stores_of_another_server_are_refused_by_name() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let base = runtime.block_on(stopped_server());
    let other = runtime.block_on(stopped_server());
    for part in ["raft", "data", "raft.synced"] {
        let dir = copy(&base);
        let (ours, theirs) =
            (dir.path().join("dir").join(part), other.path().join("dir").join(part));
        if ours.is_dir() {
            fs::remove_dir_all(&ours).unwrap();
            disk::copy(&theirs, &ours);
        } else {
            fs::copy(&theirs, &ours).unwrap();
        }
        let before = contents(dir.path());
        let refused = check(&dir.path().join("dir"), store_id(dir.path()), true).unwrap_err();
        let OpenError::StoreSwapped { store, expected, found } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(store, part);
        assert_eq!((expected, found), (store_id(dir.path()), store_id(other.path())));
        assert_eq!(contents(dir.path()), before);
    }
}

#[test]
fn an_older_copy_of_the_state_is_caught_up_or_refused() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kept = tempfile::tempdir().unwrap();
    let copy_of = |applied: u64| kept.path().join(applied.to_string());
    let base = runtime.block_on(stopped_server_with(|stores, applied| {
        disk::copy(&stores.dir.path().join("dir/data"), &copy_of(applied));
    }));
    let with_copy_of = |applied| {
        let dir = copy(&base);
        let data = dir.path().join("dir/data");
        fs::remove_dir_all(&data).unwrap();
        disk::copy(&copy_of(applied), &data);
        dir
    };
    let behind_the_log = with_copy_of(20);
    let before = contents(behind_the_log.path());
    let dir = behind_the_log.path();
    let refused = check(&dir.join("dir"), store_id(dir), true).unwrap_err();
    assert!(matches!(refused, OpenError::StateBehind { purged: PURGED, .. }), "{refused:?}");
    assert_eq!(contents(dir), before);

    // What it lacks is in the log.
    let within_the_log = with_copy_of(100);
    runtime.block_on(async { everything_is_there(Stores::open_at(within_the_log)).await });
}

/// How the cases came out.
#[derive(Debug, Default)]
struct Counts {
    refused: usize,
    whole: usize,
    found_later: usize,
}

async fn harm_every_file(base: &Dir, mut counts: Counts, harms: impl Fn(u64) -> Vec<Harm>) {
    for path in files(base.path()) {
        let name = path.strip_prefix(base.path()).unwrap().to_owned();
        // Logs for people, which the server never reads, and the lock files.
        let text = path.file_name().unwrap().to_str().unwrap();
        if text.starts_with("LOG") || text == "LOCK" || text == "identity" {
            continue;
        }
        for harm in harms(fs::metadata(&path).unwrap().len()) {
            let dir = copy(base);
            if !apply_harm(&dir.path().join(&name), harm) {
                continue;
            }
            let case = format!("{}: {harm:?}", name.display());
            one_case(&case, dir, &mut counts).await;
        }
    }
    // Both outcomes must occur, or the cases do not test what they are meant to test.
    assert!(counts.refused > 50 && counts.whole > 5, "{counts:?}");
}

async fn one_case(case: &str, dir: TempDir, counts: &mut Counts) {
    let before = contents(dir.path());
    let checked = check(&dir.path().join("dir"), store_id(dir.path()), true);
    assert_eq!(contents(dir.path()), before, "{case}: a look changes nothing");
    if let Err(refused) = checked {
        assert!(refused.is_refusal(), "{case}: {refused:?}");
        counts.refused += 1;
        return;
    }
    match try_open_stores(&dir.path().join("dir")) {
        Err(refused) => {
            let OpenError::Storage(error) = refused else { panic!("{case}: {refused:?}") };
            assert!(error.is_damage(), "{case}: {error:?}");
            counts.found_later += 1;
        }
        Ok((log, state)) => match missing(&Stores { dir: dir.into(), log, state }).await {
            Ok(None) => counts.whole += 1,
            Ok(Some(missing)) => panic!("{case}: {missing}"),
            Err(alarm) => {
                assert!(alarm, "{case}: an error without an alarm");
                counts.found_later += 1;
            }
        },
    }
}

/// What is missing of the acknowledged data, if anything is. An error says whether the damage alarm
/// was raised.
async fn missing(stores: &Stores) -> Result<Option<String>, bool> {
    let alarmed = || stores.log.db.alarm().found().is_some();
    let Ok(mut log) = stores.log.group(GROUP).await else { return Err(alarmed()) };
    if log.read_vote().await.unwrap() != Some(Vote::new(TERM, 42)) {
        return Ok(Some("the vote".to_owned()));
    }
    let Ok(found) = log.try_get_log_entries(PURGED + 1..).await else { return Err(alarmed()) };
    if found != entries(PURGED + 1..=LAST) {
        return Ok(Some(format!("entries, {} were found", found.len())));
    }
    let Ok(view) = stores.try_view() else { return Err(alarmed()) };
    let Ok(applied) = state::read_applied(&view) else { return Err(alarmed()) };
    if applied.is_none_or(|applied| applied.index < PURGED) {
        return Ok(Some(format!("rows, applied is {applied:?}")));
    }
    let applied = applied.unwrap().index;
    let mut rows = BTreeMap::new();
    let scanned = crate::rows::Read::scan(&view, b"", None, false, &mut |key, value| {
        rows.insert(key.to_vec(), value.to_vec());
        true
    });
    if scanned.is_err() {
        return Err(alarmed());
    }
    let expected: BTreeMap<Vec<u8>, Vec<u8>> = (0..=applied)
        .map(|index| (format!("key{index}").into_bytes(), value(index).into_bytes()))
        .collect();
    Ok((rows != expected).then(|| format!("rows up to {applied}: {} are there", rows.len())))
}

async fn everything_is_there(stores: Stores) {
    assert_eq!(missing(&stores).await, Ok(None));
}

async fn stopped_server() -> Dir {
    stopped_server_with(|_, _| ()).await
}

/// A data directory with everything in it: tables and a write-ahead log, swept entries, rows of
/// more than one flush. `flushed` is called after the first two flushes of the state, with the index
/// that is applied.
async fn stopped_server_with(flushed: impl Fn(&Stores, u64)) -> Dir {
    let stores = Stores::open();
    let (mut log, mut state) = stores.group().await;
    append(&mut log, 0..=100).await;
    apply(&mut state, 0..=20).await;
    state.get_snapshot_builder().await.build_snapshot().await.unwrap();
    flushed(&stores, 20);
    apply(&mut state, 21..=100).await;
    state.get_snapshot_builder().await.build_snapshot().await.unwrap();
    flushed(&stores, 100);
    stores.log.db.flush().unwrap();
    append(&mut log, 101..=180).await;
    log.purge(log_id(1, PURGED)).await.unwrap();
    log.save_vote(&Vote::new(TERM, 42)).await.unwrap();
    stores.log.db.flush().unwrap();
    append(&mut log, 181..=LAST).await;
    log.save_committed(Some(log_id(1, 200))).await.unwrap();
    apply(&mut state, 101..=200).await;
    // Opening the log waits for the writes that are not synced.
    stores.log.group(GROUP).await.unwrap();
    drop((log, state));
    let Stores { dir, log, state } = stores;
    drop((log, state));
    dir
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(|index| entry(1, index, &format!("put key{index} {}", value(index)))).collect()
}

fn value(index: u64) -> String {
    format!("{index}-").repeat(60)
}

async fn append(log: &mut log_store::GroupLog, range: std::ops::RangeInclusive<u64>) {
    for entry in entries(range) {
        let (flushed, written) = TypeConfig::oneshot();
        log.append([entry], IOFlushed::signal(flushed)).await.unwrap();
        written.await.unwrap().unwrap();
    }
}

async fn apply(state: &mut state::GroupState, range: std::ops::RangeInclusive<u64>) {
    let entries: Vec<_> = entries(range).into_iter().map(|entry| Ok((entry, None))).collect();
    state.apply(stream::iter(entries)).await.unwrap();
}

fn apply_harm(path: &Path, harm: Harm) -> bool {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    match harm {
        Harm::Flip(at) => {
            let mut byte = [0];
            if file.read_exact_at(&mut byte, at).is_err() {
                return false;
            }
            file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
        }
        Harm::Cut(to) => {
            if to >= length {
                return false;
            }
            file.set_len(to).unwrap();
        }
        Harm::Zero(from) => {
            let bytes = vec![0; to_usize(length.saturating_sub(from).min(4096))];
            let mut were = bytes.clone();
            file.read_exact_at(&mut were, from).unwrap();
            if were == bytes {
                return false;
            }
            file.write_all_at(&bytes, from).unwrap();
        }
        Harm::Remove => fs::remove_file(path).unwrap(),
    }
    true
}

fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap()
}

fn copy(base: &Dir) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    disk::copy(base.path(), dir.path());
    dir
}
