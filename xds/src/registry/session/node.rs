//! A data node, as its session sees it: what the node said, and what the registry lacks.
//!
//! What was proposed is not remembered. What remains to be done is read from the registry each
//! time, so a command that was lost is proposed again, and one that took effect is not.

use std::net::SocketAddr;

use discovery::registry::{Group, Leader, Node, Progress, Registry, ordered};
use proto::quorate::v1::{
    HostedGroup, Locality, NodeHello, NodeRecord, NodeState, NodeStatus, RecordNode, ReportLeader,
    SetNodeState, registry_command::Command,
};
use tonic::Status;

use crate::leader::leads;

#[cfg(test)]
mod tests;

/// A learner that is behind by no more than this many entries serves: it has received the data.
const SERVING_LAG: u64 = 1_000;

/// A data node in session.
#[derive(Clone, Debug)]
pub(crate) struct SessionNode {
    hello: NodeHello,
    mesh_address: SocketAddr,
    kv_address: SocketAddr,
    /// The lease to ask for, if the registry has none of the node.
    lease_id: u64,
    stopping: bool,
    status: NodeStatus,
}

/// How the registry's record of the node compares with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordState {
    /// There is none, or it is of another store.
    Unknown,
    /// It is of an earlier start, or says that the node is down, or differs otherwise.
    Outdated,
    /// It is up to date.
    Recorded { lease_id: u64, stopping: bool },
}

/// What remains to be done for the node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeCommand {
    Record(RecordNode),
    Stop(SetNodeState),
    ReportLeader(ReportLeader),
}

impl SessionNode {
    /// # Errors
    ///
    /// If an address of the node is not IP:PORT.
    pub(crate) fn new(hello: NodeHello, lease_id: u64) -> Result<Self, Status> {
        let parse = |what: &str, text: &str| {
            text.parse::<SocketAddr>().map_err(|_| {
                Status::invalid_argument(format!("{what} {text:?}: an address is IP:PORT"))
            })
        };
        Ok(Self {
            mesh_address: parse("mesh address", &hello.mesh_address)?,
            kv_address: parse("kv address", &hello.kv_address)?,
            hello,
            lease_id,
            stopping: false,
            status: NodeStatus::default(),
        })
    }

    pub(crate) fn report(&mut self, status: NodeStatus) {
        self.status = status;
    }

    pub(crate) const fn stop(&mut self) {
        self.stopping = true;
    }

    pub(crate) const fn node_id(&self) -> u64 {
        self.hello.node_id
    }

    pub(crate) const fn store_id(&self) -> u64 {
        self.hello.store_id
    }

    pub(crate) const fn boot_epoch(&self) -> u64 {
        self.hello.boot_epoch
    }

    pub(crate) const fn start(&self) -> u64 {
        self.hello.start
    }

    pub(crate) const fn moves(&self) -> u64 {
        self.hello.moves
    }

    pub(crate) const fn mesh_address(&self) -> SocketAddr {
        self.mesh_address
    }

    pub(crate) fn record_state(&self, registry: &Registry) -> RecordState {
        let known = registry.node(self.node_id());
        match known.filter(|node| node.store_id == self.hello.store_id) {
            None => RecordState::Unknown,
            Some(node) if self.is_recorded(node) => RecordState::Recorded {
                lease_id: node.grant.lease_id,
                stopping: node.state == NodeState::Stopping,
            },
            Some(_) => RecordState::Outdated,
        }
    }

    /// The next command to propose, if any: the record of the node, then its stop, then a leader.
    pub(crate) fn next_command(&self, registry: &Registry) -> Option<NodeCommand> {
        let RecordState::Recorded { lease_id, stopping } = self.record_state(registry) else {
            return Some(NodeCommand::Record(self.to_command()));
        };
        if self.stopping && !stopping {
            return Some(NodeCommand::Stop(SetNodeState {
                node_id: self.node_id(),
                lease_id,
                state: NodeState::Stopping.into(),
            }));
        }
        self.led_groups()
            .filter_map(|hosted| self.leader_report(registry.group(hosted.group)?, hosted))
            .map(NodeCommand::ReportLeader)
            .next()
    }

    /// A report of how far a group has come that the node leads, if that is further than recorded.
    /// It is always further while the group is written, so the caller must not ask all the time.
    pub(crate) fn progress_command(&self, registry: &Registry) -> Option<NodeCommand> {
        let RecordState::Recorded { .. } = self.record_state(registry) else { return None };
        self.led_groups()
            .filter_map(|hosted| {
                let group = registry.group(hosted.group)?;
                let report = self.to_report(group, hosted)?;
                let is_current = group.leader.is_none_or(|known| known <= report.0);
                let progress = report.1.progress.clone().map(Progress::from_proto)?;
                let is_news = group.progress.after(progress) != group.progress;
                (is_current && is_news).then_some(report.1)
            })
            .map(NodeCommand::ReportLeader)
            .next()
    }

    fn led_groups(&self) -> impl Iterator<Item = &HostedGroup> {
        self.status.groups.iter().filter(|it| leads(it))
    }

    fn leader_report(&self, group: &Group, hosted: &HostedGroup) -> Option<ReportLeader> {
        let (leader, report) = self.to_report(group, hosted)?;
        let told = |it: &[u64], known: &[u64]| !it.is_empty() && it != known;
        let is_news = match group.leader {
            Some(known) if known == leader => {
                told(&report.serving, &group.serving) || told(&report.members, &group.members)
            }
            Some(known) => known < leader,
            None => true,
        };
        is_news.then_some(report)
    }

    fn to_report(&self, group: &Group, hosted: &HostedGroup) -> Option<(Leader, ReportLeader)> {
        if !group.has_replica(self.node_id()) {
            return None;
        }
        let leader = Leader { term: hosted.term, node_id: self.node_id() };
        let report = ReportLeader {
            group: group.group,
            leader_id: leader.node_id,
            term: leader.term,
            serving: serving(group, hosted),
            members: members(hosted),
            progress: Some(Progress::reported(hosted).to_proto()),
        };
        Some((leader, report))
    }

    fn is_recorded(&self, node: &Node) -> bool {
        let Locality { region, zone } = self.hello.locality.clone().unwrap_or_default();
        node.is_live()
            && node.boot_epoch == self.hello.boot_epoch
            && node.mesh_address == self.mesh_address
            && node.kv_address == self.kv_address
            && node.name == self.hello.name
            && node.version == self.hello.version
            && node.locality.region == region
            && node.locality.zone == zone
    }

    fn to_command(&self) -> RecordNode {
        let hello = &self.hello;
        RecordNode {
            node: Some(NodeRecord {
                node_id: hello.node_id,
                store_id: hello.store_id,
                boot_epoch: hello.boot_epoch,
                mesh_address: self.mesh_address.to_string(),
                kv_address: self.kv_address.to_string(),
                locality: hello.locality.clone(),
                name: hello.name.clone(),
                lease_id: self.lease_id,
                ttl_ms: 0,
                state: NodeState::Up.into(),
                version: hello.version.clone(),
                ..NodeRecord::default()
            }),
        }
    }
}

impl NodeCommand {
    pub(crate) fn into_command(self) -> Command {
        match self {
            Self::Record(it) => Command::RecordNode(it),
            Self::Stop(it) => Command::SetNodeState(it),
            Self::ReportLeader(it) => Command::ReportLeader(it),
        }
    }
}

/// All members, by a leader's report.
fn members(hosted: &HostedGroup) -> Vec<u64> {
    ordered(hosted.members.iter().map(|it| it.node_id))
}

/// The replicas that hold the data, by a leader's report: its voters, and the learners that have
/// caught up.
fn serving(group: &Group, hosted: &HostedGroup) -> Vec<u64> {
    let caught_up = |lag: Option<u64>| lag.is_some_and(|lag| lag <= SERVING_LAG);
    let holding = hosted.members.iter().filter(|it| it.voter || caught_up(it.lag));
    ordered(holding.map(|it| it.node_id).filter(|node_id| group.has_replica(*node_id)))
}
