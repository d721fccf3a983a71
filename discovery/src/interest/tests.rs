use envoy_types::pb::envoy::config::listener::v3::Listener;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::resource::{Resource, ResourceChange};

const KIND: ResourceType = ResourceType::Listener;
const OTHER: ResourceType = ResourceType::Route;

#[test]
fn only_who_wants_a_change_is_marked() {
    let mut interest = Interest::new(Snapshot::empty());
    let [all, one, other, none] = [(); 4].map(|()| interest.open());
    wish(&mut interest, all, Wish::All(KIND));
    wish(&mut interest, one, Wish::Name(KIND, "a".into()));
    wish(&mut interest, other, Wish::Name(OTHER, "a".into()));

    assert_eq!(publish(&mut interest, [put("a", 1)]), [all, one]);
    assert!(publish(&mut interest, [put("a", 2)]).is_empty(), "they are marked");
    for (stream, since) in [(all, Some(0)), (one, Some(0)), (other, None), (none, None)] {
        let latest = interest.take(stream);
        assert_eq!(latest.since.map(|it| it.revision()), since);
        assert_eq!(latest.snapshot.revision(), 2);
        assert!(!interest.is_marked(stream));
    }
    assert_eq!(publish(&mut interest, [put("b", 1)]), [all]);
    assert_eq!(interest.take(all).since.map(|it| it.revision()), Some(2));
}

#[test]
fn what_is_in_no_wildcard_concerns_who_names_it() {
    let mut interest = Interest::new(Snapshot::empty());
    let [all, one] = [(); 2].map(|()| interest.open());
    wish(&mut interest, all, Wish::All(KIND));
    wish(&mut interest, one, Wish::Name(KIND, "a".into()));
    let hidden = |content| ResourceChange::Put(resource("a", content).not_in_wildcard());
    assert_eq!(publish(&mut interest, [hidden(1)]), [one]);
    interest.take(one);
    assert_eq!(publish(&mut interest, [put("a", 1)]), [all, one], "it joins the wildcard");
    interest.take(all);
    interest.take(one);
    assert_eq!(publish(&mut interest, [hidden(2)]), [all, one], "it leaves the wildcard");
}

#[test]
fn who_has_taken_its_wishes_back_is_left_alone() {
    let mut interest = Interest::new(Snapshot::empty());
    let stream = interest.open();
    for (wanted, unwanted) in [
        (Wish::All(KIND), Wish::NotAll(KIND)),
        (Wish::Name(KIND, "a".into()), Wish::NoName(KIND, "a".into())),
    ] {
        wish(&mut interest, stream, wanted);
        wish(&mut interest, stream, unwanted);
    }
    assert!(publish(&mut interest, [put("a", 1)]).is_empty());
    assert!(interest.types.iter().all(Wanting::is_empty), "nothing is left");
}

#[test]
fn a_wish_that_crosses_a_change_is_told_of_it() {
    let mut interest = Interest::new(Snapshot::empty());
    let stream = interest.open();
    let seen = interest.take(stream).snapshot;
    publish(&mut interest, [put("a", 1)]);
    assert!(interest.wish(stream, vec![Wish::Name(KIND, "a".into())], &seen));
    assert_eq!(interest.take(stream).since.map(|it| it.revision()), Some(0));
}

#[test]
fn numbers_are_used_again_from_the_lowest() {
    let mut random = StdRng::seed_from_u64(7);
    let mut interest = Interest::new(Snapshot::empty());
    let mut open = std::collections::BTreeSet::new();
    for _ in 0..2_000 {
        if open.is_empty() || random.random_bool(0.6) {
            let lowest = (0..).find(|it| !open.contains(it)).unwrap();
            assert_eq!(interest.open(), lowest);
            open.insert(lowest);
        } else {
            let at = random.random_range(0..open.len());
            let number = *open.iter().nth(at).unwrap();
            interest.close(number);
            open.remove(&number);
        }
    }
}

fn wish(interest: &mut Interest, stream: StreamNumber, wish: Wish) {
    let seen = interest.latest().clone();
    assert!(!interest.wish(stream, vec![wish], &seen));
}

fn publish<const N: usize>(
    interest: &mut Interest,
    changes: [ResourceChange; N],
) -> Vec<StreamNumber> {
    let next = interest.latest().with_changes(interest.latest().revision() + 1, changes);
    interest.publish(next)
}

fn put(name: &str, content: u64) -> ResourceChange {
    ResourceChange::Put(resource(name, content))
}

fn resource(name: &str, content: u64) -> Resource {
    let message = Listener { name: content.to_string(), ..Listener::default() };
    Resource::new(KIND, name, &message)
}
