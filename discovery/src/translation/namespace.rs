//! The resources of a data namespace, and how Envoy finds its leader.
//!
//! Every replica accepts every request: a follower forwards writes to the leader, and waits for an
//! election if there is none. So no replica is a wrong target, only a slower one. When a leader
//! dies, what matters is to stop using it at once. For `kv/NS/leader`:
//!
//! 1. The leader is alone at priority 0, the other replicas are at priority 1. Envoy sends all
//!    requests to priority 0 while its host is healthy.
//! 2. The leader is killed. A request whose connection is refused, or not accepted within
//!    [`CONNECT_TIMEOUT`], was never sent. So the route retries it on a priority that was not tried
//!    yet: a follower accepts it and waits for the new leader. A request that had been sent is not
//!    retried, since it may have been carried out.
//! 3. After two such failures outlier detection ejects the host. Priority 0 then has no healthy
//!    host, so all requests go to priority 1 directly. The ejection is short, so that a leader that
//!    only restarted is used again soon; a wrong ejection only costs a hop.
//! 4. The new leader reports itself. EDS puts it at priority 0, and the old one, while its lease
//!    lasts, at priority 1, where a failing host is ejected in the same way.
//!
//! A leader that is cut off does not refuse connections. HTTP/2 pings find its connections dead
//! within [`PING_INTERVAL`] and [`PING_TIMEOUT`]; usually step 4 comes first.
//!
//! Panic routing stays enabled for the case that no host is healthy: with one replica, an ejected
//! host is still the only one that can answer.

use std::{collections::BTreeSet, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{Cluster, OutlierDetection},
        core::v3::{
            DataSource, HealthStatus, HttpProtocolOptions, KeepaliveSettings,
            data_source::Specifier,
        },
        route::v3::{
            DirectResponseAction, RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost,
            retry_policy, route::Action,
        },
    },
    extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig,
};
use proto::quorate::v1::NodeState;

use super::{build, cluster, http};
use crate::{
    registry::{DEFAULT_NAMESPACE, Group, Node, Registry},
    resource::{Resource, ResourceType},
};

/// Metadata by which a client of the etcd API chooses its namespace.
const NAMESPACE_HEADER: &str = "quorate-namespace";

/// Short, because a packet that is lost on the way to a live leader only costs a hop, not an error.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Our own servers accept pings at any rate.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn clusters(group: &Group) -> impl Iterator<Item = Resource> {
    [replicas_name(group), leader_name(&group.namespace)].into_iter().map(|name| {
        let cluster = cluster_of(&name);
        Resource::new(ResourceType::Cluster, name, &cluster)
    })
}

/// The endpoints of both clusters.
pub(super) fn endpoints(registry: &Registry, group: &Group) -> impl Iterator<Item = Resource> {
    let nodes: Vec<(&Node, HealthStatus)> = group
        .replicas
        .iter()
        .filter(|member| group.serves(member.node_id))
        .filter_map(|member| registry.node(member.node_id))
        .filter_map(|node| match node.state {
            // Silent, but perhaps healthy: the others are used first.
            NodeState::Up if node.silent_since.is_some() => Some((node, HealthStatus::Degraded)),
            NodeState::Up | NodeState::Unspecified => Some((node, HealthStatus::Healthy)),
            NodeState::Stopping => Some((node, HealthStatus::Draining)),
            NodeState::Down => None,
        })
        .collect();
    // Priorities must not have a gap: if no leader that may be up is known, all replicas have
    // priority 0.
    let leader = group.leader.map(|leader| leader.node_id);
    let leader = leader.filter(|id| nodes.iter().any(|(node, _)| node.node_id == *id));
    let of_leader = |node: &Node| u32::from(leader.is_some_and(|it| it != node.node_id));
    let all = assignment(replicas_name(group), &nodes, |_| 0);
    let led = assignment(leader_name(&group.namespace), &nodes, of_leader);
    [all, led].into_iter()
}

fn assignment(
    cluster: String,
    nodes: &[(&Node, HealthStatus)],
    priority: impl Fn(&Node) -> u32,
) -> Resource {
    let endpoints = nodes.iter().map(|(node, health)| build::Endpoint {
        address: node.kv_address,
        locality: &node.locality,
        priority: priority(node),
        weight: 1,
        health: *health,
        since: node.grant.granted_index,
    });
    let assignment = build::load_assignment(&cluster, endpoints.collect());
    Resource::new(ResourceType::Endpoints, cluster, &assignment)
}

/// The route of a front proxy's etcd port: to the namespace that a client names, or else to the
/// default one. Requests for a namespace that does not exist go to the default one too, whose node
/// refuses them.
///
/// While there is no default namespace the route does not name its cluster, because a route must
/// not name a missing cluster.
pub(super) fn ingress(registry: &Registry) -> Resource {
    let namespaces: BTreeSet<&str> = registry.groups().map(|it| it.namespace.as_str()).collect();
    let otherwise = match namespaces.contains(DEFAULT_NAMESPACE) {
        true => Action::Route(to_leader(DEFAULT_NAMESPACE)),
        false => Action::DirectResponse(no_default_namespace()),
    };
    let named = namespaces.into_iter().map(|namespace| {
        let action = Action::Route(to_leader(namespace));
        let mut route = Route { name: namespace.to_owned(), ..http::route(action) };
        http::only_with(NAMESPACE_HEADER, http::exactly(namespace), &mut route);
        route
    });
    let otherwise = Route { name: "kv/otherwise".to_owned(), ..http::route(otherwise) };
    let message = RouteConfiguration {
        name: "ingress-kv".to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: "kv/all".to_owned(),
            domains: vec!["*".to_owned()],
            routes: named.chain([otherwise]).collect(),
            ..VirtualHost::default()
        }],
        ..RouteConfiguration::default()
    };
    Resource::new(ResourceType::Route, "ingress-kv", &message)
}

fn cluster_of(name: &str) -> Cluster {
    let mut cluster = cluster::eds_cluster(name, CONNECT_TIMEOUT);
    cluster.outlier_detection = Some(outlier_detection());
    let keepalive = KeepaliveSettings {
        interval: build::duration(PING_INTERVAL),
        timeout: build::duration(PING_TIMEOUT),
        ..KeepaliveSettings::default()
    };
    cluster::use_http2(&mut cluster, Some(keepalive), HttpProtocolOptions::default());
    cluster
}

/// Ejects a replica that cannot be reached, whatever a reachable one answers: without a quorum
/// every replica answers UNAVAILABLE, although none of them is faulty.
fn outlier_detection() -> OutlierDetection {
    OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: build::number(2),
        interval: build::duration(Duration::from_millis(500)),
        base_ejection_time: build::duration(Duration::from_secs(1)),
        max_ejection_time: build::duration(Duration::from_secs(5)),
        max_ejection_percent: build::number(50),
        ..cluster::no_outlier_detection()
    }
}

fn to_leader(namespace: &str) -> RouteAction {
    RouteAction {
        // Watches have no end and may be silent for any time.
        timeout: build::duration(Duration::ZERO),
        idle_timeout: build::duration(Duration::ZERO),
        max_stream_duration: Some(http::client_deadline()),
        retry_policy: Some(RetryPolicy {
            retry_priority: Some(other_priority()),
            ..http::safe_retries()
        }),
        ..http::to_cluster(&leader_name(namespace))
    }
}

/// A gRPC client reads this response as UNAVAILABLE, and tries again.
fn no_default_namespace() -> DirectResponseAction {
    let text = "there is no namespace yet: the data nodes have not formed one";
    DirectResponseAction {
        status: 503,
        body: Some(DataSource {
            specifier: Some(Specifier::InlineString(text.to_owned())),
            ..DataSource::default()
        }),
        ..DirectResponseAction::default()
    }
}

/// Retries on a priority that was not tried yet: after the leader, a follower.
fn other_priority() -> retry_policy::RetryPriority {
    retry_policy::RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_policy::retry_priority::ConfigType::TypedConfig(build::any(
            &PreviousPrioritiesConfig { update_frequency: 1 },
        ))),
    }
}

fn replicas_name(group: &Group) -> String {
    format!("kv/{}", group.namespace)
}

fn leader_name(namespace: &str) -> String {
    format!("kv/{namespace}/leader")
}
