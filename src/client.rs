//! The command line's side of the wire: connections to servers, tried one after the other.

use std::{net::SocketAddr, time::Duration};

use proto::quorate::v1::{AnswerMeta, mesh_client::MeshClient, registry_client::RegistryClient};
use raft::dial::endpoint;
use tokio::time::{Instant, timeout};
use tonic::{Response, Status, transport::Channel};

use crate::{
    failure::{Code, Failure, chain},
    output::{Answer, node_id},
    values::Addresses,
};

/// How long one server may take to accept a connection while there are others to try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Large meshes give large lists.
const MESSAGE_LIMIT: usize = 64 << 20;

/// DISCO, at whichever of its servers answers.
#[derive(Clone, Debug)]
pub(crate) struct Disco {
    addresses: Vec<SocketAddr>,
    timeout: Duration,
}

impl Disco {
    pub(crate) fn new(addresses: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { addresses, timeout }
    }

    /// Asks the servers in their order until one answers. A server that cannot answer now
    /// (`UNAVAILABLE`) is passed over like one that is not there.
    pub(crate) async fn ask<Q, A, F>(
        &self,
        request: Q,
        question: impl Fn(RegistryClient<Channel>, Q) -> F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut failures = Vec::new();
        for (position, &address) in self.addresses.iter().enumerate() {
            // A server that hangs leaves time for those after it.
            let left = u32::try_from(self.addresses.len() - position).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match ask_one(address, share, |client| question(client, request.clone())).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.retryable() => failures.push(failure),
                Err(failure) => return Err(failure),
            }
        }
        Err(self.nobody(failures))
    }

    fn nobody(&self, mut failures: Vec<Failure>) -> Failure {
        if failures.len() == 1 {
            return failures.remove(0);
        }
        if self.addresses.is_empty() {
            return Failure::usage("no DISCO server is named").hint("name some with --disco");
        }
        let timed_out = failures.iter().all(|failure| failure.code == Code::Timeout);
        let code = if timed_out { Code::Timeout } else { Code::Unreachable };
        let told: Vec<_> = failures.into_iter().map(|failure| failure.message).collect();
        let asked = Addresses(self.addresses.clone());
        Failure::new(code, format!("no DISCO server of {asked} answers: {}", told.join("; ")))
            .hint("are these the mesh addresses (port 7400) of running DISCO servers?")
    }
}

async fn ask_one<A, F>(
    address: SocketAddr,
    share: Duration,
    question: impl FnOnce(RegistryClient<Channel>) -> F,
) -> Result<A, Failure>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let asked = async {
        let channel = connect(address).await?;
        let client = RegistryClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        let reply = question(client).await;
        reply.map(Response::into_inner).map_err(|status| Failure::from_status(address, &status))
    };
    let timed_out = || Failure::new(Code::Timeout, format!("{address}: no answer in time"));
    timeout(share, asked).await.unwrap_or_else(|_| Err(timed_out()))
}

/// A connection to the mesh port of one server.
pub(crate) async fn connect(address: SocketAddr) -> Result<Channel, Failure> {
    let endpoint = endpoint(address)
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    endpoint.connect().await.map_err(|error| {
        Failure::new(Code::Unreachable, format!("{address} does not answer: {}", chain(&error)))
            .hint("is a server running there, and is this its mesh port (7400)?")
    })
}

/// The mesh service of one server.
pub(crate) async fn mesh(address: SocketAddr) -> Result<MeshClient<Channel>, Failure> {
    Ok(MeshClient::new(connect(address).await?).max_decoding_message_size(MESSAGE_LIMIT))
}

pub(crate) fn answer(meta: Option<AnswerMeta>) -> Answer {
    let meta = meta.unwrap_or_default();
    Answer {
        mesh_id: meta.mesh_id,
        revision: meta.revision,
        leader: (meta.leader_id != 0).then(|| node_id(meta.leader_id)),
        stale_for_ms: meta.stale_for_ms,
    }
}
