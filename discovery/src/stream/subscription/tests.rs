use envoy_types::pb::envoy::config::listener::v3::Listener;

use super::*;

use crate::resource::ResourceChange;

const KIND: ResourceType = ResourceType::Listener;

#[test]
fn a_name_is_due_until_it_is_taken() {
    let snapshot = snapshot(&["a"]);
    let mut subscription = asking(&["a", "nosuch"], &snapshot);
    assert_eq!(due(&mut subscription), [put("a"), ("nosuch".into(), Due::Absent)]);

    let batch = take(&mut subscription, &snapshot).unwrap();
    assert_eq!(batch.puts, [listener("a")]);
    assert_eq!(batch.gone, ["nosuch"]);
    assert_eq!(due(&mut subscription), []);
    assert!(take(&mut subscription, &snapshot).is_none());
}

#[test]
fn what_the_client_has_is_retired_only_when_it_may_be() {
    let before = snapshot(&["a"]);
    let mut subscription = asking(&["a"], &before);
    take(&mut subscription, &before).unwrap();

    let after = snapshot(&[]);
    subscription.changed(&after.changed_since(&before, KIND), &before, &after);
    assert_eq!(due(&mut subscription), [("a".into(), Due::Retire)]);
    assert!(subscription.take(&after, false).is_none());
    assert!(subscription.has_due());
    assert_eq!(take(&mut subscription, &after).unwrap().gone, ["a"]);
    assert!(!subscription.has_due());
}

#[test]
fn rejected_content_is_due_again_when_it_changes() {
    let before = snapshot(&["a"]);
    let mut subscription = asking(&["a"], &before);
    take(&mut subscription, &before).unwrap();

    let version = listener("a").version();
    assert!(subscription.reject(&"a".into(), version, &before));
    assert!(!subscription.reject(&"a".into(), version, &before), "it is known");
    assert!(!subscription.has_due());
    assert_eq!(subscription.rejected("a", &before), Some(&listener("a")));

    let other = listener("other");
    let after = changed(2).with_changes(3, [ResourceChange::Put(other)]);
    let renamed = after.get(KIND, "a").unwrap().clone();
    subscription.changed(&after.changed_since(&before, KIND), &before, &after);
    assert_eq!(due(&mut subscription), [("a".into(), Due::Put(renamed))]);
    assert_eq!(subscription.rejected("a", &after), None);
}

#[test]
fn a_cluster_that_waits_is_answered_again_whatever_the_answer_was() {
    let snapshot = snapshot(&["a", "b"]);
    let mut subscription = asking(&["a", "b", "missing"], &snapshot);
    take(&mut subscription, &snapshot).unwrap();
    subscription.reject(&"a".into(), listener("a").version(), &snapshot);

    for name in ["a", "b", "missing", "never"] {
        subscription.send_again(&name.into(), &snapshot);
    }
    let batch = take(&mut subscription, &snapshot).unwrap();
    assert_eq!(batch.puts, [listener("a"), listener("b")]);
    assert_eq!(batch.gone, ["missing"]);
}

#[test]
fn the_accepted_version_lasts_through_a_rejection() {
    let (first, second) = (snapshot(&["a"]), changed(2));
    let mut subscription = Subscription::new(KIND, Form::FullSet);
    subscription.begin_unnamed(&first, &mut Vec::new());
    take(&mut subscription, &first).unwrap();
    subscription.accept(&"a".into(), listener("a").version(), &first);
    assert!(subscription.open.is_empty(), "accepted is as the snapshot has it");

    subscription.changed(&second.changed_since(&first, KIND), &first, &second);
    take(&mut subscription, &second).unwrap();
    assert!(subscription.reject(&"a".into(), version_of_a(&second), &second));
    let third = second.with_changes(3, [ResourceChange::Put(listener("b"))]);
    subscription.changed(&third.changed_since(&second, KIND), &second, &third);
    let batch = take(&mut subscription, &third).unwrap();
    assert_eq!(batch.puts, [listener("a"), listener("b")], "what was accepted, and what is new");
}

#[test]
fn a_client_that_has_everything_costs_only_its_names() {
    let first = snapshot(&["a", "b"]);
    for form in [Form::Difference, Form::FullSet, Form::Part] {
        let mut subscription = Subscription::new(KIND, form);
        let names = ["a", "b", "nosuch"].map(str::to_owned);
        subscription.adjust(&names, &[], &first, &mut Vec::new());
        let batch = take(&mut subscription, &first).unwrap();
        for resource in &batch.puts {
            subscription.accept(resource.name(), resource.version(), &first);
        }
        assert!(subscription.is_at_rest(), "{form:?}");
        assert!(!subscription.has_due(), "{form:?}");
    }
}

#[test]
fn a_name_is_shared_with_the_snapshot() {
    let first = snapshot(&["a"]);
    let subscription = asking(&["a"], &first);
    let name = subscription.names.get("a").unwrap();
    assert_eq!(name.as_ptr(), first.name(KIND, "a").unwrap().as_ptr());
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
    subscription.claim(claims, &BTreeSet::from(["b".into()]), &snapshot);

    let batch = take(&mut subscription, &snapshot).unwrap();
    assert_eq!(batch.puts, [listener("b"), listener("c")]);
    assert_eq!(batch.gone, ["gone"]);
}

#[test]
fn hostile_names_are_only_names() {
    let snapshot = snapshot(&["a"]);
    let mut subscription = Subscription::new(ResourceType::Route, Form::Difference);
    let names = ["", "*", "\0", "🦀"].map(str::to_owned);
    subscription.adjust(&names, &names, &snapshot, &mut Vec::new());
    subscription.adjust(&names, &[], &snapshot, &mut Vec::new());
    let batch = take(&mut subscription, &snapshot).unwrap();
    assert_eq!(batch.gone, ["\0", "*", "🦀"]);
}

/// What is due, by name.
fn due(subscription: &mut Subscription) -> Vec<(Name, Due)> {
    let open = subscription.open.take();
    subscription.open.extend(open.clone().into_iter().collect());
    open.into_iter().map(|(name, it)| (name, it.due)).collect()
}

fn put(name: &str) -> (Name, Due) {
    (name.into(), Due::Put(listener(name)))
}

fn asking(names: &[&str], snapshot: &Snapshot) -> Subscription {
    let mut subscription = Subscription::new(KIND, Form::Difference);
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    subscription.adjust(&names, &[], snapshot, &mut Vec::new());
    subscription
}

fn take(subscription: &mut Subscription, snapshot: &Snapshot) -> Option<Batch> {
    subscription.take(snapshot, true)
}

fn snapshot(names: &[&str]) -> Snapshot {
    let puts = names.iter().map(|name| ResourceChange::Put(listener(name)));
    Snapshot::empty().with_changes(1, puts)
}

/// The listener `a` with other content.
fn changed(revision: u64) -> Snapshot {
    let message = Listener { name: "b".to_owned(), ..Listener::default() };
    let put = ResourceChange::Put(Resource::new(KIND, "a", &message));
    snapshot(&["a"]).with_changes(revision, [put])
}

fn version_of_a(snapshot: &Snapshot) -> Version {
    snapshot.get(KIND, "a").unwrap().version()
}

fn listener(name: &str) -> Resource {
    let message = Listener { name: name.to_owned(), ..Listener::default() };
    Resource::new(KIND, name, &message)
}
