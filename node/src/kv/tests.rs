use std::{cell::Cell, collections::BTreeSet};

use prost::Message;
use proto::{
    etcdserverpb::{CompactionRequest, PutRequest, RangeRequest},
    quorate::v1::{KvCommand, kv_command::Command},
};
use raft::{
    EntryMeta, StateMachine,
    rows::{MemoryRows, Read, StorageError},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    KvMachine, Meta,
    compact::{compact, sweep_on},
    hash,
    layout::{
        ChangeKind, KeyRecord, Revision, change_at, change_of, change_row, change_value,
        current_end, current_key, current_row, history_after, history_end, history_ended,
        history_from, history_key, history_row,
    },
    range,
    span::{Span, SpanSet},
    write::Writer,
};

/// Every key of up to three bytes, of those bytes that are special in an encoding.
fn awkward_keys() -> BTreeSet<Vec<u8>> {
    let bytes = [0x00, 0x01, 0x02, b'a', 0xFE, 0xFF];
    let mut keys = BTreeSet::from([Vec::new()]);
    for _ in 0..3 {
        let longer: Vec<_> = keys
            .iter()
            .flat_map(|key| bytes.map(|byte| [key.as_slice(), &[byte]].concat()))
            .collect();
        keys.extend(longer);
    }
    keys
}

#[test]
fn history_rows_are_in_the_order_of_keys_and_then_revisions() {
    let ends = [(1, 0), (1, 1), (2, 0), (255, 0), (256, u32::MAX), (i64::MAX, 0)]
        .map(|(main, sub)| Revision { main, sub });
    let mut last = Vec::new();
    for key in awkward_keys() {
        for ended in ends {
            let row = history_row(&key, ended);
            assert!(last < row, "{key:?} {ended:?}");
            assert!(history_from(&key) < row && row < history_after(&key));
            assert!(row < history_end());
            assert_eq!(history_key(&row).unwrap(), key);
            assert_eq!(history_ended(&row), Some(ended));
            last = row;
        }
    }
}

#[test]
fn bounds_of_history_rows_separate_keys() {
    let at = Revision { main: 7, sub: 0 };
    let keys = awkward_keys();
    for key in &keys {
        for bound in &keys {
            let row = history_row(key, at);
            assert_eq!(row < history_from(bound), key < bound, "{key:?} {bound:?}");
            let within = history_row(key, Revision::default()) <= row && row < history_after(key);
            assert!(within);
            let of_bound =
                history_row(bound, Revision::default()) <= row && row < history_after(bound);
            assert_eq!(of_bound, key == bound, "{key:?} {bound:?}");
        }
    }
}

#[test]
fn current_rows_are_in_the_order_of_keys() {
    let keys = awkward_keys();
    let rows: Vec<_> = keys.iter().map(|key| current_row(key)).collect();
    assert!(rows.is_sorted());
    assert!(rows.iter().all(|row| *row < current_end()));
    assert!(rows.iter().zip(&keys).all(|(row, key)| current_key(row) == key));
}

#[test]
fn records_changes_and_meta_read_as_they_were_written() {
    let record = KeyRecord {
        create_revision: 3,
        mod_revision: i64::MAX,
        version: 1,
        lease: -1,
        value: b"\0value",
    };
    assert_eq!(KeyRecord::decode(&record.encode()), Some(record));
    let at = Revision { main: 9, sub: 2 };
    assert_eq!(change_at(&change_row(at)), Some(at));
    let value = change_value(ChangeKind::Delete, b"\0key");
    assert_eq!(change_of(&value), Some((ChangeKind::Delete, &b"\0key"[..])));
    let meta = Meta { revision: 9, compacted: 4, swept: at, size: 77 };
    let mut rows = MemoryRows::default();
    meta.store(&mut rows);
    assert_eq!(Meta::load(&rows).unwrap(), meta);
}

#[test]
fn rows_that_this_code_did_not_write_are_told_apart() {
    assert_eq!(KeyRecord::decode(&[0xFF]), None);
    assert_eq!(KeyRecord::decode(&[]), None);
    assert_eq!(change_of(&[]), None);
    assert_eq!(change_of(&[9, b'a']), None);
    assert_eq!(change_at(b"r123"), None);
    assert_eq!(history_ended(b"h"), None);
    assert_eq!(history_key(b"ha\0\0\x01123456789012"), None);
    assert_eq!(history_key(b"ha\x01123456789012"), None);
}

#[test]
fn a_set_contains_what_its_spans_contain() {
    // Etcd: one key, up to the end, nothing if the end is first, and everything from a key on.
    let one = |key, end, other| set([Span::new(key, end)]).contains(other);
    assert!(one(b"a", b"", b"a"));
    assert!(!one(b"a", b"", b"a\0"));
    assert!(one(b"a", b"b", b"a\xff"));
    assert!(!one(b"a", b"b", b"b"));
    assert!(!one(b"b", b"a", b"b"));
    assert!(one(b"a", b"\0", b"\xff"));
    assert!(!one(b"b", b"\0", b"a"));
}

#[test]
fn a_set_joins_ranges_that_touch() {
    let keys: Vec<_> = awkward_keys().into_iter().filter(|key| key.len() < 3).collect();
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..200 {
        let mut some_key = || keys[random.random_range(0..keys.len())].as_slice();
        let ranges: Vec<_> = (0..6).map(|_| (some_key(), some_key())).collect();
        let (left, right) = ranges.split_at(3);
        let mut joined = set(left.iter().map(|(start, end)| Span::Range(start, end)));
        joined.extend(set(right.iter().map(|(start, end)| Span::Range(start, end))));
        for key in awkward_keys() {
            let key = key.as_slice();
            let covered = ranges.iter().any(|(start, end)| *start <= key && key < *end);
            assert_eq!(joined.contains(key), covered, "{ranges:?} {key:?}");
        }
    }
}

fn set<'a>(spans: impl IntoIterator<Item = Span<'a>>) -> SpanSet<'a> {
    let mut joined = SpanSet::default();
    spans.into_iter().for_each(|span| joined.insert(span));
    joined
}

#[test]
fn a_command_of_an_unknown_kind_stops_the_replica() {
    let mut rows = MemoryRows::default();
    let mut machine = KvMachine::new();
    machine.load(&rows).unwrap();
    let entry = EntryMeta { index: 1, term: 1 };
    // A message in field 1000, as a later version may have: protobuf skips what it does not know.
    for unknown in [b"\xc2\x3e\x00".as_slice(), b"", b"\xff"] {
        assert_eq!((machine.commands().level_of)(unknown), None, "it is not proposed");
        let error = machine.apply(entry, unknown, &mut rows).unwrap_err();
        assert!(error.is_outdated() && error.context().contains("upgrade this server"), "{error}");
    }
    assert_eq!(rows, MemoryRows::default());
    let put = PutRequest { key: "a".into(), ..PutRequest::default() };
    let known = KvCommand { command: Some(Command::Put(put)) }.encode_to_vec();
    assert_eq!((machine.commands().level_of)(&known), Some(1));
}

#[test]
fn a_read_of_one_key_in_the_past_visits_one_row_of_its_history() {
    let mut rows = MemoryRows::default();
    let mut meta = Meta::default();
    for value in 0..100 {
        let put = PutRequest { key: "a".into(), value: vec![value].into(), ..Default::default() };
        let mut writer = Writer::new(&mut rows, &mut meta);
        writer.put(&put).unwrap();
        writer.finish();
    }
    meta.store(&mut rows);
    // Revision 1 is before the first put: no record of the key began in time.
    for revision in [1, 2, 50, 100] {
        let counted = Counted { rows: &rows, visited: Cell::default() };
        let request = RangeRequest { key: "a".into(), revision, ..Default::default() };
        let found = range(&counted, &request).unwrap().kvs.pop();
        let value = found.map(|kv| i64::from(kv.value[0]));
        assert_eq!(value, (revision > 1).then_some(revision - 2));
        assert_eq!(counted.visited.get(), 1, "revision {revision}");
    }
}

/// Rows that count how many of them a scan visits.
struct Counted<'a> {
    rows: &'a MemoryRows,
    visited: Cell<u64>,
}

impl Read for Counted<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.rows.get(key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        self.rows.scan(start, end, reverse, &mut |key, value| {
            self.visited.update(|visited| visited + 1);
            visit(key, value)
        })
    }
}

/// Compaction of more than is swept at once: the rest goes with the commands that follow, and no
/// read ever sees a difference.
#[test]
fn a_large_compaction_is_swept_by_later_commands() {
    let mut rows = MemoryRows::default();
    let mut meta = Meta::default();
    const CHANGES: i64 = 40_000;
    for _ in 0..CHANGES {
        let put = PutRequest { key: "a".into(), ..PutRequest::default() };
        let mut writer = Writer::new(&mut rows, &mut meta);
        writer.put(&put).unwrap();
        writer.finish();
    }
    let request = CompactionRequest { revision: meta.revision, physical: false };
    compact(&mut rows, &mut meta, &request).unwrap().unwrap();
    let hashed = {
        meta.store(&mut rows);
        hash(&rows, 0).unwrap()
    };
    let mut commands = 0;
    while meta.swept.main <= meta.compacted {
        sweep_on(&mut rows, &mut meta).unwrap();
        commands += 1;
    }
    assert!((50..200).contains(&commands), "{commands}");
    meta.store(&mut rows);
    assert_eq!(hash(&rows, 0).unwrap(), hashed);
    let mut left = 0;
    rows.scan(&[], None, false, &mut |_, _| {
        left += 1;
        true
    })
    .unwrap();
    assert_eq!(left, 2);
}
