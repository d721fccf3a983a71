//! Checks of many resources together, as one client would see them.
//!
//! Whether a client can see two resources is told from their selectors: who is connected today says
//! nothing of tomorrow. Each function takes the set as it would be after the change, resources that
//! were there before among it.

mod guard;

use std::collections::{BTreeMap, BTreeSet};

pub use guard::{Guard, Held};

use crate::{
    problem::{Place, Problem, Severity},
    resource::Resource,
    selector::Selector,
    types::short,
};

/// Bytes of one type that one client gets, from which on it is warned. Clients that take whole sets
/// refuse messages beyond 4 MiB.
pub const SIZE_WARNING: usize = 3 << 20;

/// What a resource costs in a response beside its bytes, its name and its type, at most.
const FRAMING: usize = 32;

/// Resources of one type and name that one client would be sent both of.
pub fn duplicates(resources: &[Resource]) -> Vec<Problem> {
    let mut named: BTreeMap<(&str, &str), Vec<&Resource>> = BTreeMap::new();
    let mut problems = Vec::new();
    for resource in resources {
        let earlier = named.entry((resource.type_url, &resource.name)).or_default();
        if let Some(first) = earlier.iter().find(|it| it.selector.overlaps(&resource.selector)) {
            problems.push(Problem {
                severity: Severity::Error,
                place: resource.place.clone(),
                rule: "duplicate",
                cause: format!(
                    "the {} {:?} is also in {}",
                    short(resource.type_url),
                    resource.name,
                    first.place
                ),
                fix: "leave one of them, or give them selectors that exclude each other".to_owned(),
            });
        }
        earlier.push(resource);
    }
    problems
}

/// Listeners that one client would have to bind to one address.
pub fn clashes(resources: &[Resource]) -> Vec<Problem> {
    let mut bound: BTreeMap<(&str, &str, u64), Vec<&Resource>> = BTreeMap::new();
    let mut problems = Vec::new();
    for resource in resources {
        for socket in &resource.sockets {
            let key = (socket.protocol.as_str(), socket.address.as_str(), socket.port);
            let earlier = bound.entry(key).or_default();
            let other = earlier.iter().find(|it| {
                let is_another = it.name != resource.name || std::ptr::eq(**it, resource);
                is_another && it.selector.overlaps(&resource.selector)
            });
            if let Some(other) = other {
                let line = socket.line;
                let field = socket.field.clone();
                problems.push(Problem {
                    severity: Severity::Error,
                    place: Place { line, field, ..resource.place.clone() },
                    rule: "port-clash",
                    cause: format!(
                        "{} {}:{} is bound by the listener {:?} of {} too",
                        socket.protocol, socket.address, socket.port, other.name, other.place
                    ),
                    fix: "take another port, or selectors that exclude each other".to_owned(),
                });
            }
            earlier.push(resource);
        }
    }
    problems
}

/// References that lead nowhere. `exists` says what there is beside these resources: what is
/// generated, and what clients have in their bootstrap.
pub fn dangling(resources: &[Resource], exists: impl Fn(&str, &str) -> bool) -> Vec<Problem> {
    let mut selectors: BTreeMap<(&str, &str), Vec<&Selector>> = BTreeMap::new();
    for it in resources {
        selectors.entry((it.type_url, &it.name)).or_default().push(&it.selector);
    }
    let mut problems = Vec::new();
    for resource in resources {
        for reference in resource.references.iter().filter(|it| it.is_required) {
            let reachable = |selectors: &Vec<&Selector>| {
                selectors.iter().any(|it| it.overlaps(&resource.selector))
            };
            let name = reference.name.as_str();
            let is_there = match name.strip_suffix('*') {
                Some(prefix) => selectors.iter().any(|((type_url, name), it)| {
                    *type_url == reference.type_url && name.starts_with(prefix) && reachable(it)
                }),
                None => selectors.get(&(reference.type_url, name)).is_some_and(reachable),
            };
            if is_there || exists(reference.type_url, name) {
                continue;
            }
            let kind = short(reference.type_url);
            problems.push(Problem {
                severity: Severity::Error,
                place: Place {
                    line: reference.line,
                    field: reference.field.clone(),
                    ..resource.place.clone()
                },
                rule: "dangling",
                cause: format!("names the {kind} {name:?}, which its clients are not sent"),
                fix: format!("add the {kind}, or correct the name"),
            });
        }
    }
    problems
}

/// Sets of one type that are too large to be sent whole.
pub fn oversized(resources: &[Resource]) -> Vec<Problem> {
    let mut sizes: BTreeMap<(&str, &Selector), usize> = BTreeMap::new();
    for it in resources {
        let size = it.bytes.len() + it.name.len() + it.type_url.len() + FRAMING;
        *sizes.entry((it.type_url, &it.selector)).or_default() += size;
    }
    let mut problems = Vec::new();
    let mut warned = BTreeSet::new();
    for resource in resources {
        let overlapping = sizes.iter().filter(|((type_url, selector), _)| {
            *type_url == resource.type_url && selector.overlaps(&resource.selector)
        });
        // At most: two selectors that overlap with a third need not overlap each other.
        let size: usize = overlapping.map(|(_, size)| size).sum();
        if size > SIZE_WARNING && warned.insert((resource.type_url, &resource.selector)) {
            problems.push(Problem {
                severity: Severity::Warning,
                place: resource.place.clone(),
                rule: "size",
                cause: format!(
                    "a client can be sent {size} bytes of type {}, and refuses 4 MiB at once",
                    short(resource.type_url)
                ),
                fix: "give clients less by selectors, or let them use delta xDS".to_owned(),
            });
        }
    }
    problems
}

/// Resources that take the place of generated ones. That is allowed, and said.
pub fn overrides(
    resources: &[Resource],
    is_generated: impl Fn(&str, &str) -> bool,
) -> Vec<Problem> {
    let overriding = resources.iter().filter(|it| is_generated(it.type_url, &it.name));
    overriding
        .map(|it| Problem {
            severity: Severity::Warning,
            place: it.place.clone(),
            rule: "override",
            cause: format!("replaces the generated {} {:?}", short(it.type_url), it.name),
            fix: "take another name if that is not meant".to_owned(),
        })
        .collect()
}
