use super::*;

#[test]
fn the_name_of_the_process_does_not_shift_the_fields() {
    let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 7 0 12345 1000 20 0";
    assert_eq!(usage(stat), Some(Usage { cpu_seconds: 2.0, threads: 7 }));
    assert_eq!(usage("42 (short) S 1"), None);
}

#[test]
fn resident_memory_is_in_bytes() {
    assert_eq!(resident("Name:\tquorate\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
}

#[test]
fn a_label_cannot_leave_its_quotes() {
    let mut text = Text::default();
    text.gauge("up", "Whether it is up.");
    text.sample("up", &[("name", "a\"b\\c\nd")], 1);
    assert_eq!(
        text.0,
        "# HELP up Whether it is up.\n# TYPE up gauge\nup{name=\"a\\\"b\\\\c\\nd\"} 1\n"
    );
}
