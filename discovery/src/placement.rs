//! The placement of data groups: what DISCO's leader should propose, given the nodes that are up.
//!
//! The placement is computed anew after every change of the registry. It returns the commands that
//! are still missing, and none if nothing is missing. Every command is safe to propose twice.
//!
//! - The namespace `default` gets its group as soon as enough nodes are up. The first voters are
//!   spread over the zones. This happens once: an existing group is never decided again, whatever
//!   happens to its voters.
//! - Every other node becomes a further replica of every group, up to
//!   [`MAX_REPLICAS`](crate::registry::MAX_REPLICAS) that are not down. The group itself decides
//!   whether a replica votes.
//!
//! A node that lost its disk comes back with another id, so it counts as another node.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use proto::quorate::v1::{
    AssignReplica, DecideGroup, NodeState, RegistryCommand, registry_command::Command,
};

use crate::registry::{DEFAULT_NAMESPACE, Group, Locality, Node, Registry};

/// Voters that a group should have, except in single mode, where it has one.
pub const VOTERS_WANTED: usize = 3;

/// The commands that are missing. While fewer than `voters_wanted` nodes are up nothing is decided,
/// because an operator would have to enlarge a group that starts too small.
pub fn proposals(registry: &Registry, voters_wanted: usize) -> Vec<RegistryCommand> {
    let is_up = |it: &&Node| it.state == NodeState::Up && it.silent_since.is_none();
    let up: Vec<&Node> = registry.nodes().filter(is_up).collect();
    let decided = registry.group_of_namespace(DEFAULT_NAMESPACE).is_some();
    let decision = (!decided).then(|| decide(DEFAULT_NAMESPACE, &up, voters_wanted)).flatten();
    let assignments = registry.groups().flat_map(|group| assign(registry, group, &up));
    decision
        .into_iter()
        .chain(assignments)
        .map(|command| RegistryCommand { command: Some(command) })
        .collect()
}

fn decide(namespace: &str, up: &[&Node], voters_wanted: usize) -> Option<Command> {
    if voters_wanted == 0 || up.len() < voters_wanted {
        return None;
    }
    let mut chosen = spread(up, &BTreeMap::new(), voters_wanted);
    chosen.sort_unstable_by_key(|node| node.node_id);
    Some(Command::DecideGroup(DecideGroup {
        namespace: namespace.to_owned(),
        first_voters: chosen.into_iter().map(|node| node.member().to_proto()).collect(),
        voters_wanted: u32::try_from(voters_wanted).ok()?,
    }))
}

fn assign(registry: &Registry, group: &Group, up: &[&Node]) -> Vec<Command> {
    let room = registry.room_for_replicas(group);
    let candidates: Vec<&Node> =
        up.iter().filter(|node| !group.has_replica(node.node_id)).copied().collect();
    let mut taken: BTreeMap<&Locality, usize> = BTreeMap::new();
    for node in up.iter().filter(|node| group.has_replica(node.node_id)) {
        *taken.entry(&node.locality).or_default() += 1;
    }
    spread(&candidates, &taken, room)
        .into_iter()
        .map(|node| {
            let replica = Some(node.member().to_proto());
            Command::AssignReplica(AssignReplica { group: group.group, replica })
        })
        .collect()
}

/// Chooses nodes one by one, each from the locality with the fewest so far, `taken` included. Of
/// several such nodes it takes the lowest id.
fn spread<'a>(
    candidates: &[&'a Node],
    taken: &BTreeMap<&'a Locality, usize>,
    wanted: usize,
) -> Vec<&'a Node> {
    let mut taken = taken.clone();
    let mut left = candidates.to_vec();
    let mut chosen = Vec::new();
    while chosen.len() < wanted {
        let load = |node: &Node| taken.get(&node.locality).copied().unwrap_or(0);
        let next = (0..left.len()).min_by_key(|at| (load(left[*at]), left[*at].node_id));
        let Some(next) = next else { break };
        let node = left.remove(next);
        *taken.entry(&node.locality).or_default() += 1;
        chosen.push(node);
    }
    chosen
}
