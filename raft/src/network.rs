//! openraft's network: the clients of the other members of a group.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use mesh::{GroupId, MESSAGE_BYTES, Mesh, MeshId, NodeId};
use openraft::{
    OptionalSend, RPCTypes, RaftNetworkFactory,
    alias::SnapshotOf,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{
        Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    },
    raft::{
        AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest,
        VoteResponse,
    },
};
use proto::{
    millis,
    quorate::v1::{self as pb, raft_client::RaftClient},
};
use tokio::{sync::mpsc, task, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    codec,
    completeness_guard::CompletenessGuard,
    quorum::Contacts,
    reach::Complaints,
    state::{SnapshotData, SnapshotFile, StateStore},
    types::{LogId, Node, TypeConfig, Vote},
};

/// Size of a chunk of a Raft snapshot.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that are read before the network takes them.
const CHUNKS_AHEAD: usize = 4;
/// Pauses between attempts to reach an unreachable peer. Short, so that it is found soon after it
/// returns.
const BACKOFF: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(60), Duration::from_millis(150)];

/// Makes the clients of one group.
pub(crate) struct NetworkFactory {
    /// Members that cannot reach this server.
    pub(crate) complaints: Arc<Complaints>,
    pub(crate) mesh: Mesh,
    pub(crate) mesh_id: MeshId,
    pub(crate) group: GroupId,
    pub(crate) contacts: Contacts,
    pub(crate) store: StateStore,
    pub(crate) completeness: CompletenessGuard,
}

/// A client for one member of one group, over the connection that all groups share.
pub(crate) struct Network {
    complaints: Arc<Complaints>,
    link: MemberLink,
    contacts: Contacts,
    store: StateStore,
    completeness: CompletenessGuard,
}

/// What is needed to send messages to one member of a group.
#[derive(Clone)]
pub(crate) struct MemberLink {
    pub(crate) mesh: Mesh,
    pub(crate) mesh_id: MeshId,
    pub(crate) group: GroupId,
    pub(crate) target: NodeId,
    /// Zero if it is not known.
    pub(crate) target_store_id: u64,
}

impl MemberLink {
    pub(crate) fn client(&self) -> RaftClient<Channel> {
        client(self.mesh.peers().channel(self.target))
    }

    /// Made for each message, because the counted start of the target may change.
    pub(crate) fn envelope(&self) -> pb::Envelope {
        self.mesh.envelope(&self.mesh_id, self.group, self.target, self.target_store_id)
    }

    /// Handles a refused message: the target may have started again, so it is looked up.
    pub(crate) fn refused(&self, status: &Status) {
        if status.code() == Code::FailedPrecondition {
            self.mesh.request_lookup(self.target);
        }
    }

    fn error(&self, status: &Status) -> RPCError<TypeConfig> {
        self.refused(status);
        rpc_error(status)
    }
}

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: NodeId, node: &Node) -> Network {
        let link = MemberLink {
            mesh: self.mesh.clone(),
            mesh_id: self.mesh_id.clone(),
            group: self.group,
            target,
            target_store_id: node.store_id,
        };
        Network {
            link,
            complaints: self.complaints.clone(),
            contacts: self.contacts.clone(),
            store: self.store.clone(),
            completeness: self.completeness.clone(),
        }
    }
}

/// A client of the gRPC service on a connection.
pub(crate) fn client(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES)
}

impl Network {
    fn client(&self) -> RaftClient<Channel> {
        self.link.client()
    }

    /// Makes a call with one response, within openraft's time limit.
    async fn call<T>(
        &self,
        action: RPCTypes,
        option: &RPCOption,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Rpc<T> {
        match time::timeout(option.soft_ttl(), call).await {
            Ok(Ok(response)) => {
                self.contacts.record_contact(self.link.target);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.link.error(&status)),
            Err(_) => Err(RPCError::Timeout(Timeout {
                action,
                id: self.link.mesh.identity().node_id,
                target: self.link.target,
                timeout: option.soft_ttl(),
            })),
        }
    }

    /// Fails for a replica whose log lacks committed entries. It then requests no votes and is not
    /// elected.
    async fn may_request_votes(&self, rpc: &VoteRequest<TypeConfig>) -> Rpc<()> {
        // A leader that transfers its leadership has every committed entry, and so has its
        // successor.
        if rpc.leadership_transfer {
            return Ok(());
        }
        let last_index = rpc.last_log_id.map_or(0, |last| last.index);
        let allowed = self.completeness.may_campaign(rpc.vote.leader_id.term, last_index).await;
        allowed.map_err(|shortfall| {
            RPCError::Unreachable(Unreachable::from_string(shortfall.to_string()))
        })
    }

    fn vote_request(&self, rpc: &VoteRequest<TypeConfig>) -> pb::VoteRequest {
        pb::VoteRequest {
            envelope: Some(self.link.envelope()),
            vote: Some(codec::vote_to_proto(&rpc.vote)),
            last_log_id: rpc.last_log_id.as_ref().map(codec::log_id_to_proto),
            leadership_transfer: rpc.leadership_transfer,
        }
    }

    /// Fails if the target does not answer. Checked before a Raft snapshot is exported for it,
    /// because otherwise the export would be repeated for as long as the server is down.
    async fn check_reachable(&self) -> Rpc<()> {
        if self.link.mesh.reaches(self.link.target).await {
            return Ok(());
        }
        Err(RPCError::Unreachable(Unreachable::from_string("it does not answer")))
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::View(view) = snapshot.snapshot else {
            return Err(local_error("a received Raft snapshot is not sent on"));
        };
        self.check_reachable().await?;
        let store = self.store.clone();
        let file = task::spawn_blocking(move || SnapshotFile::export(&store, &view))
            .await
            .map_err(local_error)?
            .map_err(local_error)?;
        let header = pb::SnapshotHeader {
            envelope: Some(self.link.envelope()),
            vote: Some(codec::vote_to_proto(&vote)),
            meta: Some(codec::snapshot_meta_to_proto(&snapshot.meta)),
            size_bytes: file.size(),
        };
        tracing::info!(group = self.link.group, bytes = file.size(), "sending a Raft snapshot");
        let (parts, queue) = mpsc::channel(CHUNKS_AHEAD);
        let reading = task::spawn_blocking(move || read_parts(&file, header, &parts));
        let reply = self.client().snapshot(ReceiverStream::new(queue)).await;
        let reply = reply.map_err(|status| StreamingError::from(self.link.error(&status)))?;
        reading.await.map_err(local_error)?.map_err(local_error)?;
        let vote = codec::vote_from_proto(reply.into_inner().vote).map_err(local_error)?;
        Ok(SnapshotResponse::new(vote))
    }
}

impl NetStreamAppend<TypeConfig> for Network {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // openraft waits for its backoff before it yields a request. Taking the request before
            // dialing therefore makes a pause between two dials of a peer that refuses connections.
            let Some(first) = input.next().await else {
                return Ok(Box::pin(stream::empty()) as BoxStream<'s, _>);
            };
            let input = stream::iter([first]).chain(input);
            // Replies come in the order of the requests and do not repeat their content.
            let asked = Arc::new(Mutex::new(VecDeque::new()));
            let noted = asked.clone();
            let link = self.link.clone();
            let (contacts, told) = (self.contacts.clone(), self.contacts.clone());
            let target = link.target;
            let requests = input.map(move |request| {
                let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
                let range = (request.prev_log_id, last);
                noted.lock().unwrap_or_else(PoisonError::into_inner).push_back(range);
                append_to_proto(link.envelope(), &request, told.quorum_age())
            });
            let replies =
                self.client().append(requests).await.map_err(|status| self.link.error(&status))?;
            let link = self.link.clone();
            let complaints = self.complaints.clone();
            let replies = stream::unfold(Some(replies.into_inner()), move |replies| {
                let (asked, link) = (asked.clone(), link.clone());
                let (contacts, complaints) = (contacts.clone(), complaints.clone());
                async move {
                    let mut replies = replies?;
                    let reply = match replies.message().await {
                        Ok(None) => return None,
                        Ok(Some(reply)) => reply,
                        Err(status) => return Some((Err(link.error(&status)), None)),
                    };
                    contacts.record_contact(target);
                    contacts.record_level(target, reply.level);
                    complaints.note(link.target, reply.cannot_reach, Instant::now());
                    let range = asked.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((prev, last)) = range else {
                        let error = NetworkError::from_string("an answer to no request");
                        return Some((Err(error.into()), None));
                    };
                    match append_result(reply, prev, last) {
                        Ok(Ok(matching)) => Some((Ok(Ok(matching)), Some(replies))),
                        // After a conflict or a higher vote, the rest of the stream is of no use.
                        other => Some((other, None)),
                    }
                }
            });
            Ok(Box::pin(replies) as BoxStream<'s, _>)
        })
    }
}

impl NetVote<TypeConfig> for Network {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.may_request_votes(&rpc).await?;
        let mut client = self.client();
        let call = client.vote(self.vote_request(&rpc));
        vote_from_reply(self.call(RPCTypes::Vote, &option, call).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.may_request_votes(&rpc).await?;
        let mut client = self.client();
        let call = client.pre_vote(self.vote_request(&rpc));
        vote_from_reply(self.call(RPCTypes::Vote, &option, call).await?)
    }
}

impl NetSnapshot<TypeConfig> for Network {
    type SnapshotData = SnapshotData;

    // No time limit for the whole transfer, because its size is unknown. Keepalive finds a dead
    // connection.
    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => sent,
        }
    }
}

impl NetTransferLeader<TypeConfig> for Network {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let message = pb::TransferLeaderRequest {
            envelope: Some(self.link.envelope()),
            from: Some(codec::vote_to_proto(request.from_leader())),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().map(codec::log_id_to_proto),
        };
        let mut client = self.client();
        let call = client.transfer_leader(Request::new(message));
        let reply = self.call(RPCTypes::TransferLeader, &option, call).await?;
        if reply.accepted {
            return Ok(Ok(()));
        }
        let actual =
            codec::vote_from_proto(reply.vote).map_err(|error| NetworkError::new(&error))?;
        let expected = *request.from_leader();
        Ok(Err(TransferLeaderError::VoteChanged { expected, actual }))
    }
}

impl NetBackoff<TypeConfig> for Network {
    fn backoff(&self) -> Option<Backoff> {
        let [first, second, rest] = BACKOFF;
        Some(Backoff::new([first, second].into_iter().chain(std::iter::repeat(rest))))
    }
}

fn append_to_proto(
    envelope: pb::Envelope,
    request: &AppendEntriesRequest<TypeConfig>,
    quorum_age: Option<Duration>,
) -> pb::AppendRequest {
    pb::AppendRequest {
        envelope: Some(envelope),
        vote: Some(codec::vote_to_proto(&request.vote)),
        prev: request.prev_log_id.as_ref().map(codec::log_id_to_proto),
        committed: request.leader_commit.as_ref().map(codec::log_id_to_proto),
        entries: request.entries.iter().map(codec::entry_to_proto).collect(),
        // Rounded up, so that a quorum never looks more recent than it was.
        quorum_age_ms: quorum_age.map(|age| millis(age).saturating_add(1)),
    }
}

fn append_result(
    reply: pb::AppendReply,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> Rpc<StreamAppendResult<TypeConfig>> {
    let malformed = |_| RPCError::from(NetworkError::from_string("malformed answer to an append"));
    let outcome = reply.outcome.ok_or(codec::Malformed("append reply")).map_err(malformed)?;
    Ok(match outcome {
        pb::append_reply::Outcome::Success(_) => Ok(last),
        pb::append_reply::Outcome::Partial(partial) => {
            let matching = partial.matching.map(codec::log_id_from_proto);
            // A follower cannot match more than it was sent. A higher index would count entries
            // that it does not have.
            if matching < prev || matching > last {
                return Err(malformed(codec::Malformed("partial success")));
            }
            Ok(matching)
        }
        pb::append_reply::Outcome::Conflict(_) => {
            let prev = prev.ok_or(codec::Malformed("conflict")).map_err(malformed)?;
            Err(StreamAppendError::Conflict(prev))
        }
        pb::append_reply::Outcome::HigherVote(vote) => {
            let vote = codec::vote_from_proto(Some(vote)).map_err(malformed)?;
            Err(StreamAppendError::HigherVote(vote))
        }
    })
}

fn vote_from_reply(reply: pb::VoteReply) -> Rpc<VoteResponse<TypeConfig>> {
    let vote = codec::vote_from_proto(reply.vote).map_err(|error| NetworkError::new(&error))?;
    let last = reply.last_log_id.map(codec::log_id_from_proto);
    Ok(VoteResponse::new(vote, last, reply.granted))
}

/// Sends a file as messages, until it ends or the receiver is gone. Blocks.
fn read_parts(
    file: &SnapshotFile,
    header: pb::SnapshotHeader,
    parts: &mpsc::Sender<pb::SnapshotPart>,
) -> std::io::Result<()> {
    let part = |part| pb::SnapshotPart { part: Some(part) };
    if parts.blocking_send(part(pb::snapshot_part::Part::Header(header))).is_err() {
        return Ok(());
    }
    let mut chunks = file.reader()?;
    while let Some((offset, data)) = chunks.next(CHUNK_BYTES)? {
        let crc32c = crc32c::crc32c(&data);
        let chunk = pb::SnapshotChunk { offset, data: data.into(), crc32c };
        if parts.blocking_send(part(pb::snapshot_part::Part::Chunk(chunk))).is_err() {
            break;
        }
    }
    Ok(())
}

/// openraft pauses before it calls an unreachable peer again. A peer that refuses messages for a
/// known reason counts as unreachable too.
fn rpc_error(status: &Status) -> RPCError<TypeConfig> {
    match status.code() {
        Code::Unavailable | Code::FailedPrecondition | Code::Unimplemented => {
            RPCError::Unreachable(Unreachable::from_string(describe(status)))
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => RPCError::Network(NetworkError::from_string(describe(status))),
    }
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// A failure of this server. openraft repeats the transfer; the group continues.
fn local_error(error: impl ToString) -> StreamingError<TypeConfig> {
    StreamingError::Network(NetworkError::from_string(error.to_string()))
}
