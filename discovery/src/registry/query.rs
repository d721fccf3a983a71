//! The answers of the registry's gRPC service.
//!
//! Roles and lag are not replicated. The caller passes in what nodes last reported to this server.

use std::collections::{BTreeMap, BTreeSet};

use proto::quorate::v1::{
    self as wire, AddressHint, GroupRecord, GroupSummary, Health, HostedGroup, MemberSummary,
    NodeState, NodeStatus, ReplicaSummary, ServiceSummary,
};

use super::{
    Registry,
    record::{Group, Instance, Node, Server},
};

/// The status of a DISCO server, as its group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// "leader", "follower", "learner".
    pub role: String,
    pub up: bool,
}

impl Registry {
    /// Every service, by name.
    pub fn list_services(&self) -> Vec<ServiceSummary> {
        self.services().map(|service| self.summarize_service(&service.name)).collect()
    }

    fn summarize_service(&self, name: &str) -> ServiceSummary {
        let instances = self.instances_of(name);
        let is_healthy = |it: &&Instance| it.health == Health::Healthy && it.silent_since.is_none();
        let healthy = instances.values().filter(is_healthy).count();
        let service = self.service(name);
        ServiceSummary {
            name: name.to_owned(),
            protocol: service.map_or("", |it| it.protocol.as_str()).to_owned(),
            instances: count(instances.len()),
            healthy: count(healthy),
            silent: count(instances.values().filter(|it| it.silent_since.is_some()).count()),
            sidecar_port: service.map_or(0, |it| it.sidecar_port.into()),
            options: service.map(|it| it.options.to_proto()),
            configured: service.is_some_and(|it| it.configured),
        }
    }

    /// Instances of one service by id; of every service if none is named.
    pub fn list_instances(&self, service: &str) -> Vec<wire::Instance> {
        if service.is_empty() {
            return self.instances().map(|it| it.to_proto()).collect();
        }
        self.instances_of(service).values().map(|it| it.to_proto()).collect()
    }

    /// Servers and nodes by id; one process that is both is one member.
    ///
    /// The state of a DISCO server is "unknown" if `servers` does not have it. A process that is
    /// both has its lease as a node and the probes as a server; it is up if neither says otherwise.
    /// Without a quorum only the probes tell, since no lease ends then.
    pub fn list_members(&self, servers: &BTreeMap<u64, ServerStatus>) -> Vec<MemberSummary> {
        let ids: BTreeSet<u64> =
            self.servers().map(|it| it.node_id).chain(self.nodes().map(|it| it.node_id)).collect();
        ids.into_iter()
            .map(|node_id| {
                let mut member = MemberSummary { node_id, ..MemberSummary::default() };
                if let Some(server) = self.server(node_id) {
                    describe_server(&mut member, server, servers.get(&node_id));
                }
                if let Some(node) = self.node(node_id) {
                    describe_node(&mut member, node);
                }
                member
            })
            .collect()
    }

    /// Groups by number; `reports` is what each node last said of itself.
    pub fn list_groups(&self, reports: &BTreeMap<u64, NodeStatus>) -> Vec<GroupSummary> {
        self.groups().map(|group| self.summarize_group(group, reports)).collect()
    }

    fn summarize_group(&self, group: &Group, reports: &BTreeMap<u64, NodeStatus>) -> GroupSummary {
        let hosted = |node_id: u64| -> Option<&HostedGroup> {
            reports.get(&node_id)?.groups.iter().find(|it| it.group == group.group)
        };
        let hosted_by_all = || group.replicas.iter().filter_map(|it| hosted(it.node_id));
        let lags: BTreeMap<u64, u64> = hosted_by_all()
            .filter(|it| it.role == "leader")
            .max_by_key(|it| it.term)
            .into_iter()
            .flat_map(|it| &it.members)
            .filter_map(|it| Some((it.node_id, it.lag?)))
            .collect();
        let latest = latest_quorum(hosted_by_all());
        // The lease of a silent node may still exist, so the group's own contacts count.
        let silent = |node_id: u64| {
            latest.is_some_and(|it| it.members.iter().any(|it| it.node_id == node_id && it.silent))
        };
        let summarize = |node_id: u64| {
            let node = self.node(node_id);
            ReplicaSummary {
                node_id,
                name: node.map(|it| it.name.clone()).unwrap_or_default(),
                mesh_address: node.map(|it| it.mesh_address.to_string()).unwrap_or_default(),
                kv_address: node.map(|it| it.kv_address.to_string()).unwrap_or_default(),
                role: hosted(node_id).map(|it| it.role.clone()).unwrap_or_default(),
                lag: lags.get(&node_id).copied(),
                up: node.is_some_and(|it| it.state == NodeState::Up && it.silent_since.is_none())
                    && !silent(node_id),
            }
        };
        GroupSummary {
            record: Some(group.to_proto()),
            replicas: group.replicas.iter().map(|it| summarize(it.node_id)).collect(),
            quorum_age_ms: latest.and_then(|it| it.quorum_age_ms),
            no_quorum: latest.map(|it| it.no_quorum.clone()).unwrap_or_default(),
        }
    }

    /// The groups that a node should host.
    pub fn groups_of_node(&self, node_id: u64) -> Vec<GroupRecord> {
        self.groups().filter(|it| it.has_replica(node_id)).map(Group::to_proto).collect()
    }

    /// The addresses that a node needs: of the other members of its groups, and of the DISCO
    /// servers. Nodes that are down are included, since they may be up again without DISCO knowing.
    pub fn addresses_for_node(&self, node_id: u64) -> Vec<AddressHint> {
        let peers: BTreeSet<u64> = self
            .groups()
            .filter(|it| it.has_replica(node_id))
            .flat_map(|it| it.replicas.iter().map(|member| member.node_id))
            .filter(|peer| *peer != node_id)
            .collect();
        let mut hints: BTreeMap<u64, AddressHint> = BTreeMap::new();
        let nodes = peers.iter().filter_map(|peer| self.node(*peer)).map(Node::hint);
        for hint in nodes.chain(self.servers().map(Server::hint)) {
            match hints.get_mut(&hint.node_id) {
                Some(known) => merge_hint(known, hint),
                None => {
                    hints.insert(hint.node_id, hint);
                }
            }
        }
        hints.into_values().collect()
    }
}

/// The replica that heard a quorum most recently; of several the leader, since it hears the others.
fn latest_quorum<'a>(replicas: impl Iterator<Item = &'a HostedGroup>) -> Option<&'a HostedGroup> {
    let rank = |it: &HostedGroup| {
        let without_quorum = !it.no_quorum.is_empty();
        let age = it.quorum_age_ms.unwrap_or(u64::MAX);
        (without_quorum, if without_quorum { age } else { 0 }, it.role != "leader", age)
    };
    replicas.min_by_key(|it| rank(it))
}

/// One process may have registered twice, as a server and as a node.
fn merge_hint(known: &mut AddressHint, other: AddressHint) {
    let mut services = [known.services.clone(), other.services.clone()].concat();
    services.sort_unstable();
    services.dedup();
    if other.boot_epoch > known.boot_epoch {
        *known = other;
    }
    known.services = services;
}

fn describe_server(member: &mut MemberSummary, server: &Server, status: Option<&ServerStatus>) {
    member.name = server.name.clone();
    member.services = server.services.clone();
    member.mesh_address = server.address.to_string();
    member.locality = Some(server.locality_proto());
    member.version = server.version.clone();
    member.role = status.map(|it| it.role.clone()).unwrap_or_default();
    member.state = match status {
        Some(ServerStatus { up: true, .. }) => "up",
        Some(ServerStatus { up: false, .. }) => "down",
        None => "unknown",
    }
    .to_owned();
}

fn describe_node(member: &mut MemberSummary, node: &Node) {
    if member.services.is_empty() {
        member.name = node.name.clone();
        member.mesh_address = node.mesh_address.to_string();
        member.locality = Some(node.locality_proto());
    }
    if !member.services.iter().any(|service| service == "data") {
        member.services.push("data".to_owned());
    }
    member.kv_address = node.kv_address.to_string();
    if member.version.is_empty() {
        member.version = node.version.clone();
    }
    let state = match node.state {
        NodeState::Down if node.removed => "removed",
        NodeState::Down => "down",
        _ if node.silent_since.is_some() => "silent",
        NodeState::Stopping => "stopping",
        NodeState::Up | NodeState::Unspecified if member.state == "down" => "down",
        NodeState::Up | NodeState::Unspecified => "up",
    };
    state.clone_into(&mut member.state);
}

fn count(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}
