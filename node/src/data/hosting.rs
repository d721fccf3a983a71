//! The groups of this node: which run, which should, and what each of them needs beside it.
//!
//! An ordered group is first remembered on disk, then checked by [`start::decide`], then started,
//! and then published to readers and to the session. A group that could not be started is tried
//! again. A group that must not be started ends the node, since its disk is not the one that the
//! mesh expects.

use std::{
    collections::BTreeMap,
    future::{Future, pending},
    net::SocketAddr,
    time::Duration,
};

use mesh::{GroupId, Identity, Member, NodeId, node_hex};
use raft::{
    Group, Host, InitializeError, Quorum, Status, StoredReplica,
    start::{self, Disk, Membership, Record, Start},
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{DataError, groups_file::GroupsFile};
use crate::{
    chain,
    kv::KvMachine,
    namespaces::{Hosted, MemberAddress, Namespaces},
    reconcile::{Reconciler, Topology},
    session::{Assignment, Orders},
};

/// The groups of this node.
#[derive(Debug)]
pub(crate) struct Hosting {
    host: Host,
    groups_file: GroupsFile,
    orders: Option<Orders>,
    groups: BTreeMap<GroupId, Running>,
    namespaces: Namespaces,
    own_member: OwnMember,
    /// The same groups, for the session; marked as changed when a status changes that is reported.
    hosted: watch::Sender<Vec<Group>>,
    topology: watch::Sender<Topology>,
    replace_after: Duration,
    /// Watchers and reconcilers. They end with their group.
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// A group that runs here.
#[derive(Debug)]
struct Running {
    group: Group,
    /// Ends the watcher and the reconciler of the group.
    stop: CancellationToken,
}

/// What this node tells clients about itself as a member.
#[derive(Clone, Debug)]
pub(crate) struct OwnMember {
    pub(crate) name: String,
    pub(crate) mesh_address: SocketAddr,
    pub(crate) kv_address: SocketAddr,
}

impl Hosting {
    pub(crate) fn new(
        host: Host,
        groups_file: GroupsFile,
        namespaces: Namespaces,
        own_member: OwnMember,
        replace_after: Duration,
    ) -> Self {
        Self {
            host,
            orders: groups_file.orders(),
            groups_file,
            groups: BTreeMap::new(),
            namespaces,
            own_member,
            hosted: watch::Sender::new(Vec::new()),
            topology: watch::Sender::new(Topology::default()),
            replace_after,
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Follows orders: hosts the groups that they name, and stops those that they no longer name
    /// once the group itself has removed this node.
    pub(crate) async fn follow(&mut self, orders: &Orders) -> Result<(), DataError> {
        self.groups_file.remember(orders)?;
        self.orders = Some(orders.clone());
        self.topology.send_modify(|topology| topology.follow(orders, Instant::now()));
        self.start_missing().await?;
        self.stop_unassigned().await?;
        self.refresh()
    }

    /// Hosts every group that is ordered, or remembered, and not running.
    pub(crate) async fn start_missing(&mut self) -> Result<(), DataError> {
        let missing: Vec<Assignment> = self.missing().cloned().collect();
        for assignment in missing {
            self.start_group(&assignment).await?;
        }
        Ok(())
    }

    /// Notes which replicas hold something, and publishes the members of each group.
    pub(crate) fn refresh(&mut self) -> Result<(), DataError> {
        for (id, Running { group, .. }) in &self.groups {
            if !self.groups_file.held(*id) && !group.is_blank() {
                self.groups_file.mark_held(*id)?;
            }
            let members = self.member_addresses(&group.status());
            self.namespaces.set_members(group.namespace(), members);
        }
        Ok(())
    }

    /// Stops following DISCO's advice, since DISCO is away.
    pub(crate) fn forget_topology(&self) {
        self.topology.send_modify(Topology::forget);
    }

    /// Ends reconcilers and watchers. The groups run on.
    pub(crate) async fn stop_tasks(mut self) -> Vec<Group> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.groups.into_values().map(|running| running.group).collect()
    }

    /// Resolves when a watcher or a reconciler has panicked: its group would go on without it,
    /// unnoticed.
    pub(crate) async fn failed(&mut self) -> JoinError {
        first_failure(&mut self.tasks).await
    }

    /// The groups, marked as changed whenever the leader, the role or the membership of one
    /// changes.
    pub(crate) fn hosted(&self) -> watch::Receiver<Vec<Group>> {
        self.hosted.subscribe()
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values().map(|running| &running.group)
    }

    pub(crate) fn topology(&self) -> watch::Receiver<Topology> {
        self.topology.subscribe()
    }

    pub(crate) const fn has_orders(&self) -> bool {
        self.orders.is_some()
    }

    /// Groups that are asked for and not running.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &Assignment> {
        let assignments = self.orders.iter().flat_map(|it| it.assignments.values());
        assignments.filter(|it| !self.groups.contains_key(&it.group))
    }

    async fn start_group(&mut self, assignment: &Assignment) -> Result<(), DataError> {
        let id = assignment.group;
        let start = self.decide(assignment).await?;
        if start == Start::Leave {
            return Ok(());
        }
        let failed = |source| DataError::StartGroup { group: id, source };
        self.host.make_room(id, &assignment.namespace).await.map_err(failed)?;
        // The note comes before the replica runs, since a replica votes as soon as it runs. It
        // comes after the room is made, so that a noted group without room is one that the store
        // has lost.
        self.groups_file.mark_placed(id)?;
        let group = self
            .host
            .start_group(id, &assignment.namespace, KvMachine::new())
            .await
            .map_err(failed)?;
        info!(group = id, namespace = assignment.namespace, ?start, "hosting");
        if start == Start::Form
            && let Err(error) = self.form(&group, assignment).await
        {
            let namespace = &assignment.namespace;
            warn!(group = id, namespace, error = %chain(&error), "not formed yet");
            group.stop().await;
            return Ok(());
        }
        self.add_group(group);
        Ok(())
    }

    async fn form(&self, group: &Group, assignment: &Assignment) -> Result<(), InitializeError> {
        group.initialize(&assignment.first_voters).await
    }

    /// Decides from this disk, the orders and the other members whether and how to host a group.
    async fn decide(&self, assignment: &Assignment) -> Result<Start, DataError> {
        let identity = self.host.identity();
        let stored = self.host.stored_replica(assignment.group)?;
        let disk = self.disk_state(assignment.group, stored);
        let members = assignment.first_voters.iter().chain(&assignment.replicas);
        let (group, namespace) = (assignment.group, &assignment.namespace);
        let others = members.map(|member| member.node_id);
        let (disk, membership) = self.host.compare(group, namespace, disk, others).await?;
        match start::decide(disk, own_record(assignment, &identity), membership) {
            Start::Refuse(refusal) => Err(DataError::Refused {
                group: assignment.group,
                namespace: assignment.namespace.clone(),
                refusal,
            }),
            start @ (Start::Form | Start::Resume | Start::AwaitLeader | Start::Leave) => Ok(start),
        }
    }

    fn disk_state(&self, group: GroupId, stored: Option<StoredReplica>) -> Disk {
        let identity = self.host.identity();
        let foreign = self.orders.as_ref().is_some_and(|orders| {
            self.host.mesh().watch_id().borrow().as_ref() != Some(&orders.mesh)
        });
        let seen_later =
            self.host.mesh().book().hints().iter().any(|hint| {
                hint.node_id == identity.node_id && hint.boot_epoch > identity.boot_epoch
            });
        if foreign {
            Disk::AnotherMesh
        } else if seen_later {
            Disk::RolledBack
        } else if stored.is_some_and(|stored| !stored.is_blank) {
            Disk::Holding
        } else if self.groups_file.held(group)
            || (stored.is_none() && self.groups_file.placed(group))
        {
            Disk::Lost
        } else {
            Disk::Blank
        }
    }

    fn add_group(&mut self, group: Group) {
        self.namespaces
            .insert(Hosted { namespace: group.namespace().to_owned(), group: group.clone() });
        let stop = self.stop.child_token();
        let notifying = notify_changes(group.clone(), self.hosted.clone());
        self.tasks.spawn(run_until_stopped(stop.clone(), notifying));
        let reconciler =
            Reconciler::new(group.clone(), self.topology.subscribe(), self.replace_after);
        self.tasks.spawn(run_until_stopped(stop.clone(), reconciler.run()));
        self.groups.insert(group.id(), Running { group, stop });
        self.publish();
    }

    /// Stops replicas that DISCO no longer asks for and that their group has removed.
    async fn stop_unassigned(&mut self) -> Result<(), DataError> {
        let Some(orders) = self.orders.as_ref().filter(|orders| orders.fresh) else {
            return Ok(());
        };
        let own_id = self.host.identity().node_id;
        let leaving: Vec<GroupId> = self
            .groups()
            .filter(|group| !orders.assignments.contains_key(&group.id()))
            .filter(|group| {
                let membership = own_membership(&group.status(), own_id);
                start::decide(Disk::Holding, Record::Absent, membership) == Start::Leave
            })
            .map(Group::id)
            .collect();
        for id in leaving {
            if let Some(Running { group, stop }) = self.groups.remove(&id) {
                info!(group = id, namespace = group.namespace(), "no longer hosted here");
                self.namespaces.remove(group.namespace());
                self.publish();
                stop.cancel();
                group.stop().await;
                self.groups_file.forget(id)?;
            }
        }
        Ok(())
    }

    fn publish(&self) {
        self.hosted.send_replace(self.groups().cloned().collect());
    }

    fn member_addresses(&self, status: &Status) -> Vec<MemberAddress> {
        let members = status.members.iter();
        members.map(|member| self.member_address(member.node_id, member.voter)).collect()
    }

    fn member_address(&self, node_id: NodeId, voter: bool) -> MemberAddress {
        if node_id == self.host.identity().node_id {
            return MemberAddress {
                node_id,
                name: self.own_member.name.clone(),
                mesh_address: Some(self.own_member.mesh_address),
                kv_address: Some(self.own_member.kv_address),
                voter,
            };
        }
        let peers = self.orders.as_ref().map(|orders| &orders.peers);
        let peer = peers.and_then(|peers| peers.get(&node_id));
        MemberAddress {
            node_id,
            name: peer.map_or_else(|| node_hex(node_id), |peer| peer.name.clone()),
            mesh_address: self
                .host
                .mesh()
                .book()
                .address(node_id)
                .or_else(|| peer.and_then(|peer| peer.mesh_address)),
            kv_address: peer.and_then(|peer| peer.kv_address),
            voter,
        }
    }
}

/// What DISCO's record, or the formation, says about this node.
fn own_record(assignment: &Assignment, identity: &Identity) -> Record {
    let own = Member { node_id: identity.node_id, store_id: identity.store_id };
    let named = |members: &[Member]| members.contains(&own);
    let under_another_store = |members: &[Member]| {
        members.iter().any(|it| it.node_id == own.node_id && it.store_id != own.store_id)
    };
    if under_another_store(&assignment.first_voters) || under_another_store(&assignment.replicas) {
        Record::AnotherStore
    } else if named(&assignment.first_voters) {
        Record::FirstVoter { formed: assignment.formed }
    } else if named(&assignment.replicas) {
        Record::Replica
    } else {
        Record::Absent
    }
}

/// What a replica's own log says about its node.
fn own_membership(status: &Status, own_id: NodeId) -> Membership {
    if status.members.is_empty() {
        return Membership::Unformed;
    }
    match status.members.iter().find(|it| it.node_id == own_id) {
        Some(member) if member.voter => Membership::Voter { acknowledged: true },
        Some(_) => Membership::Learner { acknowledged: true },
        None => Membership::Outside,
    }
}

/// Waits for a task that panicked. It never returns while all tasks run or end as they should.
async fn first_failure(tasks: &mut JoinSet<()>) -> JoinError {
    loop {
        match tasks.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => return error,
            None => pending().await,
        }
    }
}

/// Runs a task until its group is stopped.
async fn run_until_stopped(stop: CancellationToken, task: impl Future<Output = ()>) {
    stop.run_until_cancelled(task).await;
}

/// Marks the hosted groups as changed whenever the reported part of a group's status changes, until
/// the group stops.
async fn notify_changes(group: Group, hosted: watch::Sender<Vec<Group>>) {
    let mut status = group.watch_status();
    let mut told = reported(&status.borrow_and_update());
    while status.changed().await.is_ok() {
        let latest = reported(&status.borrow_and_update());
        if latest != told {
            told = latest;
            hosted.send_modify(|_| {});
        }
    }
}

type Reported = (raft::Role, u64, Option<NodeId>, Option<(u64, u64)>, Quorum);

const fn reported(status: &Status) -> Reported {
    (status.role, status.term, status.leader, status.membership_log_id, status.quorum)
}

#[cfg(test)]
mod tests {
    use std::{future::ready, pin::pin};

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_told_and_one_that_ends_is_not() {
        let mut tasks = JoinSet::new();
        tasks.spawn(ready(()));
        tasks.spawn(async { panic!("as a defect would") });
        tasks.spawn(ready(()));
        assert!(first_failure(&mut tasks).await.is_panic());
        assert!(futures::poll!(pin!(first_failure(&mut tasks))).is_pending());
    }
}
