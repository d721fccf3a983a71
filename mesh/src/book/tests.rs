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
    Hint { node_id, boot_epoch, address: address.parse().unwrap(), services }
}
