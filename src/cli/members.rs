//! `quorate members`: the servers of the mesh.

use clap::Args;
use proto::quorate::v1::{ListMembersReply, ListMembersRequest, MemberSummary};
use serde_json::{Value, json};

use super::{DiscoArgs, client::answer, print, shown, watch::WatchArgs};
use crate::{
    failure::Failure,
    output::{Format, Listing, known, node_id},
};

/// List the servers of the mesh: DISCO servers and data nodes.
#[derive(Args, Debug)]
#[command(long_about = "\
List the servers of the mesh: DISCO servers and data nodes.

  quorate members
  quorate members --disco 10.0.0.1:7400,10.0.0.2:7400 --format json

Columns: NODE NAME SERVICES STATE ROLE MESH KV REGION ZONE VERSION. STATE is up, stopping, silent
(not heard of for the time of its lease), down, removed or unknown; ROLE is told for DISCO servers.")]
pub(crate) struct MembersArgs {
    #[command(flatten)]
    disco: DiscoArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl MembersArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        self.watch.run(format, async || self.list(format).await).await
    }

    async fn list(&self, format: Format) -> Result<u8, Failure> {
        let reply = self
            .disco
            .client()
            .ask(ListMembersRequest {}, |mut registry, request| async move {
                registry.list_members(request).await
            })
            .await?;
        print(&listing(reply), format, "the mesh has no members")
    }
}

fn listing(mut reply: ListMembersReply) -> Listing {
    reply.members.sort_by(|a, b| (&a.name, a.node_id).cmp(&(&b.name, b.node_id)));
    Listing {
        name: "members",
        columns: &[
            "NODE", "NAME", "SERVICES", "STATE", "ROLE", "MESH", "KV", "REGION", "ZONE", "VERSION",
        ],
        rows: reply.members.iter().map(row).collect(),
        records: reply.members.iter().map(record).collect(),
        answer: answer(reply.meta),
    }
}

fn row(member: &MemberSummary) -> Vec<String> {
    let locality = member.locality.clone().unwrap_or_default();
    vec![
        node_id(member.node_id),
        shown(&member.name),
        member.services.join(","),
        shown(&member.state),
        shown(&member.role),
        shown(&member.mesh_address),
        shown(&member.kv_address),
        shown(&locality.region),
        shown(&locality.zone),
        shown(&member.version),
    ]
}

fn record(member: &MemberSummary) -> Value {
    let locality = member.locality.clone().unwrap_or_default();
    json!({
        "node_id": node_id(member.node_id),
        "name": member.name,
        "services": member.services,
        "state": member.state,
        "role": known(&member.role),
        "mesh_address": member.mesh_address,
        "kv_address": known(&member.kv_address),
        "region": known(&locality.region),
        "zone": known(&locality.zone),
        "version": known(&member.version),
    })
}
