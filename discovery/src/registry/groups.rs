//! Data groups: their first voters are decided once; afterwards only replicas are added.

use std::collections::BTreeSet;

use proto::quorate::v1::{
    AssignReplica, DecideGroup, NodeState, RegistryDone, ReportLeader, registry_refusal::Reason,
};

use super::{
    Effects, Registry,
    key::RecordKey,
    name::check_name,
    progress::Progress,
    record::{Group, Leader, Member},
    refusal::{Refusal, malformed},
};

/// The namespace that is used if a client names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Most replicas of one group, not counting those on nodes that are down.
pub const MAX_REPLICAS: usize = 7;

/// Most replicas in the record of one group, including those on nodes that are down. Without this
/// limit, nodes that return with empty disks would let the record grow without end.
const MAX_REPLICAS_LISTED: usize = 64;

/// Most members in a decision. Groups have three or five voters, at most seven.
const MAX_VOTERS: usize = 7;

/// The DISCO group itself is number 1.
const FIRST_GROUP: u32 = 2;

impl Registry {
    /// Decides a namespace's first voters, once and for all. Even if all of them are lost, the
    /// group must not be formed a second time, since the first one could come back.
    pub(super) fn decide_group(
        &mut self,
        command: DecideGroup,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        check_name("namespace", &command.namespace)?;
        if let Some(group) = self.namespaces.get(&command.namespace) {
            return Err(Refusal::new(
                Reason::GroupExists,
                format!("namespace {} has group {group}", command.namespace),
            ));
        }
        let first_voters: Vec<_> =
            command.first_voters.into_iter().map(Member::from_proto).collect();
        check_voters(&first_voters, command.voters_wanted)?;
        for member in &first_voters {
            self.check_member(*member)?;
        }
        // Groups are never removed, so the number after the last one was never used.
        let last = self.groups.last_key_value().map_or(FIRST_GROUP - 1, |(group, _)| *group);
        let group = last
            .checked_add(1)
            .ok_or_else(|| Refusal::new(Reason::Exhausted, "no group number is left"))?;
        let decided = Group {
            group,
            namespace: command.namespace,
            replicas: first_voters.clone(),
            first_voters,
            leader: None,
            voters_wanted: command.voters_wanted,
            serving: Vec::new(),
            members: Vec::new(),
            progress: Progress::default(),
        };
        self.put_group(decided, effects);
        Ok(RegistryDone { group, changed: true, ..RegistryDone::default() })
    }

    pub(super) fn assign_replica(
        &mut self,
        command: AssignReplica,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let group = self.known_group(command.group)?;
        let member =
            Member::from_proto(command.replica.ok_or_else(|| malformed("no replica to assign"))?);
        self.check_member(member)?;
        if group.has_replica(member.node_id) {
            return Ok(RegistryDone { group: group.group, ..RegistryDone::default() });
        }
        if self.room_for_replicas(group) == 0 {
            return Err(Refusal::new(
                Reason::Exhausted,
                format!("namespace {} has all the replicas it may have", group.namespace),
            ));
        }
        let mut group = group.clone();
        if group.replicas.len() >= MAX_REPLICAS_LISTED {
            let oldest = group.replicas.iter().position(|it| self.is_gone(&group, *it));
            oldest.map(|at| group.replicas.remove(at));
        }
        group.replicas.push(member);
        let done = RegistryDone { group: group.group, changed: true, ..RegistryDone::default() };
        self.put_group(group, effects);
        Ok(done)
    }

    /// Records the leader of a group. Reports may arrive out of order, so the highest term wins.
    pub(super) fn report_leader(
        &mut self,
        command: ReportLeader,
        effects: &mut Effects,
    ) -> Result<RegistryDone, Refusal> {
        let group = self.known_group(command.group)?;
        if !group.has_replica(command.leader_id) {
            return Err(Refusal::new(
                Reason::NodeUnknown,
                format!(
                    "node {:016x} holds no replica of namespace {}",
                    command.leader_id, group.namespace
                ),
            ));
        }
        let leader = Leader { term: command.term, node_id: command.leader_id };
        let mut serving = ordered(command.serving);
        serving.retain(|node_id| group.has_replica(*node_id));
        let mut members = ordered(command.members);
        if group.leader.is_some_and(|it| it > leader) {
            return Ok(RegistryDone { group: group.group, ..RegistryDone::default() });
        }
        // If the report leaves a list empty, the earlier list stays.
        if serving.is_empty() {
            serving.clone_from(&group.serving);
        }
        if members.is_empty() {
            members.clone_from(&group.members);
        }
        let progress = command.progress.map(Progress::from_proto);
        let progress =
            progress.map_or_else(|| group.progress.clone(), |report| group.progress.after(report));
        let reported = Group { leader: Some(leader), serving, members, progress, ..group.clone() };
        let changed = reported != *group;
        let done = RegistryDone { group: group.group, changed, ..RegistryDone::default() };
        if changed {
            self.put_group(reported, effects);
            let removed: Vec<u64> =
                self.nodes.values().filter(|it| it.removed).map(|it| it.node_id).collect();
            for node_id in removed {
                self.drop_if_removed(node_id, effects);
            }
        }
        Ok(done)
    }

    pub(super) fn put_group(&mut self, group: Group, effects: &mut Effects) {
        effects.touched.insert(RecordKey::Group(group.group));
        self.namespaces.insert(group.namespace.clone(), group.group);
        self.groups.insert(group.group, group);
    }

    /// How many further replicas a group may be given. If the list is full, replicas on nodes that
    /// are gone are removed first.
    pub fn room_for_replicas(&self, group: &Group) -> usize {
        let running = group.replicas.iter().filter(|it| !self.is_down(it.node_id)).count();
        let gone = group.replicas.iter().filter(|it| self.is_gone(group, **it)).count();
        let unlisted = MAX_REPLICAS_LISTED.saturating_sub(group.replicas.len());
        MAX_REPLICAS.saturating_sub(running).min(unlisted + gone)
    }

    fn is_down(&self, node_id: u64) -> bool {
        self.nodes.get(&node_id).is_none_or(|it| it.state == NodeState::Down)
    }

    /// Whether a replica's node is down and the group no longer counts it as a member.
    fn is_gone(&self, group: &Group, replica: Member) -> bool {
        let left = !group.members.is_empty() && !group.members.contains(&replica.node_id);
        left && self.is_down(replica.node_id)
    }

    pub fn group(&self, group: u32) -> Option<&Group> {
        self.groups.get(&group)
    }

    pub fn group_of_namespace(&self, namespace: &str) -> Option<&Group> {
        self.groups.get(self.namespaces.get(namespace)?)
    }

    /// In the order of their numbers.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    fn known_group(&self, group: u32) -> Result<&Group, Refusal> {
        self.groups
            .get(&group)
            .ok_or_else(|| Refusal::new(Reason::GroupUnknown, format!("there is no group {group}")))
    }

    /// Checks that the member is a registered node, with the store that it has.
    fn check_member(&self, member: Member) -> Result<(), Refusal> {
        let Some(node) = self.nodes.get(&member.node_id) else {
            return Err(Refusal::new(
                Reason::NodeUnknown,
                format!("no node {:016x} is registered", member.node_id),
            ));
        };
        if node.store_id != member.store_id {
            return Err(Refusal::new(
                Reason::StoreMismatch,
                format!("node {:016x} has another store", member.node_id),
            ));
        }
        Ok(())
    }
}

/// Ids as a group's record keeps them: ascending and without duplicates.
pub fn ordered(ids: impl IntoIterator<Item = u64>) -> Vec<u64> {
    ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// Checks the members of a decision, except whether they are registered.
fn check_voters(voters: &[Member], voters_wanted: u32) -> Result<(), Refusal> {
    let wanted = usize::try_from(voters_wanted).unwrap_or(usize::MAX);
    if wanted == 0 || wanted > MAX_VOTERS {
        return Err(malformed(format!("a group has 1 to {MAX_VOTERS} voters")));
    }
    if voters.is_empty() || voters.len() > wanted {
        return Err(malformed(format!("a group starts with 1 to {wanted} voters, as wanted")));
    }
    if ordered(voters.iter().map(|member| member.node_id)).len() != voters.len() {
        return Err(Refusal::new(Reason::Malformed, "a node votes once"));
    }
    Ok(())
}
