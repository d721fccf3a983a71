//! DISCO servers and data nodes.

use proto::quorate::v1::{
    NodeState, RecordNode, RecordServer, RegistryDone, RemoveNode, RemoveServer, SetNodeState,
    registry_refusal::Reason,
};

use super::{
    Effects, Entry, Registry,
    key::RecordKey,
    record::{Group, Node, Server},
    refusal::{Refusal, malformed},
};

impl Registry {
    /// Records a DISCO server as it describes itself. Of two starts the later one counts.
    pub(super) fn record_server(
        &mut self,
        command: RecordServer,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let server = Server::parse(command)?;
        let current = self.servers.get(&server.node_id);
        if current.is_some_and(|it| it.boot_epoch > server.boot_epoch) {
            return Err(superseded(server.node_id));
        }
        let changed = current != Some(&server);
        if changed {
            self.put_server(server, effects);
        }
        Ok(RegistryDone { changed, ..RegistryDone::default() })
    }

    /// Registers a data node, or registers it again.
    ///
    /// Its id belongs to one store for ever. Of two starts the later one takes over, with its
    /// address and lease. Within one start the current lease stays, and a node that is stopping
    /// stays so.
    pub(super) fn record_node(
        &mut self,
        command: RecordNode,
        entry: Entry,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let mut record = command.node.ok_or_else(|| malformed("no node"))?;
        record.granted_index = entry.index;
        let mut wanted = Node::parse(record)?;
        if !wanted.is_live() {
            return Err(malformed("a node is down when its lease ends"));
        }
        let current = self.nodes.get(&wanted.node_id);
        if let Some(current) = current {
            check_successor(current, &wanted)?;
            if current.boot_epoch == wanted.boot_epoch && current.is_live() {
                wanted.grant.lease_id = current.grant.lease_id;
                if current.state == NodeState::Stopping {
                    wanted.state = NodeState::Stopping;
                }
            }
        }
        // A command contains neither: a node that registers is heard, and is not removed.
        (wanted.silent_since, wanted.removed) = (None, false);
        let changed = current.is_none_or(|it| !same_record(it, &wanted));
        let lease_id = wanted.grant.lease_id;
        self.put_node(wanted, effects);
        Ok(RegistryDone { lease_id, changed, ..RegistryDone::default() })
    }

    pub(super) fn set_node_state(
        &mut self,
        command: SetNodeState,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let state = command.state();
        if state == NodeState::Unspecified {
            return Err(malformed("a node is up, stopping or down"));
        }
        let Some(node) = self.nodes.get(&command.node_id) else {
            return Err(Refusal::new(
                Reason::NodeUnknown,
                format!("no node {:016x} is registered", command.node_id),
            ));
        };
        let lease_id = command.lease_id;
        if !node.is_live() || node.grant.lease_id != lease_id {
            return Err(Refusal::new(
                Reason::LeaseUnknown,
                format!("node {:016x} is not held by this lease", command.node_id),
            ));
        }
        let changed = node.state != state;
        if changed {
            let node = Node { state, ..node.clone() };
            self.put_node(node, effects);
        }
        Ok(RegistryDone { lease_id, changed, ..RegistryDone::default() })
    }

    pub(super) fn down_node(&mut self, node_id: u64, effects: &mut Effects) {
        if let Some(node) = self.nodes.get(&node_id) {
            let node = Node { state: NodeState::Down, silent_since: None, ..node.clone() };
            self.put_node(node, effects);
        }
    }

    /// Marks a node as silent, or removes the mark.
    pub(super) fn mark_node(
        &mut self,
        node_id: u64,
        silent_since: Option<u64>,
        effects: &mut Effects,
    ) {
        if let Some(node) = self.nodes.get(&node_id)
            && node.silent_since.is_some() != silent_since.is_some()
        {
            let node = Node { silent_since, ..node.clone() };
            self.put_node(node, effects);
        }
    }

    /// Removes a node that is down. While it is a member of a group it is only marked as removed,
    /// so that the group replaces it; its record is deleted once it is no longer a member of any
    /// group.
    pub(super) fn remove_node(
        &mut self,
        command: &RemoveNode,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let Some(node) = self.nodes.get(&command.node_id) else {
            return Ok(RegistryDone::default());
        };
        if node.is_live() && node.silent_since.is_none() {
            return Err(Refusal::new(
                Reason::Alive,
                format!("node {:016x} ({}) is alive: stop it first", node.node_id, node.name),
            ));
        }
        let removed = Node { removed: true, state: NodeState::Down, ..node.clone() };
        self.put_node(Node { silent_since: None, ..removed }, effects);
        let leaving = !self.drop_if_removed(command.node_id, effects);
        Ok(RegistryDone { existed: true, changed: true, leaving, ..RegistryDone::default() })
    }

    /// Deletes the record of a removed node once it is a member of no group.
    pub(super) fn drop_if_removed(&mut self, node_id: u64, effects: &mut Effects) -> bool {
        let is_counted = |group: &Group| match group.members.is_empty() {
            // No leader has reported the members yet.
            true => group.has_replica(node_id),
            false => group.members.contains(&node_id),
        };
        if self.nodes.get(&node_id).is_none_or(|it| !it.removed)
            || self.groups.values().any(is_counted)
        {
            return false;
        }
        let listed: Vec<Group> =
            self.groups.values().filter(|it| it.has_replica(node_id)).cloned().collect();
        for mut group in listed {
            group.replicas.retain(|it| it.node_id != node_id);
            group.serving.retain(|it| *it != node_id);
            self.put_group(group, effects);
        }
        self.nodes.remove(&node_id);
        effects.touched.insert(RecordKey::Node(node_id));
        true
    }

    /// Removes a DISCO server's record. The proposer has checked that the server is no longer a
    /// member.
    pub(super) fn remove_server(
        &mut self,
        command: &RemoveServer,
        effects: &mut Effects,
    ) -> RegistryDone {
        let existed = self.servers.remove(&command.node_id).is_some();
        if existed {
            effects.touched.insert(RecordKey::Server(command.node_id));
        }
        RegistryDone { existed, changed: existed, ..RegistryDone::default() }
    }

    pub(super) fn put_server(&mut self, server: Server, effects: &mut Effects) {
        effects.touched.insert(RecordKey::Server(server.node_id));
        self.servers.insert(server.node_id, server);
    }

    pub(super) fn put_node(&mut self, node: Node, effects: &mut Effects) {
        let key = RecordKey::Node(node.node_id);
        let before = self.nodes.get(&node.node_id).and_then(held);
        self.update_holders(&key, before, held(&node), effects);
        effects.touched.insert(key);
        self.nodes.insert(node.node_id, node);
    }

    pub fn node(&self, node_id: u64) -> Option<&Node> {
        self.nodes.get(&node_id)
    }

    /// In the order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn server(&self, node_id: u64) -> Option<&Server> {
        self.servers.get(&node_id)
    }

    /// In the order of their ids.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.servers.values()
    }
}

/// Whether `wanted` may take the place of `current`.
fn check_successor(current: &Node, wanted: &Node) -> Result<(), Refusal> {
    if current.store_id != wanted.store_id {
        return Err(Refusal::new(
            Reason::StoreMismatch,
            format!(
                "node {:016x} has store {:016x}, not {:016x}: the disk was swapped or restored; \
                 start with an empty data directory, as a new node",
                current.node_id, current.store_id, wanted.store_id
            ),
        ));
    }
    if current.boot_epoch > wanted.boot_epoch {
        return Err(superseded(current.node_id));
    }
    let same_start = current.boot_epoch == wanted.boot_epoch
        && (current.grant.lease_id == wanted.grant.lease_id
            || current.mesh_address == wanted.mesh_address);
    if current.boot_epoch == wanted.boot_epoch && current.is_live() && !same_start {
        return Err(Refusal::new(
            Reason::HeldByAnother,
            format!(
                "node {:016x} is running at {}; a copied data directory needs a node id of its own",
                current.node_id, current.mesh_address
            ),
        ));
    }
    Ok(())
}

fn superseded(node_id: u64) -> Refusal {
    Refusal::new(
        Reason::Superseded,
        format!("{node_id:016x} has been started again since, elsewhere"),
    )
}

/// The lease of a node; none if it is down.
fn held(node: &Node) -> Option<u64> {
    node.is_live().then_some(node.grant.lease_id)
}

/// Whether two records are equal except for the index of their registration.
fn same_record(current: &Node, wanted: &Node) -> bool {
    let mut current = current.clone();
    current.grant.granted_index = wanted.grant.granted_index;
    current == *wanted
}
