use envoy_types::pb::envoy::config::listener::v3::Listener;

use super::*;
use crate::resource::ResourceChange;

const KIND: ResourceType = ResourceType::Listener;

#[test]
fn a_name_is_due_until_it_is_taken() {
    let snapshot = snapshot(&["a"]);
    let mut subscription = asking(&["a", "nosuch"], &snapshot);
    assert_eq!(subscription.due("a", &snapshot), Due::Put(&listener("a")));
    assert_eq!(subscription.due("nosuch", &snapshot), Due::Absent);
    assert_eq!(subscription.due("never", &snapshot), Due::Nothing);

    let batch = take(&mut subscription, &snapshot).unwrap();
    assert_eq!(batch.puts, [listener("a")]);
    assert_eq!(batch.gone, ["nosuch".into()]);
    assert_eq!(subscription.due("a", &snapshot), Due::Nothing);
    assert_eq!(subscription.due("nosuch", &snapshot), Due::Nothing);
    assert!(take(&mut subscription, &snapshot).is_none());
}

#[test]
fn what_the_client_has_is_retired_only_when_it_may_be() {
    let before = snapshot(&["a"]);
    let mut subscription = asking(&["a"], &before);
    take(&mut subscription, &before).unwrap();

    let after = snapshot(&[]);
    subscription.changed(["a".into()], &before);
    assert_eq!(subscription.due("a", &after), Due::Retire);
    assert!(subscription.take(&after, false).is_none());
    assert!(subscription.has_due(&after));
    assert_eq!(take(&mut subscription, &after).unwrap().gone, ["a".into()]);
    assert!(!subscription.has_due(&after));
}

#[test]
fn rejected_content_is_due_again_when_it_changes() {
    let before = snapshot(&["a"]);
    let mut subscription = asking(&["a"], &before);
    take(&mut subscription, &before).unwrap();

    let version = listener("a").version();
    assert!(subscription.reject(&"a".into(), version));
    assert!(!subscription.reject(&"a".into(), version), "it is known");
    assert_eq!(subscription.due("a", &before), Due::Nothing);
    assert_eq!(subscription.rejected("a", &before), Some(&listener("a")));

    let other = listener("other");
    let renamed =
        Resource::new(KIND, "a", &Listener { name: "b".to_owned(), ..Listener::default() });
    let after = Snapshot::empty()
        .with_changes(2, [ResourceChange::Put(renamed.clone()), ResourceChange::Put(other)]);
    assert_eq!(subscription.due("a", &after), Due::Put(&renamed));
    assert_eq!(subscription.rejected("a", &after), None);
}

#[test]
fn a_cluster_that_waits_is_answered_again_whatever_the_answer_was() {
    let snapshot = snapshot(&["a", "b"]);
    let mut subscription = asking(&["a", "b", "missing"], &snapshot);
    take(&mut subscription, &snapshot).unwrap();
    subscription.reject(&"a".into(), listener("a").version());

    for (name, is_asked) in [("a", true), ("b", true), ("missing", true), ("never", false)] {
        assert_eq!(subscription.send_again(&name.into()), is_asked, "{name}");
    }
    let batch = take(&mut subscription, &snapshot).unwrap();
    assert_eq!(batch.puts, [listener("a"), listener("b")]);
    assert_eq!(batch.gone, ["missing".into()]);
}

#[test]
fn the_accepted_version_lasts_through_a_rejection() {
    let snapshot = snapshot(&["a"]);
    let mut subscription = asking(&["a"], &snapshot);
    assert_eq!(subscription.acked("a"), None);
    take(&mut subscription, &snapshot).unwrap();
    let version = listener("a").version();
    subscription.accept(&"a".into(), version);
    subscription.reject(&"a".into(), version);
    assert_eq!(subscription.acked("a"), Some(version));
    subscription.accept(&"never".into(), version);
    assert_eq!(subscription.acked("never"), None);
}

#[test]
fn claims_count_for_what_is_asked() {
    let snapshot = snapshot(&["a", "b", "c"]);
    let mut subscription = asking(&["a", "b", "c", "gone"], &snapshot);
    let versions: Vec<(&str, String)> = ["a", "b", "c", "gone", "other"]
        .into_iter()
        .map(|name| (name, listener(name).version().to_string()))
        .collect();
    let mut claims: Vec<(&str, &str)> =
        versions.iter().map(|(name, version)| (*name, &**version)).collect();
    claims[2].1 = "made up";
    subscription.claim(claims, &BTreeSet::from(["b".into()]));

    let batch = take(&mut subscription, &snapshot).unwrap();
    assert_eq!(batch.puts, [listener("b"), listener("c")]);
    assert_eq!(batch.gone, ["gone".into()]);
}

#[test]
fn hostile_names_are_only_names() {
    let snapshot = snapshot(&["a"]);
    let mut subscription = Subscription::new(ResourceType::Route, Form::Difference);
    let names = ["", "*", "\0", "🦀"].map(str::to_owned);
    subscription.adjust(&names, &names, &snapshot);
    subscription.adjust(&names, &[], &snapshot);
    let batch = take(&mut subscription, &snapshot).unwrap();
    assert_eq!(batch.gone, ["\0".into(), "*".into(), "🦀".into()]);
}

fn asking(names: &[&str], snapshot: &Snapshot) -> Subscription {
    let mut subscription = Subscription::new(KIND, Form::Difference);
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    subscription.adjust(&names, &[], snapshot);
    subscription
}

fn take(subscription: &mut Subscription, snapshot: &Snapshot) -> Option<Batch> {
    subscription.take(snapshot, true)
}

fn snapshot(names: &[&str]) -> Snapshot {
    let puts = names.iter().map(|name| ResourceChange::Put(listener(name)));
    Snapshot::empty().with_changes(1, puts)
}

fn listener(name: &str) -> Resource {
    let message = Listener { name: name.to_owned(), ..Listener::default() };
    Resource::new(KIND, name, &message)
}
