use super::*;

#[test]
fn the_later_start_wins_whatever_order_hints_come_in() {
    let book = Book::in_memory();
    assert!(book.learn(hint(1, 2, "10.0.0.2:7400")));
    assert!(!book.learn(hint(1, 1, "10.0.0.1:7400")));
    assert!(!book.learn(hint(1, 2, "10.0.0.3:7400")));
    assert_eq!(book.address(1), Some("10.0.0.2:7400".parse().unwrap()));
    assert!(book.learn(hint(1, 3, "10.0.0.1:7400")));
    assert_eq!(book.address(1), Some("10.0.0.1:7400".parse().unwrap()));
}

#[test]
fn hints_that_lead_nowhere_are_not_kept() {
    let book = Book::in_memory();
    for (node, address) in [(0, "10.0.0.1:7400"), (1, "0.0.0.0:7400"), (1, "10.0.0.1:0")] {
        assert!(!book.learn(hint(node, 1, address)), "{node} {address}");
    }
    assert_eq!(book.hints(), []);
}

#[test]
fn of_two_starts_of_one_epoch_the_first_counts_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = hint(1, 2, "10.0.0.2:7400");
    let copy = Hint { start: 999, address: "10.0.0.3:7400".parse().unwrap(), ..first.clone() };
    assert!(Book::open(dir.path()).learn(first.clone()));
    let book = Book::open(dir.path());
    assert!(!book.learn(copy.clone()));
    assert!(book.counts(1, first.start()) && !book.counts(1, copy.start()));
    let later = Hint { boot_epoch: 3, ..copy };
    assert!(book.learn(later.clone()));
    assert!(book.counts(1, later.start()) && !book.counts(1, first.start()));
}

/// S14: if the counted start were lost, a copy of that server could be counted instead.
#[test]
fn the_start_that_counts_survives_a_power_cut() {
    let (earlier, counted) = (hint(1, 1, "10.0.0.1:7400"), hint(1, 2, "10.0.0.2:7400"));
    let image = powercut::cut(|dir| {
        let book = Book::open(dir);
        assert!(book.learn(earlier) && book.learn(counted.clone()));
    });
    let book = Book::open(image.path());
    assert_eq!(book.hints(), std::slice::from_ref(&counted));
    let copy = Hint { start: 999, ..counted.clone() };
    assert!(!book.learn(copy.clone()));
    assert!(book.counts(1, counted.start()) && !book.counts(1, copy.start()));
}

#[test]
fn a_start_whose_number_is_not_known_counts_once_it_is() {
    let book = Book::in_memory();
    let unknown = Hint { start: 0, ..hint(1, 2, "10.0.0.2:7400") };
    assert!(book.learn(unknown.clone()));
    assert!(!book.counts(1, unknown.start()));
    let known = hint(1, 2, "10.0.0.2:7400");
    assert!(book.learn(known.clone()));
    assert!(book.counts(1, known.start()));
}

#[test]
fn within_a_start_the_later_move_wins() {
    let book = Book::in_memory();
    let first = hint(1, 2, "10.0.0.2:7400");
    let moved = Hint { moves: 1, address: "10.0.0.9:7400".parse().unwrap(), ..first.clone() };
    assert!(book.learn(moved.clone()));
    assert!(!book.learn(first));
    assert_eq!(book.address(1), Some(moved.address));
}

#[test]
fn a_start_that_is_made_up_poisons_nothing() {
    let book = Book::in_memory();
    assert!(book.learn(hint(1, 2, "10.0.0.2:7400")));
    assert!(!book.learn(hint(1, u64::MAX, "10.0.0.3:7400")));
    assert!(!book.learn(hint(2, u64::MAX, "10.0.0.3:7400")));
    assert!(book.learn(hint(1, 3, "10.0.0.4:7400")));
    assert_eq!(book.hints().len(), 1);
}

#[test]
fn what_cannot_be_kept_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let book = Book::open(dir.path());
    fs::create_dir(dir.path().join(FILE)).unwrap();
    assert!(!book.learn(hint(1, 2, "10.0.0.2:7400")));
    assert_eq!(book.hints(), []);
}

#[test]
fn a_book_is_found_again_and_a_damaged_one_is_empty() {
    let dir = tempfile::tempdir().unwrap();
    let known = hint(7, 3, "[::1]:7400");
    Book::open(dir.path()).learn(known.clone());
    assert_eq!(Book::open(dir.path()).hints(), [known]);
    fs::write(dir.path().join(FILE), "{").unwrap();
    assert_eq!(Book::open(dir.path()).hints(), []);
}

fn hint(node_id: NodeId, boot_epoch: u64, address: &str) -> Hint {
    let services = vec!["data".to_owned()];
    let (start, moves) = (boot_epoch.max(1), 0);
    Hint { node_id, boot_epoch, start, moves, address: address.parse().unwrap(), services }
}
