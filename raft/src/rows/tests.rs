use super::*;

#[test]
fn rows_are_visited_in_order_and_within_bounds() {
    let mut rows = MemoryRows::new();
    for key in ["b", "a", "d", "c"] {
        rows.put(key.into(), key.to_uppercase().into());
    }
    rows.delete("c".into());
    let keys = |start: &str, end: Option<&str>, reverse| {
        let mut keys = String::new();
        rows.scan(start.as_bytes(), end.map(str::as_bytes), reverse, &mut |key, _| {
            keys.push_str(&String::from_utf8_lossy(key));
            true
        })
        .unwrap();
        keys
    };
    assert_eq!(keys("", None, false), "abd");
    assert_eq!(keys("", None, true), "dba");
    assert_eq!(keys("b", Some("d"), false), "b");
    assert_eq!(keys("d", Some("b"), false), "");
    assert_eq!(rows.get(b"d").unwrap(), Some(b"D".to_vec()));
}

#[test]
fn a_visitor_may_stop() {
    let mut rows = MemoryRows::new();
    rows.put("a".into(), "1".into());
    rows.put("b".into(), "2".into());
    let mut seen = 0;
    rows.scan(b"", None, false, &mut |_, _| {
        seen += 1;
        false
    })
    .unwrap();
    assert_eq!(seen, 1);
}
