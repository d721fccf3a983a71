use super::*;

/// A log as RocksDB writes it, of writes with this many changes and bytes each.
fn log(first: u64, writes: &[(u32, usize)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut sequence = first;
    for (count, size) in writes {
        let mut payload = sequence.to_le_bytes().to_vec();
        payload.extend(count.to_le_bytes());
        payload.resize(12 + size, 7);
        write(&mut bytes, &payload);
        sequence += u64::from(*count);
    }
    bytes
}

fn write(bytes: &mut Vec<u8>, mut payload: &[u8]) {
    let mut begun = false;
    loop {
        let left = BLOCK - bytes.len() % BLOCK;
        if left < HEADER {
            bytes.resize(bytes.len() + left, 0);
            continue;
        }
        let part = payload.len().min(left - HEADER);
        let ends = part == payload.len();
        let kind = match (begun, ends) {
            (false, true) => FULL,
            (false, false) => FIRST,
            (true, true) => LAST,
            (true, false) => MIDDLE,
        };
        let mut checked = vec![kind];
        checked.extend(&payload[..part]);
        bytes.extend(mask(crc32c::crc32c(&checked)).to_le_bytes());
        bytes.extend(u16::try_from(part).unwrap().to_le_bytes());
        bytes.extend(checked);
        payload = &payload[part..];
        begun = true;
        if ends {
            return;
        }
    }
}

fn file(name: &str, bytes: &[u8]) -> (PathBuf, Segment) {
    (name.into(), scan(bytes))
}

#[test]
fn a_whole_log_is_read_to_its_end() {
    let bytes = log(5, &[(1, 10), (3, 50_000), (0, 0), (2, 32_733), (1, 1)]);
    let segment = scan(&bytes);
    assert_eq!(segment, Segment { first: Some(5), next: 12, end: bytes.len() as u64, whole: true });
    assert_eq!(scan(&[]), Segment { first: None, next: 0, end: 0, whole: true });
}

/// A write that began ten bytes before a block's end once made a healthy log look damaged.
#[test]
fn a_write_may_begin_anywhere_in_a_block() {
    for left in 0..2 * (HEADER + WRITE_START) {
        let before = BLOCK - left - HEADER - WRITE_START;
        let bytes = log(1, &[(1, before), (2, 100), (1, 40_000)]);
        let segment = scan(&bytes);
        let end = bytes.len() as u64;
        assert_eq!(segment, Segment { first: Some(1), next: 5, end, whole: true }, "{left} left");
    }
}

#[test]
fn every_cut_and_every_changed_byte_ends_what_is_whole() {
    let bytes = log(1, &[(1, 40), (2, 40_000), (1, 40)]);
    let ends: Vec<usize> =
        (1..=3).map(|n| log(1, &[(1, 40), (2, 40_000), (1, 40)][..n]).len()).collect();
    for at in (0..bytes.len()).step_by(61).chain(ends.iter().map(|end| end - 1)) {
        let whole_before = ends.iter().filter(|end| **end <= at).count();
        let next = [0, 2, 4, 5][whole_before];
        let cut = scan(&bytes[..at]);
        assert_eq!(cut.next, next, "cut at {at}");
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        let changed = scan(&changed);
        assert_eq!((changed.next, changed.whole), (next, false), "changed at {at}");
    }
}

#[test]
fn zeros_in_the_middle_are_no_writes() {
    let mut bytes = log(1, &[(1, 30_000), (1, 30_000), (1, 30_000), (1, 30_000)]);
    bytes[BLOCK..2 * BLOCK].fill(0);
    let segment = scan(&bytes);
    assert_eq!((segment.next, segment.whole), (2, false));
}

#[test]
fn only_what_follows_the_last_synced_write_may_be_torn() {
    let bytes = log(1, &[(1, 40), (1, 40), (1, 40)]);
    let torn = file("4.log", &bytes[..bytes.len() - 1]);
    let whole = torn.1.end;
    let expected = Verified { last: 2, torn: Some(Torn { path: "4.log".into(), whole }) };
    assert_eq!(verify(std::slice::from_ref(&torn), 0, 2), Ok(expected));
    let refused = verify(&[torn], 0, 3).unwrap_err();
    assert!(matches!(refused, Damage::Short { last: 2, synced: 3, .. }), "{refused}");
}

#[test]
fn a_missing_file_is_told() {
    let first = file("4.log", &log(1, &[(5, 9)]));
    let second = file("6.log", &log(6, &[(5, 9)]));
    let third = file("9.log", &log(11, &[(5, 9)]));
    let all = [first.clone(), second.clone(), third.clone()];
    assert_eq!(verify(&all, 0, 15), Ok(Verified { last: 15, torn: None }));
    let gap = |from, to| Err(Damage::Gap { from, to, file: "9.log".into() });
    assert_eq!(verify(&[first.clone(), third.clone()], 0, 15), gap(6, 10));
    assert_eq!(verify(std::slice::from_ref(&third), 4, 15), gap(5, 10));
    // The tables hold the writes of the files before.
    assert_eq!(verify(&[third], 10, 15), Ok(Verified { last: 15, torn: None }));
    assert!(matches!(verify(&[first, second], 0, 15), Err(Damage::Short { .. })));
    assert!(matches!(verify(&[], 10, 15), Err(Damage::Short { last: 10, .. })));
    assert_eq!(verify(&[], 15, 15), Ok(Verified { last: 15, torn: None }));
}

#[test]
fn damage_in_a_file_before_the_last_is_told_even_if_the_tables_may_hold_it() {
    let mut bytes = log(1, &[(5, 9), (5, 9)]);
    let length = bytes.len();
    bytes[length - 1] ^= 1;
    let damaged = file("4.log", &bytes);
    let after = file("6.log", &log(11, &[(5, 9)]));
    let refused = verify(&[damaged.clone(), after], 12, 15);
    assert_eq!(refused, Err(Damage::Gap { from: 6, to: 10, file: "6.log".into() }));
    // A torn end, after which a later start continued.
    let went_on = file("6.log", &log(6, &[(5, 9)]));
    assert_eq!(verify(&[damaged, went_on], 0, 10), Ok(Verified { last: 10, torn: None }));
}
