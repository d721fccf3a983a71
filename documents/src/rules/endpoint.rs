//! Load assignments: localities, their weights, and the addresses in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use prost_reflect::DynamicMessage;

use super::{Rule, Whose, if_so};
use crate::{
    field::{has, list, number, sub, text},
    path::Path,
};

const ASSIGNMENT: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "endpoint-ip",
        whose: Whose::Everybody,
        message: ASSIGNMENT,
        check: names_for_addresses,
        fix: "write IP addresses; names belong into a cluster of type STRICT_DNS or LOGICAL_DNS",
    },
    Rule {
        id: "locality-weights",
        whose: Whose::Everybody,
        message: ASSIGNMENT,
        check: weights_beyond_bounds,
        fix: "let the weights of a priority add up to less than 2^32",
    },
    Rule {
        id: "grpc-locality",
        whose: Whose::Grpc,
        message: ASSIGNMENT,
        check: |path, it| each(path, it, |locality| !has(locality, "locality"), "has no locality"),
        fix: "give each a locality, if need be `locality: {}`",
    },
    Rule {
        id: "grpc-locality-weight",
        whose: Whose::Grpc,
        message: ASSIGNMENT,
        check: |path, it| {
            let weightless =
                |it: &DynamicMessage| number(it, "load_balancing_weight").unwrap_or(0) == 0;
            each(path, it, weightless, "has no load_balancing_weight, and gRPC drops it in silence")
        },
        fix: "give each locality a load_balancing_weight (A27)",
    },
    Rule {
        id: "grpc-priorities",
        whose: Whose::Grpc,
        message: ASSIGNMENT,
        check: priorities_with_gaps,
        fix: "number priorities from 0 on, without a gap (A27)",
    },
    Rule {
        id: "grpc-localities",
        whose: Whose::Grpc,
        message: ASSIGNMENT,
        check: localities_twice,
        fix: "merge what has the same locality and priority (A27)",
    },
    Rule {
        id: "grpc-addresses",
        whose: Whose::Grpc,
        message: ASSIGNMENT,
        check: addresses_twice,
        fix: "leave the address to one endpoint (A61)",
    },
];

fn each(
    path: &Path,
    assignment: &DynamicMessage,
    is_wrong: impl Fn(&DynamicMessage) -> bool,
    cause: &str,
) -> Vec<(Path, String)> {
    let localities = list(assignment, "endpoints");
    let wrong = localities.iter().enumerate().filter(|(_, it)| is_wrong(it));
    wrong.map(|(index, _)| (path.field("endpoints").index(index), cause.to_owned())).collect()
}

/// Every endpoint's socket address, with the way to it.
fn addresses(path: &Path, assignment: &DynamicMessage) -> Vec<(Path, DynamicMessage)> {
    let mut found = Vec::new();
    for (index, locality) in list(assignment, "endpoints").iter().enumerate() {
        for (position, it) in list(locality, "lb_endpoints").iter().enumerate() {
            let address = sub(it, "endpoint").and_then(|it| sub(&it, "address"));
            let Some(socket) = address.and_then(|it| sub(&it, "socket_address")) else { continue };
            let at = path.field("endpoints").index(index).field("lb_endpoints").index(position);
            let at = at.field("endpoint").field("address").field("socket_address");
            found.push((at, socket));
        }
    }
    found
}

fn names_for_addresses(path: &Path, assignment: &DynamicMessage) -> Vec<(Path, String)> {
    // Within a cluster the assignment may be one of names.
    if *path != Path::default() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, socket) in addresses(path, assignment) {
        let address = text(&socket, "address");
        let is_name = address.parse::<IpAddr>().is_err() && !address.is_empty();
        if is_name && text(&socket, "resolver_name").is_empty() {
            found.push((at.field("address"), format!("{address:?} is no IP address")));
        }
    }
    found
}

fn weights_beyond_bounds(path: &Path, assignment: &DynamicMessage) -> Vec<(Path, String)> {
    let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
    for locality in list(assignment, "endpoints") {
        let priority = number(&locality, "priority").unwrap_or_default();
        let weight = number(&locality, "load_balancing_weight").unwrap_or_default();
        *sums.entry(priority).or_default() += weight;
    }
    let wrong = sums.into_iter().find(|(_, sum)| *sum > u64::from(u32::MAX));
    let cause = wrong.map(|(priority, sum)| format!("priority {priority} weighs {sum} in all"));
    cause.map(|it| (path.field("endpoints"), it)).into_iter().collect()
}

fn priorities_with_gaps(path: &Path, assignment: &DynamicMessage) -> Vec<(Path, String)> {
    let localities = list(assignment, "endpoints");
    let priorities: BTreeSet<u64> =
        localities.iter().map(|it| number(it, "priority").unwrap_or_default()).collect();
    let gap = (0..).zip(&priorities).find(|(expected, it)| expected != *it);
    let cause = gap.map(|(expected, it)| format!("has priority {it}, but not {expected}"));
    cause.map(|it| (path.field("endpoints"), it)).into_iter().collect()
}

fn localities_twice(path: &Path, assignment: &DynamicMessage) -> Vec<(Path, String)> {
    let mut found = Vec::new();
    let mut seen: Vec<(u64, DynamicMessage)> = Vec::new();
    for (index, it) in list(assignment, "endpoints").iter().enumerate() {
        let Some(locality) = sub(it, "locality") else { continue };
        let key = (number(it, "priority").unwrap_or_default(), locality);
        let at = path.field("endpoints").index(index).field("locality");
        found.extend(if_so(seen.contains(&key), at, "stands twice in its priority"));
        seen.push(key);
    }
    found
}

fn addresses_twice(path: &Path, assignment: &DynamicMessage) -> Vec<(Path, String)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (at, socket) in addresses(path, assignment) {
        let address = (text(&socket, "address"), number(&socket, "port_value").unwrap_or_default());
        let cause = format!("{}:{} is the address of two endpoints", address.0, address.1);
        found.extend(if_so(!seen.insert(address), at, cause));
    }
    found
}
