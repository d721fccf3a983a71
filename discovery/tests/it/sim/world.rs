//! A source of snapshots, in place of a registry.

use std::collections::{BTreeMap, BTreeSet};

use discovery::interest::Interest;
use discovery::lease::Time;
use discovery::resource::{Resource, ResourceChange, ResourceType};
use discovery::snapshot::Snapshot;
use rand::prelude::*;

use crate::fixture::resource;

/// Services that are added and removed. Each has a cluster, endpoints, a listener in the wildcard,
/// a listener that must be named, and a route. One more route leads to all of them.
///
/// Texts begin with a number that grows with every change of the resource; `bad` before the number
/// makes picky clients reject it. The names that a listener or route uses follow.
#[derive(Debug)]
pub(crate) struct World {
    pub interest: Interest,
    pub now: Time,
    services: BTreeSet<String>,
    /// By service: another service that its route leads to as well.
    detours: BTreeMap<String, String>,
    without_endpoints: BTreeSet<String>,
    texts: BTreeMap<(ResourceType, String), Text>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Text {
    touched: u64,
    bad: bool,
    uses: String,
}

pub(crate) const SERVICES: [&str; 5] = ["s0", "s1", "s2", "s3", "s4"];

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self {
            interest: Interest::new(Snapshot::empty()),
            now: Time::ZERO,
            services: BTreeSet::new(),
            detours: BTreeMap::new(),
            without_endpoints: BTreeSet::new(),
            texts: BTreeMap::new(),
        };
        world.publish(None);
        world
    }

    pub(crate) const fn snapshot(&self) -> &Snapshot {
        self.interest.latest()
    }

    pub(crate) fn step(&mut self, rng: &mut StdRng) {
        let mut touched = None;
        for _ in 0..rng.random_range(1..4) {
            let service = (*SERVICES.choose(rng).expect("not empty")).to_owned();
            match rng.random_range(0..10) {
                0..2 => {
                    if !self.services.remove(&service) {
                        self.services.insert(service);
                    }
                }
                2 => {
                    let other = (*SERVICES.choose(rng).expect("not empty")).to_owned();
                    self.detours.insert(service, other);
                }
                3 => {
                    if !self.without_endpoints.remove(&service) {
                        self.without_endpoints.insert(service);
                    }
                }
                4 => {
                    self.publish_anew();
                }
                5 => self.step_without_change(),
                _ => {
                    let keys: Vec<_> = self.texts.keys().cloned().collect();
                    touched = keys.choose(rng).cloned().map(|key| (key, rng.random_bool(0.2)));
                }
            }
        }
        self.publish(touched);
    }

    pub(crate) fn step_without_change(&mut self) {
        self.interest.publish(self.snapshot().with_changes(self.snapshot().revision() + 1, []));
    }

    /// Publishes the same content without the steps that led to it.
    fn publish_anew(&mut self) {
        let puts: Vec<_> = self.texts.iter().map(|(key, text)| put(key, text)).collect();
        let anew = Snapshot::empty().with_changes(self.snapshot().revision() + 1, puts);
        self.interest.publish(anew);
    }

    fn publish(&mut self, touched: Option<((ResourceType, String), bool)>) {
        let revision = self.snapshot().revision() + 1;
        let mut texts = BTreeMap::new();
        for (key, uses) in self.wanted() {
            let touch = touched.as_ref().filter(|(it, _)| *it == key);
            let text = match self.texts.get(&key) {
                Some(old) if touch.is_none() && old.uses == uses => old.clone(),
                _ => Text { touched: revision, bad: touch.is_some_and(|(_, bad)| *bad), uses },
            };
            texts.insert(key, text);
        }
        let gone = self.texts.keys().filter(|key| !texts.contains_key(*key));
        let mut changes: Vec<_> =
            gone.map(|(kind, name)| ResourceChange::Remove(*kind, name.as_str().into())).collect();
        let changed = texts.iter().filter(|(key, text)| self.texts.get(*key) != Some(*text));
        changes.extend(changed.map(|(key, text)| put(key, text)));
        self.texts = texts;
        self.interest.publish(self.snapshot().with_changes(revision, changes));
    }

    fn wanted(&self) -> BTreeMap<(ResourceType, String), String> {
        let mut wanted = BTreeMap::new();
        for service in &self.services {
            wanted.insert((ResourceType::Cluster, service.clone()), String::new());
            if !self.without_endpoints.contains(service) {
                wanted.insert((ResourceType::Endpoints, service.clone()), String::new());
            }
            wanted.insert((ResourceType::Listener, service.clone()), service.clone());
            wanted.insert((ResourceType::Listener, format!("sidecar/{service}")), service.clone());
            let detour = self.detours.get(service).filter(|it| self.services.contains(*it));
            let uses: Vec<&str> =
                std::iter::once(service).chain(detour).map(String::as_str).collect();
            wanted.insert((ResourceType::Route, service.clone()), uses.join(" "));
        }
        let all: Vec<&str> = self.services.iter().map(String::as_str).collect();
        wanted.insert((ResourceType::Route, "ingress".to_owned()), all.join(" "));
        wanted.insert((ResourceType::Listener, "front".to_owned()), "ingress".to_owned());
        wanted
    }
}

fn put((kind, name): &(ResourceType, String), text: &Text) -> ResourceChange {
    let bad = if text.bad { "bad" } else { "" };
    let resource: Resource = resource(*kind, name, &format!("{bad}{} {}", text.touched, text.uses));
    let is_api = *kind == ResourceType::Listener && SERVICES.contains(&name.as_str());
    ResourceChange::Put(if is_api { resource.not_in_wildcard() } else { resource })
}

pub(crate) fn is_bad(text: &str) -> bool {
    text.starts_with("bad")
}

/// The number of a text.
pub(crate) fn touched(text: &str) -> u64 {
    let number = text.trim_start_matches("bad").split(' ').next().expect("a first word");
    number.parse().expect("a number")
}

/// The names that follow the number.
pub(crate) fn uses(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').skip(1).filter(|it| !it.is_empty())
}
