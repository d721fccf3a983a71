//! How the DISCO servers are, as seen from this one.
//!
//! They hold no leases, so nothing says who is up. Whoever asks has them asked: each is called at
//! the address in the book, and is up if the server of that id answers.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use discovery::registry::ServerStatus;
use futures::future::join_all;
use mesh::dial::endpoint;
use proto::quorate::v1::{IdentifyRequest, mesh_client::MeshClient};
use raft::{MemberStatus, Status as GroupStatus};
use tokio::time::timeout;

use crate::shared::{Formed, Shared};

/// How long a server may take to say who it is.
const IDENTIFY_PATIENCE: Duration = Duration::from_millis(500);

/// The role and the health of each member of the DISCO group.
pub(crate) async fn statuses(shared: &Shared, formed: &Formed) -> BTreeMap<u64, ServerStatus> {
    let own_id = shared.host.identity().node_id;
    let group = formed.group.status();
    let asked = group.members.iter().map(|member| async {
        let up = member.node_id == own_id || is_up(shared, member.node_id).await;
        let role = role_of(&group, member, own_id).to_owned();
        (member.node_id, ServerStatus { role, up })
    });
    join_all(asked).await.into_iter().collect()
}

fn role_of(group: &GroupStatus, member: &MemberStatus, own_id: u64) -> &'static str {
    if group.leader == Some(member.node_id) {
        "leader"
    } else if member.node_id == own_id {
        group.role.as_str()
    } else if member.voter {
        "follower"
    } else {
        "learner"
    }
}

async fn is_up(shared: &Shared, node_id: u64) -> bool {
    let Some(address) = shared.host.mesh().book().address(node_id) else { return false };
    matches!(timeout(IDENTIFY_PATIENCE, identify(address)).await, Ok(Some(id)) if id == node_id)
}

async fn identify(address: SocketAddr) -> Option<u64> {
    let channel = endpoint(address).connect().await.ok()?;
    let reply = MeshClient::new(channel).identify(IdentifyRequest {}).await.ok()?;
    Some(reply.into_inner().node_id)
}
