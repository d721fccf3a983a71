//! Clusters: where their endpoints come from, and how gRPC balances.

use prost_reflect::DynamicMessage;

use super::{Rule, Whose, if_so};
use crate::{
    field::{choice, has, list, name, sub, text},
    path::Path,
};

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const AGGREGATE: &str = "envoy.extensions.clusters.aggregate.v3.ClusterConfig";
const POLICIES: &str = "envoy.extensions.load_balancing_policies.";

/// Policies that gRPC has, by the packages of their messages.
const GRPC_POLICIES: [&str; 6] = [
    "client_side_weighted_round_robin",
    "least_request",
    "pick_first",
    "ring_hash",
    "round_robin",
    "wrr_locality",
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "eds-config",
        whose: Whose::Everybody,
        message: CLUSTER,
        check: |path, it| {
            let is_bare =
                choice(it, "type") == "EDS" && !has(it, "cluster_type") && eds_config(it).is_none();
            let at = path.field("eds_cluster_config").field("eds_config");
            if_so(is_bare, at, "is missing in a cluster of type EDS")
        },
        fix: "write `eds_config: {ads: {}, resource_api_version: V3}`",
    },
    Rule {
        id: "eds-self",
        whose: Whose::Envoy,
        message: CLUSTER,
        check: |path, it| {
            let is_self = eds_config(it).is_some_and(|it| has(&it, "self"));
            let at = path.field("eds_cluster_config").field("eds_config");
            if_so(is_self, at, "is self, which Envoy refuses there")
        },
        fix: "write `ads: {}`",
    },
    Rule {
        id: "grpc-eds-source",
        whose: Whose::Grpc,
        message: CLUSTER,
        check: |path, it| {
            let is_other = eds_config(it).is_some_and(|it| !has(&it, "ads") && !has(&it, "self"));
            let at = path.field("eds_cluster_config").field("eds_config");
            if_so(is_other, at, "is neither ads nor self")
        },
        fix: "write `ads: {}` (A27)",
    },
    Rule {
        id: "grpc-cluster-type",
        whose: Whose::Grpc,
        message: CLUSTER,
        check: |path, it| {
            let custom = sub(it, "cluster_type");
            let is_known = match &custom {
                Some(custom) => {
                    sub(custom, "typed_config").is_some_and(|it| name(&it) == AGGREGATE)
                }
                None => ["EDS", "LOGICAL_DNS"].contains(&choice(it, "type").as_str()),
            };
            if_so(!is_known, path.field("type"), "is a type that gRPC does not have")
        },
        fix: "use EDS, LOGICAL_DNS, or an aggregate cluster (A37)",
    },
    Rule {
        id: "grpc-lb-policy",
        whose: Whose::Grpc,
        message: CLUSTER,
        check: policy_that_grpc_lacks,
        fix: "use ROUND_ROBIN, LEAST_REQUEST, RING_HASH, or list one that gRPC has (A42, A48)",
    },
    Rule {
        id: "grpc-ring-hash",
        whose: Whose::Grpc,
        message: "envoy.config.cluster.v3.Cluster.RingHashLbConfig",
        check: |path, it| {
            let is_other = choice(it, "hash_function") != "XX_HASH";
            if_so(is_other, path.field("hash_function"), "is not XX_HASH")
        },
        fix: "leave hash_function out (A42)",
    },
    Rule {
        id: "grpc-ring-hash",
        whose: Whose::Grpc,
        message: "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
        check: |path, it| {
            let is_other = choice(it, "hash_function") == "MURMUR_HASH_2";
            if_so(is_other, path.field("hash_function"), "is not XX_HASH")
        },
        fix: "leave hash_function out (A42)",
    },
    Rule {
        id: "grpc-load-reports",
        whose: Whose::Grpc,
        message: CLUSTER,
        check: |path, it| {
            let is_other = sub(it, "lrs_server").is_some_and(|it| !has(&it, "self"));
            if_so(is_other, path.field("lrs_server"), "is another server than this")
        },
        fix: "write `self: {}` (A27)",
    },
    Rule {
        id: "grpc-transport-socket",
        whose: Whose::Grpc,
        message: CLUSTER,
        check: transport_that_grpc_lacks,
        fix: "use UpstreamTlsContext, within Http11ProxyUpstreamTransport or not (A29, A86)",
    },
];

fn eds_config(cluster: &DynamicMessage) -> Option<DynamicMessage> {
    sub(&sub(cluster, "eds_cluster_config")?, "eds_config")
}

fn policy_that_grpc_lacks(path: &Path, cluster: &DynamicMessage) -> Vec<(Path, String)> {
    let Some(policy) = sub(cluster, "load_balancing_policy") else {
        let policy = choice(cluster, "lb_policy");
        let is_known = ["ROUND_ROBIN", "LEAST_REQUEST", "RING_HASH"].contains(&policy.as_str());
        return if_so(!is_known, path.field("lb_policy"), format!("gRPC does not have {policy}"));
    };
    let is_known = list(&policy, "policies").iter().any(|it| {
        let config = sub(it, "typed_extension_config").and_then(|it| sub(&it, "typed_config"));
        config.is_some_and(|it| {
            let name = name(&it);
            let package = name.strip_prefix(POLICIES).and_then(|it| it.split('.').next());
            // What else is written as a struct may be a policy that the application brings.
            package.is_some_and(|it| GRPC_POLICIES.contains(&it)) || name.ends_with(".TypedStruct")
        })
    });
    let at = path.field("load_balancing_policy").field("policies");
    if_so(!is_known, at, "gRPC has none of these policies")
}

fn transport_that_grpc_lacks(path: &Path, cluster: &DynamicMessage) -> Vec<(Path, String)> {
    const TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    const PROXY: &str = "Http11ProxyUpstreamTransport";
    let Some(socket) = sub(cluster, "transport_socket") else { return Vec::new() };
    let at = path.field("transport_socket").field("typed_config");
    let refused = |at: Path, of: &str| (at, format!("gRPC has no transport socket {of}"));
    match sub(&socket, "typed_config") {
        Some(config) if name(&config) == TLS => Vec::new(),
        Some(config) if name(&config).ends_with(PROXY) => {
            let Some(inner) = sub(&config, "transport_socket") else { return Vec::new() };
            let is_tls = sub(&inner, "typed_config").is_some_and(|it| name(&it) == TLS);
            let at = at.field("transport_socket");
            if is_tls { Vec::new() } else { vec![refused(at, &text(&inner, "name"))] }
        }
        Some(_) | None => vec![refused(at, &text(&socket, "name"))],
    }
}
