//! The search for a DISCO server that has a quorum, while the one in session has none.
//!
//! A server without a quorum cannot know whether the other servers have one. If they have, the
//! node's reports reach no leader, and its lease expires. So the node begins a session with each of
//! the other servers, and moves to the first one whose directive is fresh. Until then it keeps the
//! session with the old server. If no server has a quorum, nothing changes, and the node asks again
//! later.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use mesh::MeshId;
use proto::quorate::v1::NodeHello;
use raft::Host;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{
    ACCEPT_WITHIN, AcceptedSession, open_session,
    servers::{backoff, servers_to_try},
};

/// The longest pause between two rounds.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Asks all servers until one has a quorum, and returns the session that was begun with it.
pub(super) async fn find_quorum(
    host: Host,
    seeds: Vec<SocketAddr>,
    current: SocketAddr,
    hello: NodeHello,
) -> AcceptedSession {
    let mut rounds = 0;
    loop {
        if let Some(found) = ask_all(&host, &seeds, current, &hello).await {
            return found;
        }
        sleep(pause(rounds, rand::random())).await;
        rounds += 1;
    }
}

/// Asks every other server at once.
async fn ask_all(
    host: &Host,
    seeds: &[SocketAddr],
    current: SocketAddr,
    hello: &NodeHello,
) -> Option<AcceptedSession> {
    let mesh = host.mesh().watch_id().borrow().clone()?;
    let others = servers_to_try(seeds, host.mesh().book().hints(), None)
        .into_iter()
        .filter(|it| *it != current);
    let mut asked: FuturesUnordered<_> =
        others.map(|address| ask(address, hello.clone(), &mesh)).collect();
    while let Some(answer) = asked.next().await {
        if answer.is_some() {
            return answer;
        }
    }
    None
}

async fn ask(address: SocketAddr, hello: NodeHello, mesh: &MeshId) -> Option<AcceptedSession> {
    match timeout(ACCEPT_WITHIN, open_session(address, hello)).await {
        Ok(Ok(open)) => is_fresh(&open, mesh).then_some(open),
        Ok(Err(status)) => {
            debug!(%address, %status, "no session with DISCO here");
            None
        }
        Err(_) => None,
    }
}

fn is_fresh(open: &AcceptedSession, mesh: &MeshId) -> bool {
    let meta = open.first.meta.as_ref();
    meta.is_some_and(|meta| meta.stale_for_ms == 0 && meta.mesh_id == mesh.as_str())
}

/// How long to wait after so many rounds: it grows like the backoff without a session, but to a
/// longer pause, since the node has a session.
pub(super) fn pause(rounds: u32, jitter: f64) -> Duration {
    backoff(rounds, jitter).mul_f64(LONGEST_PAUSE.div_duration_f64(super::servers::LONGEST_BACKOFF))
}
