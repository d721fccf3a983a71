use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const KIND: ResourceType = ResourceType::Route;

#[test]
fn the_type_version_does_not_depend_on_the_path() {
    let direct = Snapshot::empty().with_changes(9, [put("a", 1), put("b", 2)]);
    let detour = Snapshot::empty()
        .with_changes(1, [put("b", 1), put("c", 3)])
        .with_changes(2, [put("b", 2), remove("c")])
        .with_changes(9, [put("a", 1)]);
    assert_eq!(direct.type_version(KIND), detour.type_version(KIND));

    let emptied = direct.with_changes(10, [remove("a"), remove("b")]);
    assert_eq!(emptied.type_version(KIND), Snapshot::empty().type_version(KIND));
    assert_ne!(direct.type_version(KIND), emptied.type_version(KIND));
}

#[test]
fn swapped_contents_have_another_type_version() {
    let one = Snapshot::empty().with_changes(1, [put("a", 1), put("b", 2)]);
    let swapped = Snapshot::empty().with_changes(1, [put("a", 2), put("b", 1)]);
    assert_ne!(one.type_version(KIND), swapped.type_version(KIND));
}

#[test]
fn an_unchanged_resource_is_no_change() {
    let first = Snapshot::empty().with_changes(1, [put("a", 1)]);
    let second = first.with_changes(2, [put("a", 1), remove("nosuch")]);
    assert_eq!(second.revision(), 2);
    assert_eq!(changed(&second, &first), names([]));
    assert!(!second.differs_from(&first));
    assert!(second.with_changes(3, [put("a", 2)]).differs_from(&first));
}

#[test]
fn leaving_the_wildcard_set_is_a_change() {
    let first = Snapshot::empty().with_changes(1, [put("a", 1)]);
    let hidden = ResourceChange::Put(resource("a", 1).not_in_wildcard());
    let second = first.with_changes(2, [hidden]);
    assert_eq!(changed(&second, &first), names(["a"]));
}

#[test]
fn changes_are_found_over_several_steps() {
    let first = Snapshot::empty().with_changes(1, [put("a", 1), put("b", 1)]);
    let second = first.with_changes(2, [put("a", 2)]);
    let third = second.with_changes(3, [put("c", 1), remove("b")]);
    assert_eq!(changed(&third, &first), names(["a", "b", "c"]));
    assert_eq!(changed(&third, &second), names(["b", "c"]));
    assert_eq!(changed(&third, &third), names([]));
}

#[test]
fn changes_are_found_beyond_what_is_remembered() {
    let first = Snapshot::empty().with_changes(1, [put("a", 1), put("b", 1), put("gone", 1)]);
    let mut last = first.with_changes(2, [put("a", 2), remove("gone")]);
    for revision in 3..100 {
        last = last.with_changes(revision, [put("busy", revision)]);
    }
    assert_eq!(changed(&last, &first), names(["a", "busy", "gone"]));
}

#[test]
fn a_snapshot_built_anew_is_compared_in_full() {
    let old = Snapshot::empty().with_changes(5, [put("a", 1), put("gone", 1)]);
    let anew = Snapshot::empty().with_changes(8, [put("a", 1), put("b", 1)]);
    assert_eq!(changed(&anew, &old), names(["b", "gone"]));
}

/// Random changes beside a plain map: what there is, and what changed since any snapshot before.
#[test]
fn snapshots_are_as_a_plain_map_has_it() {
    const REVISIONS: u64 = 200;
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        let mut history = vec![(Snapshot::empty(), model.clone())];
        for revision in 1..=REVISIONS {
            let mut changes = Vec::new();
            for _ in 0..random.random_range(0..8) {
                let name = format!("name-{}", random.random_range(0..500));
                if random.random_bool(0.3) {
                    model.remove(&name);
                    changes.push(remove(&name));
                } else {
                    let content = random.random_range(0..3);
                    changes.push(put(&name, content));
                    model.insert(name, content);
                }
            }
            let next = history.last().unwrap().0.with_changes(revision, changes);
            history.push((next, model.clone()));
        }
        let (last, model) = history.last().unwrap();
        let held: Vec<Resource> = last.resources(KIND).cloned().collect();
        let expected: Vec<Resource> =
            model.iter().map(|(name, content)| resource(name, *content)).collect();
        assert_eq!(held, expected, "seed {seed}");
        assert_eq!(last.type_version(KIND), version_of(&expected), "seed {seed}");
        // Beyond the remembered steps a name that changed back is left out.
        for (earlier, then) in &history[..history.len() - REMEMBERED_STEPS - 1] {
            let differs = |name: &&String| model.get(*name) != then.get(*name);
            let expected: BTreeSet<Name> = (model.keys().chain(then.keys()))
                .filter(differs)
                .map(|name| Name::from(name.as_str()))
                .collect();
            assert_eq!(changed(last, earlier), expected, "seed {seed}");
        }
    }
}

fn changed(later: &Snapshot, earlier: &Snapshot) -> BTreeSet<Name> {
    later.changed_since(earlier, KIND).iter().cloned().collect()
}

fn put(name: &str, content: u64) -> ResourceChange {
    ResourceChange::Put(resource(name, content))
}

fn remove(name: &str) -> ResourceChange {
    ResourceChange::Remove(KIND, name.into())
}

fn resource(name: &str, content: u64) -> Resource {
    let message = RouteConfiguration { name: content.to_string(), ..RouteConfiguration::default() };
    Resource::new(KIND, name, &message)
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<Name> {
    names.into_iter().map(Name::from).collect()
}
