//! The gRPC service `Raft`: the calls between the members of a group.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{Stream, StreamExt, TryStreamExt, stream};
use mesh::{
    MESSAGE_BYTES, NodeId,
    envelope::{EnvelopeError, Received},
    node_hex,
};
use openraft::{
    alias::SnapshotOf,
    base::BoxStream,
    raft::{
        AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
        TransferLeaderRequest, VoteRequest, VoteResponse,
    },
    vote::RaftLeaderId as _,
};
use proto::quorate::v1::{
    self as pb,
    raft_server::{self, RaftServer},
};
use tokio::task;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    codec::{self, Malformed},
    group::{Group, Proposed, ReadError},
    host::Host,
    state::{Receiver, SnapshotData, Staged, StateStore},
    types::{LogId, ProposalId, SnapshotMeta, TypeConfig, Vote},
};

/// The service for all groups of a host.
struct RaftService {
    host: Host,
}

/// How far the term of a message may be ahead of this replica's. Only years of elections would lead
/// further.
const MOST_TERMS_AHEAD: u64 = 1 << 30;

/// Largest reply that is sent to a replica that forwarded a command. The replica takes a larger one
/// from its own apply.
const REPLY_BYTES: usize = 1 << 20;

type Replies = BoxStream<'static, Result<pb::AppendReply, Status>>;

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    type AppendStream = Replies;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Replies>, Status> {
        // The response starts at once, so that a leader that has nothing to send yet does not wait
        // for it.
        let host = self.host.clone();
        // Otherwise an idle leader would keep the connection of a stopping server open.
        let stopping = host.stopping();
        let replies = stream::once(append(host, request.into_inner())).try_flatten();
        Ok(Response::new(Box::pin(replies.take_until(stopping))))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        let request = request.into_inner();
        let (group, source) = self.host.receive_with_source(request.envelope.as_ref())?;
        let rpc = vote_request(&request, source)?;
        check_term(&group, rpc.vote)?;
        let response = group.raft().vote(rpc).await.map_err(stopped)?;
        Ok(Response::new(vote_reply(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        let request = request.into_inner();
        let (group, source) = self.host.receive_with_source(request.envelope.as_ref())?;
        let rpc = vote_request(&request, source)?;
        check_term(&group, rpc.vote)?;
        let response = group.raft().pre_vote(rpc).await.map_err(stopped)?;
        Ok(Response::new(vote_reply(&response)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotPart>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|part| part.part);
        let Some(pb::snapshot_part::Part::Header(header)) = first else {
            return Err(Status::invalid_argument("a Raft snapshot starts with its header"));
        };
        let (group, source) = self.host.receive_with_source(header.envelope.as_ref())?;
        let vote = check_term(&group, leader_vote(header.vote, source)?)?;
        let meta = snapshot_meta(header.meta, &vote)?;
        check_against_committed(&group, meta.last_log_id)?;
        tracing::info!(group = group.id(), bytes = header.size_bytes, "receiving a Raft snapshot");
        let store = self.host.state_store();
        let staged = receive(store, &group, parts, header.size_bytes, meta.clone()).await?;
        // More entries may have been committed during the transfer.
        check_against_committed(&group, meta.last_log_id)?;
        let snapshot = SnapshotOf::<TypeConfig, _> { meta, snapshot: SnapshotData::Staged(staged) };
        let response = group.raft().install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        let vote = Some(codec::vote_to_proto(&response.vote));
        Ok(Response::new(pb::SnapshotReply { vote }))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderReply>, Status> {
        let request = request.into_inner();
        let (group, source) = self.host.receive_from_member(request.envelope.as_ref())?;
        let from = check_term(&group, leader_vote(request.from, source)?)?;
        let last = request.last_log_id.map(log_id).transpose()?;
        let transfer = TransferLeaderRequest::new(from, request.to, last);
        let answer = group.raft().handle_transfer_leader(transfer).await.map_err(stopped)?;
        let (accepted, vote) = match answer {
            Ok(()) => (true, from),
            Err(TransferLeaderError::VoteChanged { actual, .. }) => (false, actual),
            Err(TransferLeaderError::LogNotFlushed { .. }) => (false, from),
        };
        let vote = Some(codec::vote_to_proto(&vote));
        Ok(Response::new(pb::TransferLeaderReply { vote, accepted }))
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeReply>, Status> {
        let request = request.into_inner();
        let (group, node_id) = self.host.receive_from_member(request.envelope.as_ref())?;
        let proposal = ProposalId { node_id, number: request.proposal };
        let outcome = match group.propose(request.command, proposal).await {
            Proposed::Applied { index, reply } => {
                let reply = reply.filter(|reply| reply.len() <= REPLY_BYTES);
                pb::propose_reply::Outcome::Applied(pb::Applied {
                    index,
                    reply_omitted: reply.is_none(),
                    reply: reply.unwrap_or_default(),
                })
            }
            Proposed::Busy => pb::propose_reply::Outcome::Busy(pb::Blank {}),
            Proposed::TooNew { needs, level } => {
                let needs = needs.unwrap_or(0);
                pb::propose_reply::Outcome::TooNew(pb::TooNew { needs, level })
            }
            Proposed::NotLeader { leader, quorum_lost } => {
                pb::propose_reply::Outcome::NotLeader(pb::NotLeader {
                    leader_id: leader.unwrap_or(0),
                    quorum_lost,
                })
            }
            Proposed::Unknown(error) => return Err(Status::aborted(error.to_string())),
        };
        Ok(Response::new(pb::ProposeReply { outcome: Some(outcome) }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexReply>, Status> {
        let request = request.into_inner();
        let (group, _) = self.host.receive_from_member(request.envelope.as_ref())?;
        let outcome = match group.read_point().await {
            Ok(point) => pb::read_index_reply::Outcome::Index(point.index),
            Err(ReadError::NotLeader { leader }) => {
                let leader_id = leader.unwrap_or(0);
                let not_leader = pb::NotLeader { leader_id, quorum_lost: false };
                pb::read_index_reply::Outcome::NotLeader(not_leader)
            }
            Err(
                error
                @ (ReadError::NoLeader | ReadError::NoQuorum(_) | ReadError::DeadlineExceeded),
            ) => {
                return Err(Status::unavailable(error.to_string()));
            }
            Err(error @ ReadError::Stopped) => return Err(Status::aborted(error.to_string())),
        };
        Ok(Response::new(pb::ReadIndexReply { outcome: Some(outcome) }))
    }
}

/// Handles one leader's append stream. Its first message names the group and the sender.
async fn append(
    host: Host,
    mut requests: Streaming<pb::AppendRequest>,
) -> Result<impl Stream<Item = Result<pb::AppendReply, Status>>, Status> {
    let first = requests.message().await?;
    let first = first.ok_or_else(|| Status::invalid_argument("an empty append stream"))?;
    let (group, source) = host.receive_with_source(first.envelope.as_ref())?;
    let (receiving, answering) = (group.clone(), host.clone());
    // openraft's input holds requests only, no errors. So an error ends the input, and is sent
    // after the replies.
    let failure = Arc::new(Mutex::new(None));
    let told = failure.clone();
    let follower = group.clone();
    let input = stream::unfold((Some(first), requests), move |(first, mut requests)| {
        let (host, failure, group) = (host.clone(), failure.clone(), receiving.clone());
        let follower = follower.clone();
        async move {
            let next = match first {
                Some(first) => Ok(Some(first)),
                None => requests.message().await,
            };
            let checked = next.and_then(|request| {
                request
                    .map(|request| {
                        let (named, sender) =
                            host.receive_with_source(request.envelope.as_ref())?;
                        if (named.id(), sender) != (group.id(), source) {
                            return Err(malformed(Malformed("append stream: it has one group")));
                        }
                        let quorum_age = request.quorum_age_ms.map(Duration::from_millis);
                        let request = append_request(request, source)?;
                        check_term(&group, request.vote)?;
                        if let Some(age) = quorum_age {
                            group.contacts().record_reported_quorum(age);
                        }
                        Ok(request)
                    })
                    .transpose()
            });
            let followed = match checked {
                Ok(Some(request)) => may_follow(&follower, &request).await.map(|()| Some(request)),
                Ok(None) | Err(_) => checked,
            };
            match followed {
                Ok(request) => Some((request?, (None, requests))),
                Err(status) => {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
                    None
                }
            }
        }
    });
    // Otherwise openraft would wait for the next request of an idle leader.
    let input = input.take_until(group.stopping());
    let results: BoxStream<'static, _> = Box::pin(group.raft().stream_append(input));
    let level = group.commands().level;
    let replies = results.map(move |result| {
        let cannot_reach = answering.failed_probes().is_unreachable(source);
        result.map(|it| append_reply(it, level, cannot_reach)).map_err(stopped)
    });
    let end =
        stream::once(
            async move { told.lock().unwrap_or_else(PoisonError::into_inner).take().map(Err) },
        );
    let replies = replies.chain(end.filter_map(|failure| async { failure }));
    Ok(replies.take_until(group.stopping()))
}

/// Refuses a leader whose entries contradict committed ones here: openraft would truncate those.
async fn may_follow(
    group: &Group,
    request: &AppendEntriesRequest<TypeConfig>,
) -> Result<(), Status> {
    let (term, prev) = (request.vote.leader_id.term, request.prev_log_id.as_ref());
    let followed = group.completeness().may_follow(term, prev, &request.entries).await;
    followed.map_err(|found| Status::failed_precondition(format!("this member {found}")))
}

/// Receives a table file and ingests it as a new generation. Every error of the file is found here
/// and reported to the sender, before openraft is involved.
async fn receive(
    store: StateStore,
    group: &Group,
    mut parts: Streaming<pb::SnapshotPart>,
    size: u64,
    meta: SnapshotMeta,
) -> Result<Staged, Status> {
    let opened = store.clone();
    let mut receiver = blocking(move || Receiver::new(&opened, size)).await?;
    while let Some(part) = parts.message().await? {
        let Some(pb::snapshot_part::Part::Chunk(chunk)) = part.part else {
            return Err(Status::invalid_argument("a part that is no chunk"));
        };
        receiver = blocking(move || {
            receiver.write(chunk.offset, &chunk.data, chunk.crc32c).map(|()| receiver)
        })
        .await?;
    }
    let id = group.id();
    let file = blocking(move || receiver.finish()).await?;
    blocking(move || Staged::ingest(&store, id, &file, &meta)).await
}

async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    call: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Status> {
    task::spawn_blocking(call)
        .await
        .map_err(|_| Status::internal("receiving a Raft snapshot failed"))?
        .map_err(|error| {
            tracing::warn!(%error, source = ?error.source(), "refused a Raft snapshot");
            Status::internal(error.to_string())
        })
}

/// Checks everything that openraft assumes of a leader's request.
fn append_request(
    request: pb::AppendRequest,
    source: NodeId,
) -> Result<AppendEntriesRequest<TypeConfig>, Status> {
    let vote = leader_vote(request.vote, source)?;
    let prev_log_id = request.prev.map(log_id).transpose()?;
    let leader_commit = request.committed.map(log_id).transpose()?;
    let mut before = prev_log_id;
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in request.entries {
        let entry = codec::entry_from_proto(entry).map_err(malformed)?;
        let follows = before.map_or(0, |before| before.index + 1);
        // In consecutive log ids the index grows by one, and the term never decreases.
        if entry.log_id.index != follows || before > Some(entry.log_id) {
            return Err(malformed(Malformed("entries")));
        }
        before = Some(entry.log_id);
        entries.push(entry);
    }
    if before.max(leader_commit).is_some_and(|last| last.leader_id.term > vote.leader_id.term) {
        return Err(malformed(Malformed("entries of a later term than their leader's")));
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

/// Refuses a log id that contradicts the last committed entry here: its term is later, but its
/// index is not. A group that keeps the rules of Raft has no such leader.
fn check_against_committed(group: &Group, id: Option<LogId>) -> Result<(), Status> {
    let committed = group.committed();
    match (id, committed) {
        (Some(id), Some(committed)) if id > committed && id.index <= committed.index => {
            Err(Status::failed_precondition(format!(
                "entry {id} contradicts entry {committed}, which is committed here"
            )))
        }
        _ => Ok(()),
    }
}

fn snapshot_meta(meta: Option<pb::SnapshotMeta>, vote: &Vote) -> Result<SnapshotMeta, Status> {
    if let Some(last) = meta.as_ref().and_then(|meta| meta.last_log_id) {
        log_id(last)?;
    }
    let meta = codec::snapshot_meta_from_proto(meta).map_err(malformed)?;
    let last = meta.last_log_id.ok_or(Malformed("snapshot meta")).map_err(malformed)?;
    let members = *meta.last_membership.log_id();
    if last.leader_id.term > vote.leader_id.term || members > Some(last) {
        return Err(malformed(Malformed("snapshot meta")));
    }
    Ok(meta)
}

fn append_reply(
    result: StreamAppendResult<TypeConfig>,
    level: u32,
    cannot_reach: bool,
) -> pb::AppendReply {
    let outcome = match result {
        Ok(_) => pb::append_reply::Outcome::Success(pb::Blank {}),
        Err(StreamAppendError::Conflict(_)) => pb::append_reply::Outcome::Conflict(pb::Blank {}),
        Err(StreamAppendError::HigherVote(vote)) => {
            pb::append_reply::Outcome::HigherVote(codec::vote_to_proto(&vote))
        }
    };
    pb::AppendReply { outcome: Some(outcome), level, cannot_reach }
}

fn vote_request(
    request: &pb::VoteRequest,
    source: NodeId,
) -> Result<VoteRequest<TypeConfig>, Status> {
    let vote = own_vote(request.vote, source)?;
    let last = request.last_log_id.map(log_id).transpose()?;
    if vote.committed || last.is_some_and(|last| last.leader_id.term > vote.leader_id.term) {
        return Err(malformed(Malformed("vote")));
    }
    let mut rpc = VoteRequest::new(vote, last);
    rpc.leadership_transfer = request.leadership_transfer;
    Ok(rpc)
}

fn vote_reply(response: &VoteResponse<TypeConfig>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(codec::vote_to_proto(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(codec::log_id_to_proto),
    }
}

/// Refuses a term that no group reaches. The replica would store it, and no later terms would be
/// left for elections.
fn check_term(group: &Group, vote: Vote) -> Result<Vote, Status> {
    let ours = group.status().term;
    if vote.leader_id.term > ours.saturating_add(MOST_TERMS_AHEAD) {
        return Err(Status::invalid_argument(format!(
            "term {} is made up: this replica is in term {ours}",
            vote.leader_id.term
        )));
    }
    Ok(vote)
}

/// The vote of a leader, which a quorum has granted.
fn leader_vote(vote: Option<pb::Vote>, source: NodeId) -> Result<Vote, Status> {
    let vote = own_vote(vote, source)?;
    if !vote.committed {
        return Err(malformed(Malformed("vote")));
    }
    Ok(vote)
}

/// A vote that names its sender: no server sends the vote of another candidate or leader.
fn own_vote(vote: Option<pb::Vote>, source: NodeId) -> Result<Vote, Status> {
    let vote = codec::vote_from_proto(vote).map_err(malformed)?;
    if *vote.leader_id.node_id() != source {
        return Err(malformed(Malformed("vote")));
    }
    Ok(vote)
}

fn log_id(id: pb::LogId) -> Result<LogId, Status> {
    codec::bounded_log_id(id).map_err(malformed)
}

fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("the group does not answer: {error}"))
}

impl Host {
    /// The gRPC service for messages between the members of groups.
    pub fn raft_service(&self) -> RaftServer<impl raft_server::Raft + use<>> {
        RaftServer::new(RaftService { host: self.clone() })
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// The group and the sender of a message that only a known member may send. Votes and appends
    /// are not checked so: their sender may be a member that this server has not learned of yet.
    fn receive_from_member(
        &self,
        envelope: Option<&pb::Envelope>,
    ) -> Result<(Group, NodeId), EnvelopeError> {
        let (group, source) = self.receive_with_source(envelope)?;
        if !group.may_be_member(source) {
            return Err(EnvelopeError::NotAMember(node_hex(source)));
        }
        Ok((group, source))
    }

    fn receive_with_source(
        &self,
        envelope: Option<&pb::Envelope>,
    ) -> Result<(Group, NodeId), EnvelopeError> {
        let Received { group, source, .. } = self.mesh().receive(envelope)?;
        let group = self.started_group(group).ok_or(EnvelopeError::NoGroup(group))?;
        group.contacts().record_contact(source);
        Ok((group, source))
    }
}
