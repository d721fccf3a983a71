//! Removing a member of the mesh that will not come back.
//!
//! Three things may have to be removed: the vote of a DISCO server, its record, and the record of a
//! data node. The vote is removed first, by a change of the DISCO group's membership, and only if a
//! majority of the remaining voters is up. A data node's replicas are removed by their groups.

use std::collections::BTreeSet;

use mesh::{NodeId, node_hex};
use proto::quorate::v1::{RegistryDone, RemoveNode, RemoveServer, registry_command::Command};
use raft::ChangeError;
use tonic::Status;

use crate::shared::{Formed, Shared};

/// Removes everything that the mesh has of the member.
pub(crate) async fn remove_member(
    shared: &Shared,
    formed: &Formed,
    node_id: u64,
) -> Result<RegistryDone, Status> {
    let (is_node, is_server) = shared
        .board
        .read(|registry| (registry.node(node_id).is_some(), registry.server(node_id).is_some()));
    let votes = formed.group.status().members.iter().any(|it| it.node_id == node_id);
    if votes && !shared.leases.leads() {
        return formed.renewals.remove_member_at_leader(node_id).await;
    }
    let mut done = RegistryDone::default();
    if votes {
        remove_from_group(shared, formed, node_id).await?;
        done.existed = true;
    }
    if is_server {
        let command = Command::RemoveServer(RemoveServer { node_id });
        formed.proposals.propose(command).await.map_err(|it| it.to_status())?;
        done.existed = true;
    }
    if is_node {
        let command = Command::RemoveNode(RemoveNode { node_id });
        let removed = formed.proposals.propose(command).await.map_err(|it| it.to_status())?;
        (done.existed, done.leaving) = (true, removed.leaving);
    }
    if done.existed {
        tracing::info!(node = %node_hex(node_id), leaving = done.leaving, "member removed");
    }
    Ok(done)
}

/// Takes a server that is down out of the DISCO group.
async fn remove_from_group(shared: &Shared, formed: &Formed, node_id: u64) -> Result<(), Status> {
    let status = formed.group.status();
    if node_id == shared.host.identity().node_id || !formed.servers.is_down(node_id) {
        return Err(Status::aborted(format!(
            "server {} is alive: stop it first",
            node_hex(node_id)
        )));
    }
    let left: BTreeSet<NodeId> = status
        .members
        .iter()
        .filter(|it| it.voter && it.node_id != node_id)
        .map(|it| it.node_id)
        .collect();
    let up = left.iter().filter(|it| !formed.servers.is_down(**it)).count();
    if 2 * up <= left.len() {
        return Err(Status::aborted(format!(
            "without server {} the DISCO group would have {} voters, of whom {up} are \
             up: too few for a quorum",
            node_hex(node_id),
            left.len()
        )));
    }
    let voted = status.members.iter().any(|it| it.voter && it.node_id == node_id);
    if voted {
        let changed = formed.group.change_voters(left, status.membership_log_id).await;
        changed.map_err(|error| refused(&error))?;
    }
    formed.group.remove_member(node_id, None).await.map_err(|error| refused(&error))
}

fn refused(error: &ChangeError) -> Status {
    Status::unavailable(format!("the DISCO group's membership was not changed: {error}"))
}
