use super::*;

const AT: Time = Duration::from_secs(100);

#[test]
fn names_are_words_of_a_text() {
    let text = "Error adding/updating listener(s) sidecar/orders: cannot bind '127.0.0.1:21000'";
    assert!(mentions(text, "sidecar/orders"));
    assert!(!mentions(text, "orders"), "it is a part of a longer name");
    assert!(!mentions(text, "sidecar/order"));
    assert!(!mentions(text, "nosuch"));
    assert!(mentions("bad a, b.", "b"));
    assert!(mentions("\"a\" is bad", "a"));
    assert!(!mentions("a.b", "a"));
    assert!(mentions("ünï ☃", "☃"));
    assert!(!mentions("", "a"));
}

#[test]
fn suspects_are_halved_until_one_is_alone() {
    let mut rejections = Rejections::default();
    assert!(rejections.add(suspects(&["a", "b", "c"], "no"), AT).is_empty());
    assert_eq!(rejections.next_trial(AT), Some(names(&["a"])));
    assert_eq!(rejections.add(suspects(&["a"], "no"), AT), names(&["a"]));
    assert_eq!(rejections.next_trial(AT), Some(names(&["b", "c"])));
    assert_eq!(rejections.next_trial(AT), None);
}

#[test]
fn what_the_text_names_is_tried_apart() {
    let mut rejections = Rejections::default();
    rejections.add(suspects(&["a", "b", "c", "d"], "b: bad, d: bad"), AT);
    assert_eq!(rejections.next_trial(AT), Some(names(&["a", "c"])));
    assert_eq!(rejections.next_trial(AT), Some(names(&["b"])));
    assert_eq!(rejections.next_trial(AT), Some(names(&["d"])));
    assert_eq!(rejections.quarantined().count(), 0, "a hint is no proof");
}

#[test]
fn pauses_grow_and_have_an_end() {
    let mut rejections = Rejections::default();
    let mut now = AT;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        rejections.add(suspects(&["a"], "in use"), now);
        let next = rejections.next_retry().unwrap();
        pauses.push((next - now).as_secs());
        assert_eq!(rejections.next_trial(next - Duration::from_millis(1)), None);
        assert_eq!(rejections.next_trial(next), Some(names(&["a"])));
        now = next;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    let (_, known) = rejections.quarantined().next().unwrap();
    assert_eq!((known.times, known.since), (8, AT));
}

#[test]
fn a_retry_that_is_accepted_ends_the_quarantine() {
    let mut rejections = Rejections::default();
    rejections.add(suspects(&["a"], "in use"), AT);
    assert!(!rejections.accept("a", Version::new(2)), "another content");
    assert!(rejections.accept("a", Version::new(1)));
    assert_eq!(rejections.next_retry(), None);
}

#[test]
fn of_many_retried_together_those_named_stay_in_quarantine() {
    let mut rejections = Rejections::default();
    for name in ["a", "b", "c"] {
        rejections.add(suspects(&[name], "in use"), AT);
    }
    let later = AT + FIRST_RETRY;
    assert_eq!(rejections.next_trial(later), Some(names(&["a", "b", "c"])));
    let blamed = rejections.add(suspects(&["a", "b", "c"], "a: in use, c: in use"), later);
    assert!(blamed.is_empty(), "they were known");
    assert_eq!(rejections.next_trial(later), Some(names(&["b"])));
    assert_eq!(rejections.next_trial(later), None);
}

#[test]
fn a_long_reason_is_cut() {
    let mut rejections = Rejections::default();
    rejections.add(suspects(&["a"], &"ü".repeat(10_000)), AT);
    let (_, known) = rejections.quarantined().next().unwrap();
    assert!(known.reason.len() <= REASON_LIMIT);
}

fn suspects<'a>(of: &[&str], reason: &'a str) -> Suspects<'a> {
    let names = names(of).into_iter().map(|it| (it, Version::new(1))).collect();
    Suspects { names, had_more: false, reason }
}

fn names(of: &[&str]) -> Vec<Name> {
    of.iter().map(|it| Name::from(*it)).collect()
}
