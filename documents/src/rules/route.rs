//! Routes: which names a virtual host answers to, and where requests go.

use std::collections::BTreeMap;

use prost_reflect::DynamicMessage;

use super::{Rule, Whose, if_so};
use crate::{
    field::{list, name, number, sub, text, texts},
    path::Path,
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "domains",
        whose: Whose::Everybody,
        message: "envoy.config.route.v3.RouteConfiguration",
        check: domains_of_two_hosts,
        fix: "leave it to one virtual host",
    },
    Rule {
        id: "domain-wildcard",
        whose: Whose::Everybody,
        message: "envoy.config.route.v3.VirtualHost",
        check: wildcards_in_the_middle,
        fix: "begin or end it with the asterisk, as in *.example.com",
    },
    Rule {
        id: "weights",
        whose: Whose::Everybody,
        message: "envoy.config.route.v3.WeightedCluster",
        check: weights_without_a_sum,
        fix: "let the weights add up to more than 0, and less than 2^32",
    },
    Rule {
        id: "grpc-virtual-host",
        whose: Whose::Grpc,
        message: "envoy.config.listener.v3.Listener",
        check: no_host_for_the_listener,
        fix: "add the name of the listener, or \"*\", to the domains of a virtual host",
    },
];

fn domains_of_two_hosts(path: &Path, routes: &DynamicMessage) -> Vec<(Path, String)> {
    let mut found = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (index, host) in list(routes, "virtual_hosts").iter().enumerate() {
        for (position, domain) in texts(host, "domains").iter().enumerate() {
            if let Some(first) = seen.insert(domain.to_ascii_lowercase(), index) {
                let at = path.field("virtual_hosts").index(index).field("domains").index(position);
                found.push((at, format!("{domain:?} is a domain of virtual_hosts[{first}] too")));
            }
        }
    }
    found
}

fn wildcards_in_the_middle(path: &Path, host: &DynamicMessage) -> Vec<(Path, String)> {
    let domains = texts(host, "domains");
    let odd = domains.iter().enumerate().filter(|(_, domain)| {
        let inner = domain.strip_prefix('*').or_else(|| domain.strip_suffix('*'));
        inner.unwrap_or(domain).contains('*')
    });
    odd.map(|(index, domain)| {
        (path.field("domains").index(index), format!("{domain:?} has its asterisk in the middle"))
    })
    .collect()
}

fn weights_without_a_sum(path: &Path, weighted: &DynamicMessage) -> Vec<(Path, String)> {
    let clusters = list(weighted, "clusters");
    let sum: u64 = clusters.iter().filter_map(|it| number(it, "weight")).sum();
    let is_wrong = sum == 0 || sum > u64::from(u32::MAX);
    if_so(!clusters.is_empty() && is_wrong, path.field("clusters"), format!("weighs {sum} in all"))
}

/// `xds:///NAME` asks for the listener NAME, then for a virtual host of that name.
fn no_host_for_the_listener(path: &Path, listener: &DynamicMessage) -> Vec<(Path, String)> {
    let manager = sub(listener, "api_listener").and_then(|it| sub(&it, "api_listener"));
    let manager = manager.filter(|it| name(it) == super::listener::MANAGER);
    let Some(routes) = manager.and_then(|it| sub(&it, "route_config")) else { return Vec::new() };
    let listener = text(listener, "name");
    // Of an xdstp:// name the last part is what the channel dials.
    let authority = listener.rsplit('/').next().unwrap_or_default();
    let hosts = list(&routes, "virtual_hosts");
    let answers = hosts.iter().flat_map(|it| texts(it, "domains")).any(|it| covers(&it, authority));
    let cause = format!("has no virtual host for {authority:?}, which its clients dial");
    let fields = ["api_listener", "api_listener", "route_config", "virtual_hosts"];
    let at = fields.iter().fold(path.clone(), |path, field| path.field(field));
    if_so(!answers, at, cause)
}

fn covers(domain: &str, authority: &str) -> bool {
    let (domain, authority) = (domain.to_ascii_lowercase(), authority.to_ascii_lowercase());
    if let Some(suffix) = domain.strip_prefix('*') {
        return authority.ends_with(suffix)
            && (suffix.is_empty() || authority.len() > suffix.len());
    }
    match domain.strip_suffix('*') {
        Some(prefix) => authority.starts_with(prefix) && authority.len() > prefix.len(),
        None => domain == authority,
    }
}
