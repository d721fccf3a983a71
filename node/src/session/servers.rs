//! Which servers to try, in which order, and how to reach one.

use std::{net::SocketAddr, time::Duration};

use mesh::{Hint, MeshId, dial::endpoint};
use proto::quorate::v1::{IdentifyRequest, mesh_client::MeshClient};
use rand::seq::SliceRandom;
use tokio::time::timeout;
use tonic::{Status, transport::Channel};

/// The service that DISCO servers run.
const DISCO: &str = "disco";

/// How long a server may take to accept a connection. A machine that is gone does not answer at
/// all.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// A server that leaves an HTTP/2 ping unanswered for this long is lost.
const PING_ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// How often an idle connection is pinged.
const PING_EVERY: Duration = Duration::from_secs(2);

/// How long a server may take to say who it is.
const IDENTIFIED_WITHIN: Duration = Duration::from_secs(2);

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// How long to wait after so many rounds without a session. `jitter` is from 0 to 1; half of the
/// wait is random, so that nodes which lost DISCO together do not come back together.
pub(crate) fn backoff(failed_rounds: u32, jitter: f64) -> Duration {
    let grown = FIRST_BACKOFF.saturating_mul(1_u32.checked_shl(failed_rounds).unwrap_or(u32::MAX));
    let full = grown.min(LONGEST_BACKOFF);
    full.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// Every DISCO server that is known, each once, shuffled, the one just lost last.
pub(crate) fn servers_to_try(
    seeds: &[SocketAddr],
    hints: Vec<Hint>,
    just_lost: Option<SocketAddr>,
) -> Vec<SocketAddr> {
    let learned = hints
        .into_iter()
        .filter(|hint| hint.services.iter().any(|it| it == DISCO))
        .map(|hint| hint.address);
    let mut addresses: Vec<SocketAddr> = seeds.iter().copied().chain(learned).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.shuffle(&mut rand::rng());
    addresses.sort_by_key(|address| Some(*address) == just_lost);
    addresses
}

/// Connects to a server, with pings, so that a dead one is noticed within seconds.
pub(crate) async fn connect(address: SocketAddr) -> Result<Channel, Status> {
    let endpoint = endpoint(address)
        .connect_timeout(CONNECT_WITHIN)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWERED_WITHIN)
        .keep_alive_while_idle(true);
    let connecting = endpoint.connect().await;
    connecting.map_err(|error| Status::unavailable(crate::chain(&error).to_string()))
}

/// Whether the server at an address belongs to a mesh, as it says itself.
pub(crate) async fn belongs_to(address: SocketAddr, mesh: &MeshId) -> bool {
    let identify = async {
        let mut client = MeshClient::new(connect(address).await?);
        client.identify(IdentifyRequest {}).await
    };
    match timeout(IDENTIFIED_WITHIN, identify).await {
        Ok(Ok(identity)) => identity.into_inner().mesh_id == mesh.as_str(),
        Ok(Err(_)) | Err(_) => false,
    }
}
