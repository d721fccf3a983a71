//! Asks the other DISCO servers whether they have a quorum, while this one has none.

use std::{io, net::SocketAddr, time::Duration};

use futures::future::join_all;
use mesh::{MeshId, dial::endpoint};
use proto::quorate::v1::{AnswerMeta, ListGroupsRequest, registry_client::RegistryClient};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    clients::{ServerQuorum, StreamPolicy},
    shared::{Formed, Shared},
};

/// How long another server may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often this server checks whether it has a quorum, and if not, whether others may have one.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Keeps the stream policy of this server up to date.
pub(crate) async fn watch_other_servers(shared: &Shared, formed: &Formed) {
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = sleep(ASK_EVERY) => {}
        }
        let others = if shared.stale_for().is_zero() {
            Vec::new()
        } else {
            ask_others(shared, formed).await
        };
        let stale_for = shared.stale_for();
        let policy = StreamPolicy::new(stale_for, shared.config.stale_streams_after, &others);
        let before = *shared.policy.borrow();
        if policy == before {
            continue;
        }
        shared.policy.send_replace(policy);
        shared.board.call_all();
        if policy == StreamPolicy::Drain {
            let streams = shared.clients.figures(shared.now()).open;
            tracing::warn!(
                streams,
                ?stale_for,
                "this server has no quorum; its streams of discovery are ended, so that their \
                 clients can find a server that has one"
            );
        }
    }
}

/// Asks the other members of the DISCO group.
async fn ask_others(shared: &Shared, formed: &Formed) -> Vec<ServerQuorum> {
    let own_id = shared.host.identity().node_id;
    let members = formed.group.status().members;
    let others = members.iter().filter(|it| it.node_id != own_id);
    let mesh = shared.host.mesh().id();
    let asked = others.map(|it| {
        let (address, mesh) = (shared.host.mesh().book().address(it.node_id), mesh.as_ref());
        async move {
            let Some(address) = address else { return ServerQuorum::Silent };
            timeout(PATIENCE, ask(address, mesh)).await.unwrap_or(ServerQuorum::Silent)
        }
    });
    join_all(asked).await
}

async fn ask(address: SocketAddr, mesh: Option<&MeshId>) -> ServerQuorum {
    match TcpStream::connect(address).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return ServerQuorum::Down;
        }
        Err(_) => return ServerQuorum::Silent,
    }
    let Ok(channel) = endpoint(address).connect().await else { return ServerQuorum::Silent };
    match RegistryClient::new(channel).list_groups(ListGroupsRequest {}).await {
        Ok(reply) => {
            let AnswerMeta { mesh_id, stale_for_ms, .. } =
                reply.into_inner().meta.unwrap_or_default();
            match (mesh.is_some_and(|it| it.as_str() == mesh_id), stale_for_ms) {
                (true, 0) => ServerQuorum::HasQuorum,
                (true, _) | (false, _) => ServerQuorum::NoQuorum,
            }
        }
        Err(_) => ServerQuorum::NoQuorum,
    }
}
