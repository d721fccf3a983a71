//! The command line's side of the wire: connections to servers, tried one after the other.

use std::{net::SocketAddr, time::Duration};

use mesh::dial::endpoint;
use proto::quorate::v1::{
    AnswerMeta, ConfigureServiceReply, DeregisterReply, DeregisterSilentReply, ListGroupsReply,
    ListInstancesReply, ListMembersReply, ListServicesReply, RegisterReply, RemoveMemberReply,
    RemoveServiceReply, RenewReply, SetHealthReply, mesh_client::MeshClient,
    registry_client::RegistryClient,
};
use tokio::time::{Instant, timeout};
use tonic::{Code as GrpcCode, Response, Status, transport::Channel};

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
    /// The mesh whose answers count; empty for any.
    mesh_id: String,
}

impl Disco {
    pub(crate) fn new(addresses: Vec<SocketAddr>, timeout: Duration) -> Self {
        Self { addresses, timeout, mesh_id: String::new() }
    }

    /// Asks this mesh only: an address may have gone to a server of another.
    pub(crate) fn of_mesh(mut self, mesh_id: impl Into<String>) -> Self {
        self.mesh_id = mesh_id.into();
        self
    }

    /// Asks no other mesh than that of this answer from here on, unless one was named before.
    pub(crate) fn settle(&mut self, meta: Option<&AnswerMeta>) {
        if let Some(meta) = meta
            && self.mesh_id.is_empty()
        {
            self.mesh_id.clone_from(&meta.mesh_id);
        }
    }

    /// The mesh that is asked; empty for any.
    pub(crate) fn mesh_id(&self) -> &str {
        &self.mesh_id
    }

    /// Asks the servers in their order until one answers. A server that cannot answer now
    /// (`UNAVAILABLE`) is passed over like one that is not there, and so is one of another mesh.
    /// One without a quorum has its say if nobody else answers.
    pub(crate) async fn ask<Q, A, F>(
        &self,
        request: Q,
        question: impl Fn(RegistryClient<Channel>, Q) -> F,
    ) -> Result<A, Failure>
    where
        Q: Clone,
        A: Reply,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut failures = Vec::new();
        let mut stale = None;
        for (position, &address) in self.addresses.iter().enumerate() {
            // A server that hangs leaves time for those after it.
            let left = u32::try_from(self.addresses.len() - position).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            let asked = ask_one(address, share, |client| question(client, request.clone())).await;
            match asked.and_then(|answer| self.check_mesh(address, answer)) {
                Ok(answer) if is_stale(&answer) => stale = stale.or(Some(answer)),
                Ok(answer) => return Ok(answer),
                Err(failure) if failure.retryable() => failures.push(failure),
                Err(failure) => return Err(failure),
            }
        }
        stale.ok_or_else(|| self.nobody(failures))
    }

    fn check_mesh<A: Reply>(&self, address: SocketAddr, answer: A) -> Result<A, Failure> {
        let theirs = answer.meta().map_or("", |meta| &meta.mesh_id);
        if self.mesh_id.is_empty() || theirs.is_empty() || theirs == self.mesh_id {
            return Ok(answer);
        }
        let ours = &self.mesh_id;
        Err(other_mesh(Failure::refused(format!(
            "{address}: this server belongs to mesh {theirs}, and mesh {ours} is meant"
        ))))
    }

    fn nobody(&self, mut failures: Vec<Failure>) -> Failure {
        if failures.len() == 1 {
            return failures.remove(0);
        }
        if self.addresses.is_empty() {
            return Failure::usage("no DISCO server is named").hint("name some with --disco");
        }
        // Of several causes, the common one.
        let mut codes = failures.iter().map(|failure| failure.code);
        let first = codes.next().unwrap_or(Code::Unreachable);
        let code = if codes.all(|code| code == first) { first } else { Code::Unreachable };
        let told: Vec<_> = failures.into_iter().map(|failure| failure.message).collect();
        let asked = Addresses(self.addresses.clone());
        Failure::new(code, format!("no DISCO server of {asked} answers: {}", told.join("; ")))
            .passing()
            .hint("are these the mesh addresses (port 7400) of running DISCO servers?")
    }
}

/// A reply that says which mesh answered, and how fresh the answer is.
pub(crate) trait Reply {
    /// Whether it is given only once a quorum has written something. Then it counts, however long
    /// ago the server had heard of a quorum, and asking again would be another request.
    const WRITTEN: bool = false;

    fn meta(&self) -> Option<&AnswerMeta>;
}

macro_rules! replies {
    ($written:literal: $($reply:ty),*) => {
        $(impl Reply for $reply {
            const WRITTEN: bool = $written;

            fn meta(&self) -> Option<&AnswerMeta> {
                self.meta.as_ref()
            }
        })*
    };
}

replies!(true: SetHealthReply, DeregisterReply, DeregisterSilentReply);
replies!(true: ConfigureServiceReply, RemoveServiceReply, RemoveMemberReply);
// A registration that stands already is renewed and not written.
replies!(false: RegisterReply, RenewReply);
replies!(false: ListServicesReply, ListInstancesReply, ListMembersReply, ListGroupsReply);

/// Whether the server has no quorum: what it lists may be old, and the renewals that it accepts may
/// have reached nobody.
fn is_stale<A: Reply>(answer: &A) -> bool {
    !A::WRITTEN && answer.meta().is_some_and(|meta| meta.stale_for_ms > 0)
}

fn other_mesh(failure: Failure) -> Failure {
    failure.passing().hint("its address may have gone to another mesh; --disco names the servers")
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
        reply.map(Response::into_inner).map_err(|status| refusal(address, &status))
    };
    let timed_out = || Failure::new(Code::Timeout, format!("{address}: no answer in time"));
    timeout(share, asked).await.unwrap_or_else(|_| Err(timed_out()))
}

fn refusal(address: SocketAddr, status: &Status) -> Failure {
    let failure = Failure::from_status(address, status);
    // The registry's only precondition is the mesh that is meant.
    let is_elsewhere = status.code() == GrpcCode::FailedPrecondition;
    if is_elsewhere { other_mesh(failure) } else { failure }
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
