//! What clients refuse beyond protobuf's constraints, by kind of client.
//!
//! A rule for all clients or for Envoy is an error wherever the resource can reach such a client:
//! Envoy asks for all listeners and clusters, and one that is bad spoils the rest of its response.
//! A gRPC client gets only what it asks for by name. So a rule for gRPC is an error where the
//! selector names gRPC clients, a warning where a listener made for gRPC leads to the resource, and
//! silent otherwise.

mod cluster;
mod endpoint;
mod listener;
mod route;

use prost_reflect::DynamicMessage;

use crate::{
    field,
    findings::Findings,
    path::Path,
    problem::Severity,
    selector::{ClientKind, Selector},
    walk::walk,
};
pub(crate) use listener::is_grpc_listener;

/// Whose rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Everybody,
    Envoy,
    Grpc,
}

/// A rule for one type of message, wherever in a resource it stands.
struct Rule {
    id: &'static str,
    whose: Whose,
    message: &'static str,
    /// What is wrong, and where.
    check: fn(&Path, &DynamicMessage) -> Vec<(Path, String)>,
    fix: &'static str,
}

pub(crate) fn check(
    message: &DynamicMessage,
    selector: &Selector,
    is_meant_for_grpc: bool,
    findings: &mut Findings<'_>,
) {
    walk(message, &mut |path, message| {
        let name = field::name(message);
        for rule in all().filter(|it| it.message == name) {
            let Some(severity) = severity(rule.whose, selector, is_meant_for_grpc) else {
                continue;
            };
            for (at, cause) in (rule.check)(path, message) {
                findings.add(severity, &at, rule.id, cause, rule.fix.to_owned());
            }
        }
    });
}

fn severity(whose: Whose, selector: &Selector, is_meant_for_grpc: bool) -> Option<Severity> {
    match whose {
        Whose::Everybody => Some(Severity::Error),
        Whose::Envoy => selector.reaches(ClientKind::Envoy).then_some(Severity::Error),
        Whose::Grpc if selector.kinds.contains(&ClientKind::Grpc) => Some(Severity::Error),
        Whose::Grpc => {
            let is_warned = is_meant_for_grpc && selector.reaches(ClientKind::Grpc);
            is_warned.then_some(Severity::Warning)
        }
    }
}

fn all() -> impl Iterator<Item = &'static Rule> {
    let tables = [listener::RULES, route::RULES, cluster::RULES, endpoint::RULES];
    tables.into_iter().flatten()
}

/// For checks that find one thing or nothing.
fn if_so(holds: bool, at: Path, cause: impl Into<String>) -> Vec<(Path, String)> {
    if holds { vec![(at, cause.into())] } else { Vec::new() }
}

#[cfg(test)]
pub(crate) fn ids() -> Vec<(&'static str, &'static str)> {
    all().map(|it| (it.id, it.message)).collect()
}
