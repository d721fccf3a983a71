use super::{Disk, LostProgress, Membership, Record, Start, StartRefusal, decide};

const FIRST: Record = Record::FirstVoter { formed: false };
const FORMED: Record = Record::FirstVoter { formed: true };
const VOTER: Membership = Membership::Voter { acknowledged: false };
const KNOWN_VOTER: Membership = Membership::Voter { acknowledged: true };
const LEARNER: Membership = Membership::Learner { acknowledged: false };
const KNOWN_LEARNER: Membership = Membership::Learner { acknowledged: true };
const STORE_LOST: Start = Start::Refuse(StartRefusal::StoreLost);

const ENTRIES: LostProgress = LostProgress::Entries { acknowledged: 9, last_index: 4 };
const COMMITTED: LostProgress = LostProgress::Committed { acknowledged: 9, last_index: 4 };
const TERM: LostProgress = LostProgress::Term { voted: 3, remembered: 2, last_index: 4 };

const DISKS: [Disk; 8] = [
    Disk::Blank,
    Disk::Holding,
    Disk::Lost,
    Disk::Reverted(ENTRIES),
    Disk::Reverted(COMMITTED),
    Disk::Reverted(TERM),
    Disk::AnotherMesh,
    Disk::RolledBack,
];
const RECORDS: [Record; 6] =
    [Record::Unknown, Record::Absent, FIRST, FORMED, Record::Replica, Record::AnotherStore];
const MEMBERSHIPS: [Membership; 7] = [
    Membership::Unknown,
    Membership::Unformed,
    Membership::Outside,
    VOTER,
    KNOWN_VOTER,
    LEARNER,
    KNOWN_LEARNER,
];

/// A line per disk and record, a letter per membership, in the orders above: **F**orm, **R**esume,
/// **A**wait the leader, **L**eave; small letters refuse: **l**ost store, another **s**tore, another
/// **m**esh, r**o**lled back, re**v**erted.
const MATRIX: [[&str; 6]; 8] = [
    ["LLLllAl", "LLLllAl", "FFAAlAl", "AAAAlAl", "AAAllAl", "sssssss"],
    ["RRRRRRR", "RRLRRRR", "RRRRRRR", "RRRRRRR", "RRRRRRR", "sssssss"],
    ["lllllll", "lllllll", "lllllll", "lllllll", "lllllll", "sssssss"],
    ["vvvvvvv", "vvvvvvv", "vvvvvvv", "vvvvvvv", "vvvvvvv", "vvvvvvv"],
    ["vvvvvvv", "vvvvvvv", "vvvvvvv", "vvvvvvv", "vvvvvvv", "vvvvvvv"],
    ["vvvvvvv", "vvvvvvv", "vvvvvvv", "vvvvvvv", "vvvvvvv", "vvvvvvv"],
    ["mmmmmmm", "mmmmmmm", "mmmmmmm", "mmmmmmm", "mmmmmmm", "mmmmmmm"],
    ["ooooooo", "ooooooo", "ooooooo", "ooooooo", "ooooooo", "ooooooo"],
];

/// Cells of the matrix with the situation that each stands for.
type Cell = (&'static str, Disk, Record, Membership, Start);

#[rustfmt::skip]
const BLANK: [Cell; 24] = [
    ("first start of a first voter", Disk::Blank, FIRST, Membership::Unknown, Start::Form),
    ("first start, the other first voters are blank too", Disk::Blank, FIRST, Membership::Unformed, Start::Form),
    ("first voter, formed by the others before a leader was reported", Disk::Blank, FIRST, VOTER, Start::AwaitLeader),
    ("first voter that comes late", Disk::Blank, FORMED, VOTER, Start::AwaitLeader),
    ("first voter that comes late and reaches nobody", Disk::Blank, FORMED, Membership::Unknown, Start::AwaitLeader),
    ("first voter that comes late, the others restart", Disk::Blank, FORMED, Membership::Unformed, Start::AwaitLeader),
    ("first voter that was replaced before it came", Disk::Blank, FORMED, Membership::Outside, Start::AwaitLeader),
    ("first voter that the leader already keeps as a learner", Disk::Blank, FORMED, LEARNER, Start::AwaitLeader),
    ("first voter whose entries the leader remembers", Disk::Blank, FORMED, KNOWN_VOTER, STORE_LOST),
    ("the same, before a leader was reported to DISCO", Disk::Blank, FIRST, KNOWN_VOTER, STORE_LOST),
    ("spare node on its first start", Disk::Blank, Record::Replica, Membership::Outside, Start::AwaitLeader),
    ("spare node that reaches nobody", Disk::Blank, Record::Replica, Membership::Unknown, Start::AwaitLeader),
    ("spare node, group not formed yet", Disk::Blank, Record::Replica, Membership::Unformed, Start::AwaitLeader),
    ("spare node that was added already", Disk::Blank, Record::Replica, LEARNER, Start::AwaitLeader),
    ("spare node that held entries", Disk::Blank, Record::Replica, KNOWN_LEARNER, STORE_LOST),
    ("spare node that was promoted, so it had a copy", Disk::Blank, Record::Replica, VOTER, STORE_LOST),
    ("promoted spare node whose entries the leader remembers", Disk::Blank, Record::Replica, KNOWN_VOTER, STORE_LOST),
    ("voter that DISCO does not know of", Disk::Blank, Record::Absent, VOTER, STORE_LOST),
    ("voter while DISCO is down and nothing is cached", Disk::Blank, Record::Unknown, VOTER, STORE_LOST),
    ("learner that DISCO does not know of", Disk::Blank, Record::Absent, LEARNER, Start::AwaitLeader),
    ("group of others", Disk::Blank, Record::Absent, Membership::Outside, Start::Leave),
    ("group of others that nobody answers for", Disk::Blank, Record::Absent, Membership::Unknown, Start::Leave),
    ("nothing is known at all", Disk::Blank, Record::Unknown, Membership::Unknown, Start::Leave),
    ("swapped for a disk without the group", Disk::Blank, Record::AnotherStore, VOTER, Start::Refuse(StartRefusal::AnotherStore)),
];

#[rustfmt::skip]
const HOLDING: [Cell; 12] = [
    ("restart of a voter", Disk::Holding, FORMED, KNOWN_VOTER, Start::Resume),
    ("restart of a voter before a leader was reported", Disk::Holding, FIRST, Membership::Unformed, Start::Resume),
    ("restart of everybody at once", Disk::Holding, FORMED, Membership::Unknown, Start::Resume),
    ("restart of a learner", Disk::Holding, Record::Replica, KNOWN_LEARNER, Start::Resume),
    ("restart while DISCO is down", Disk::Holding, Record::Unknown, Membership::Unknown, Start::Resume),
    ("restart while DISCO is down, the others answer", Disk::Holding, Record::Unknown, VOTER, Start::Resume),
    ("DISCO lost the record, the group has the voter", Disk::Holding, Record::Absent, VOTER, Start::Resume),
    ("DISCO lost the record, the group is not reached", Disk::Holding, Record::Absent, Membership::Unknown, Start::Resume),
    ("removed by the group, still wanted by DISCO", Disk::Holding, FORMED, Membership::Outside, Start::Resume),
    ("removed by the group while DISCO is down", Disk::Holding, Record::Unknown, Membership::Outside, Start::Resume),
    ("removed by the group and by DISCO", Disk::Holding, Record::Absent, Membership::Outside, Start::Leave),
    ("disk of the same id with another store", Disk::Holding, Record::AnotherStore, VOTER, Start::Refuse(StartRefusal::AnotherStore)),
];

#[rustfmt::skip]
const LOST_OR_FOREIGN: [Cell; 10] = [
    ("voter that lost its store", Disk::Lost, FORMED, VOTER, STORE_LOST),
    ("voter that lost its store, DISCO down", Disk::Lost, Record::Unknown, Membership::Unknown, STORE_LOST),
    ("first voter that lost its store before a leader was reported", Disk::Lost, FIRST, Membership::Unformed, STORE_LOST),
    ("learner that lost its store", Disk::Lost, Record::Replica, LEARNER, STORE_LOST),
    ("lost store of a group that moved away", Disk::Lost, Record::Absent, Membership::Outside, STORE_LOST),
    ("lost and swapped", Disk::Lost, Record::AnotherStore, VOTER, Start::Refuse(StartRefusal::AnotherStore)),
    ("directory of another mesh, group unknown here", Disk::AnotherMesh, Record::Absent, Membership::Outside, Start::Refuse(StartRefusal::AnotherMesh)),
    ("directory of another mesh, ids collide", Disk::AnotherMesh, FIRST, Membership::Unknown, Start::Refuse(StartRefusal::AnotherMesh)),
    ("disk restored from a copy", Disk::RolledBack, FORMED, KNOWN_VOTER, Start::Refuse(StartRefusal::RolledBack)),
    ("disk restored from a copy, blank again", Disk::RolledBack, FIRST, Membership::Unformed, Start::Refuse(StartRefusal::RolledBack)),
];

#[rustfmt::skip]
const REVERTED: [Cell; 6] = [
    ("voter whose entries the leader remembers and the disk does not", Disk::Reverted(ENTRIES), FORMED, KNOWN_VOTER, Start::Refuse(StartRefusal::Reverted(ENTRIES))),
    ("voter whose later vote a member remembers, no leader answers", Disk::Reverted(TERM), FORMED, VOTER, Start::Refuse(StartRefusal::Reverted(TERM))),
    ("the same while DISCO is down", Disk::Reverted(TERM), Record::Unknown, VOTER, Start::Refuse(StartRefusal::Reverted(TERM))),
    ("learner that went back", Disk::Reverted(ENTRIES), Record::Replica, KNOWN_LEARNER, Start::Refuse(StartRefusal::Reverted(ENTRIES))),
    ("went back and was removed", Disk::Reverted(TERM), Record::Absent, Membership::Outside, Start::Refuse(StartRefusal::Reverted(TERM))),
    ("went back under another store", Disk::Reverted(ENTRIES), Record::AnotherStore, VOTER, Start::Refuse(StartRefusal::Reverted(ENTRIES))),
];

#[test]
fn every_cell_of_the_matrix() {
    for (disk, lines) in DISKS.into_iter().zip(MATRIX) {
        for (record, line) in RECORDS.into_iter().zip(lines) {
            let cells = MEMBERSHIPS.map(|membership| letter(decide(disk, record, membership)));
            assert_eq!(String::from_iter(cells), line, "{disk:?} {record:?}");
        }
    }
}

fn letter(start: Start) -> char {
    match start {
        Start::Form => 'F',
        Start::Resume => 'R',
        Start::AwaitLeader => 'A',
        Start::Leave => 'L',
        Start::Refuse(StartRefusal::StoreLost) => 'l',
        Start::Refuse(StartRefusal::AnotherStore) => 's',
        Start::Refuse(StartRefusal::AnotherMesh) => 'm',
        Start::Refuse(StartRefusal::RolledBack) => 'o',
        Start::Refuse(StartRefusal::Reverted(_)) => 'v',
    }
}

#[test]
fn blank_disk() {
    check(&BLANK);
}

#[test]
fn disk_with_the_group() {
    check(&HOLDING);
}

#[test]
fn lost_or_foreign_disk() {
    check(&LOST_OR_FOREIGN);
}

#[test]
fn disk_that_went_back() {
    check(&REVERTED);
}

#[test]
fn a_refusal_of_a_disk_that_went_back_names_what_is_missing() {
    let text = StartRefusal::Reverted(ENTRIES).to_string();
    assert!(text.contains("up to 9") && text.contains("is 4"), "{text}");
    let text = StartRefusal::Reverted(TERM).to_string();
    assert!(text.contains("in term 3") && text.contains("remembers term 2"), "{text}");
}

#[test]
fn only_a_blank_first_voter_of_an_unformed_group_forms_it() {
    for (disk, record, membership) in all() {
        if decide(disk, record, membership) == Start::Form {
            assert_eq!((disk, record), (Disk::Blank, FIRST));
            assert!(
                matches!(membership, Membership::Unknown | Membership::Unformed),
                "{membership:?}"
            );
        }
    }
}

#[test]
fn a_store_that_lost_or_forgot_never_takes_part() {
    let harmed = |disk| matches!(disk, Disk::Lost | Disk::Reverted(_));
    for (disk, record, membership) in all().filter(|cell| harmed(cell.0)) {
        assert!(
            matches!(decide(disk, record, membership), Start::Refuse(_)),
            "{record:?} {membership:?}"
        );
    }
}

#[test]
fn a_foreign_directory_never_takes_part() {
    let foreign = [Disk::AnotherMesh, Disk::RolledBack];
    for (disk, record, membership) in all() {
        if foreign.contains(&disk) || record == Record::AnotherStore {
            assert!(
                matches!(decide(disk, record, membership), Start::Refuse(_)),
                "{disk:?} {record:?} {membership:?}"
            );
        }
    }
}

#[test]
fn a_voter_with_its_store_is_never_stopped() {
    for (disk, record, membership) in all() {
        let voter = matches!(membership, Membership::Voter { .. });
        if disk == Disk::Holding && voter && record != Record::AnotherStore {
            assert_eq!(decide(disk, record, membership), Start::Resume, "{record:?}");
        }
    }
}

#[test]
fn nothing_is_stopped_because_disco_is_down() {
    for (disk, record, membership) in all() {
        if disk == Disk::Holding && record == Record::Unknown {
            assert_eq!(decide(disk, record, membership), Start::Resume);
        }
    }
}

#[track_caller]
fn check(cells: &[Cell]) {
    for &(name, disk, record, membership, start) in cells {
        assert_eq!(decide(disk, record, membership), start, "{name}");
    }
}

fn all() -> impl Iterator<Item = (Disk, Record, Membership)> {
    DISKS.into_iter().flat_map(|disk| {
        RECORDS.into_iter().flat_map(move |record| {
            MEMBERSHIPS.into_iter().map(move |membership| (disk, record, membership))
        })
    })
}
