//! `quorate groups` and `quorate group show`: the Raft groups of the data namespaces.

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::quorate::v1::{GroupSummary, ListGroupsReply, ListGroupsRequest, ReplicaSummary};
use serde_json::{Value, json};

use super::{DiscoArgs, client::answer, print, shown, watch::WatchArgs};
use crate::{
    failure::{Code, Failure},
    output::{Answer, Format, Listing, node_id},
};

/// List the data groups: one per namespace.
#[derive(Args, Debug)]
#[command(long_about = "\
List the data groups: one per namespace.

  quorate groups
  quorate groups --format json

Columns: GROUP NAMESPACE LEADER TERM VOTERS REPLICAS UP. VOTERS is how many report that they vote, of
how many the group should have.")]
pub(crate) struct GroupsArgs {
    #[command(flatten)]
    disco: DiscoArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Look at one data group.
#[derive(Args, Debug)]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    Show(ShowArgs),
}

/// Show the replicas of a group, with their roles and how far they are behind.
#[derive(Args, Debug)]
#[command(long_about = "\
Show the replicas of a group, with their roles and how far they are behind.

  quorate group show default
  quorate group show 2 --format json

Columns: NODE NAME ROLE LAG STATE MESH KV. LAG counts log entries behind the leader. STATE is down
also for a replica that its group does not hear.

Exits with 5 if the group cannot take writes: it has no quorum, no leader, or its leader is down.
Exits with 4 if DISCO has no quorum, so that nobody knows.")]
struct ShowArgs {
    /// The group, by namespace or by number.
    group: String,
    #[command(flatten)]
    disco: DiscoArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl GroupsArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        self.watch.run(format, async || self.list(format).await).await
    }

    async fn list(&self, format: Format) -> Result<u8, Failure> {
        let reply = groups(&self.disco).await?;
        let listing = Listing {
            name: "groups",
            columns: &["GROUP", "NAMESPACE", "LEADER", "TERM", "VOTERS", "REPLICAS", "UP"],
            rows: reply.groups.iter().map(row).collect(),
            records: reply.groups.iter().map(record).collect(),
            answer: answer(reply.meta),
        };
        print(&listing, format, "the mesh has no data group")
    }
}

impl GroupArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        match self.command {
            GroupCommand::Show(args) => args.run(format).await,
        }
    }
}

impl ShowArgs {
    async fn run(self, format: Format) -> Result<u8, Failure> {
        self.watch.run(format, async || self.show(format).await).await
    }

    async fn show(&self, format: Format) -> Result<u8, Failure> {
        let reply = groups(&self.disco).await?;
        let answer = answer(reply.meta);
        let group = reply.groups.into_iter().find(|group| is_called(group, &self.group));
        let Some(group) = group else {
            let message = format!("there is no data group `{}`", self.group);
            return Err(Failure::new(Code::NoneFound, message).hint("`quorate groups` lists them"));
        };
        let none = format!("group `{}` has no replicas", self.group);
        let stale_for = Duration::from_millis(answer.stale_for_ms);
        let code = print(&shown_group(&group, answer), format, &none)?;
        if let Some(ailment) = ailment(&group) {
            return Err(Failure::new(Code::Unhealthy, ailment)
                .hint("are enough of its nodes up? see `quorate members`"));
        }
        if stale_for > Duration::ZERO {
            let message = format!(
                "DISCO has had no quorum for {} s: group `{}` may be another by now",
                stale_for.as_secs(),
                self.group
            );
            return Err(Failure::new(Code::Unreachable, message)
                .hint("are enough DISCO servers up? see `quorate members`"));
        }
        Ok(code)
    }
}

async fn groups(disco: &DiscoArgs) -> Result<ListGroupsReply, Failure> {
    disco
        .client()
        .ask(ListGroupsRequest {}, |mut registry, request| async move {
            registry.list_groups(request).await
        })
        .await
        .map(sorted)
}

/// Replicas by the name that people know them by.
fn sorted(mut reply: ListGroupsReply) -> ListGroupsReply {
    for group in &mut reply.groups {
        group.replicas.sort_by(|a, b| (&a.name, a.node_id).cmp(&(&b.name, b.node_id)));
    }
    reply
}

/// Why a group takes no writes, as far as DISCO knows.
pub(super) fn ailment(group: &GroupSummary) -> Option<String> {
    let record = group.record.as_ref()?;
    if !group.no_quorum.is_empty() {
        return Some(format!("group `{}` has {}", record.namespace, group.no_quorum));
    }
    let leader = group.replicas.iter().find(|replica| replica.node_id == record.leader_id);
    match leader {
        None => Some(format!("group `{}` has no leader", record.namespace)),
        Some(leader) if !leader.up => {
            Some(format!("the leader of group `{}` is down", record.namespace))
        }
        Some(_) => None,
    }
}

fn is_called(group: &GroupSummary, name: &str) -> bool {
    let Some(record) = &group.record else { return false };
    record.namespace == name || record.group.to_string() == name
}

fn row(group: &GroupSummary) -> Vec<String> {
    let known = group.record.clone().unwrap_or_default();
    vec![
        known.group.to_string(),
        known.namespace,
        leader_name(group),
        known.term.to_string(),
        format!("{}/{}", voters(group), known.voters_wanted),
        group.replicas.len().to_string(),
        group.replicas.iter().filter(|replica| replica.up).count().to_string(),
    ]
}

fn record(group: &GroupSummary) -> Value {
    let known = group.record.clone().unwrap_or_default();
    json!({
        "group": known.group,
        "namespace": known.namespace,
        "leader": (known.leader_id != 0).then(|| node_id(known.leader_id)),
        "term": known.term,
        "voters": voters(group),
        "voters_wanted": known.voters_wanted,
        "first_voters": known.first_voters.iter().map(|it| node_id(it.node_id)).collect::<Vec<_>>(),
        "replicas": group.replicas.iter().map(replica_record).collect::<Vec<_>>(),
        "quorum_age_ms": group.quorum_age_ms,
        "no_quorum": (!group.no_quorum.is_empty()).then_some(&group.no_quorum),
    })
}

fn shown_group(group: &GroupSummary, answer: Answer) -> Listing {
    Listing {
        name: "replicas",
        columns: &["NODE", "NAME", "ROLE", "LAG", "STATE", "MESH", "KV"],
        rows: group.replicas.iter().map(replica_row).collect(),
        records: group.replicas.iter().map(replica_record).collect(),
        answer,
    }
}

fn replica_row(replica: &ReplicaSummary) -> Vec<String> {
    vec![
        node_id(replica.node_id),
        shown(&replica.name),
        shown(&replica.role),
        replica.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
        if replica.up { "up" } else { "down" }.to_owned(),
        shown(&replica.mesh_address),
        shown(&replica.kv_address),
    ]
}

fn replica_record(replica: &ReplicaSummary) -> Value {
    json!({
        "node_id": node_id(replica.node_id),
        "name": replica.name,
        "role": replica.role,
        "lag": replica.lag,
        "up": replica.up,
        "mesh_address": replica.mesh_address,
        "kv_address": replica.kv_address,
    })
}

/// The leader by its name, which people know, or else by its id.
pub(super) fn leader_name(group: &GroupSummary) -> String {
    let leader_id = group.record.as_ref().map_or(0, |record| record.leader_id);
    if leader_id == 0 {
        return "none".to_owned();
    }
    let replica = group.replicas.iter().find(|replica| replica.node_id == leader_id);
    replica
        .map(|replica| replica.name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| node_id(leader_id))
}

/// How many of its replicas report that they vote.
pub(super) fn voters(group: &GroupSummary) -> usize {
    group.replicas.iter().filter(|replica| votes(replica)).count()
}

pub(super) fn votes(replica: &ReplicaSummary) -> bool {
    matches!(replica.role.as_str(), "leader" | "follower" | "candidate")
}

#[cfg(test)]
mod tests {
    use proto::quorate::v1::GroupRecord;

    use super::*;

    #[test]
    fn a_group_is_well_with_a_leader_that_is_up() {
        let group = |leader_id, up| GroupSummary {
            record: Some(GroupRecord {
                namespace: "default".to_owned(),
                leader_id,
                ..GroupRecord::default()
            }),
            replicas: vec![ReplicaSummary { node_id: 7, up, ..ReplicaSummary::default() }],
            ..GroupSummary::default()
        };
        assert_eq!(ailment(&group(7, true)), None);
        assert_eq!(ailment(&group(7, false)).unwrap(), "the leader of group `default` is down");
        assert_eq!(ailment(&group(0, true)).unwrap(), "group `default` has no leader");
        let lost = GroupSummary { no_quorum: "no quorum: …".to_owned(), ..group(7, true) };
        assert_eq!(ailment(&lost).unwrap(), "group `default` has no quorum: …");
    }

    #[test]
    fn replicas_are_listed_by_name_whatever_their_ids_are() {
        let replica = |name: &str, node_id| ReplicaSummary {
            name: name.to_owned(),
            node_id,
            ..ReplicaSummary::default()
        };
        let group = GroupSummary {
            replicas: vec![replica("data-2", 1), replica("data-3", 5), replica("data-1", 9)],
            ..GroupSummary::default()
        };
        let reply = ListGroupsReply { groups: vec![group], ..ListGroupsReply::default() };
        let listing = shown_group(&sorted(reply).groups[0], Answer::default());
        let names: Vec<&str> = listing.rows.iter().map(|row| row[1].as_str()).collect();
        assert_eq!(names, ["data-1", "data-2", "data-3"]);
    }
}
