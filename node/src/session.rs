//! A data node's session with DISCO: the client side of `Registry.Session`.
//!
//! The node says who it is, then how its groups are: every third of its lease, and at once when a
//! group's leader or its own role changes. DISCO answers with orders: the groups to host, the
//! nodes that share them, and addresses, which go into the book. The latest orders and whether the
//! session is alive are published to the rest of the node.
//!
//! Any DISCO server will do. The node tries the seeds and every DISCO server in the book, in random
//! order, until one accepts it. When that server is lost, the node goes to another; when it has
//! lost its quorum, the node goes to one that has a quorum, if there is one. While no server
//! answers, the node serves what it has: losing DISCO is never an error.
//!
//! A refusal is an error if it comes from the node's own mesh, or if every seed refuses the node. A
//! single server of another mesh ends nothing, since other seeds may belong to the node's own.

mod elsewhere;
mod orders;
mod report;
mod servers;
mod state;
#[cfg(test)]
mod tests;
mod verdict;

use std::{collections::BTreeMap, future::pending, net::SocketAddr, pin::Pin, time::Duration};

use mesh::{AdoptError, MeshId, MeshMismatch};
use proto::quorate::v1::{
    Directive, NodeHello, NodeReport, NodeStopping, node_report::Report,
    registry_client::RegistryClient,
};
use raft::{Group, Host, StorageError, start::StartRefusal};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

pub(crate) use self::{
    orders::{Assignment, NodeState, Orders, Peer},
    servers::connect,
    state::{DiscoState, Link},
};
use self::{
    servers::{backoff, belongs_to, servers_to_try},
    verdict::{Verdict, verdict_of},
};

/// How long a DISCO server may take from the first byte to the first directive. In between it
/// commits the node's record, perhaps after a change of leader.
const ACCEPT_WITHIN: Duration = Duration::from_secs(5);

/// Reports that wait to be sent. A report that finds no room is dropped, since the next one
/// replaces it.
const REPORT_QUEUE: usize = 4;

/// Rounds without a session before the log says so: a few seconds.
const ROUNDS_BEFORE_WARNING: u32 = 5;

/// How long a node that DISCO refuses as a copy goes on: until its next Hello has found that out too
/// and has told the original, which must end as well (decision 8). Longer than the pause between two.
const UNTIL_HELLO_ENDS_BOTH: Duration = Duration::from_secs(7);

/// The lease assumed until DISCO names one.
const DEFAULT_TTL: Duration = Duration::from_secs(10);

/// The shortest time between two periodic reports, whatever DISCO asks for.
const REPORT_AT_MOST_EVERY: Duration = Duration::from_millis(200);

/// What a session says about its node.
#[derive(Clone, Debug)]
pub(crate) struct Introduction {
    pub(crate) mesh_address: SocketAddr,
    pub(crate) kv_address: SocketAddr,
    pub(crate) region: String,
    pub(crate) zone: String,
    pub(crate) name: String,
    pub(crate) version: String,
}

/// Why a session ends for good: going on could do harm.
#[derive(Debug, Error)]
pub enum SessionError {
    #[error(
        "this node's data directory belongs to mesh {ours}, but the DISCO server at {address} \
         belongs to mesh {theirs}"
    )]
    AnotherMesh { ours: MeshId, theirs: MeshId, address: SocketAddr },
    #[error("the DISCO server at {address} refuses this node: {message}")]
    Refused { address: SocketAddr, message: String },
    /// This node is running elsewhere, at the same start: the data directory was copied.
    #[error("the DISCO server at {address} refuses this node: {message}")]
    Copied { address: SocketAddr, message: String },
    #[error("{refusal} (this start is number {ours}, the mesh has seen number {seen})")]
    RolledBack { refusal: StartRefusal, ours: u64, seen: u64 },
    #[error("the mesh cannot be joined")]
    Adopt(#[source] AdoptError),
    #[error("the groups on this node's disk cannot be listed")]
    Storage(#[from] StorageError),
}

impl SessionError {
    /// Whether a safety rule refused this node, so that a person must look.
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::AnotherMesh { .. }
            | Self::Refused { .. }
            | Self::Copied { .. }
            | Self::RolledBack { .. } => true,
            Self::Adopt(_) | Self::Storage(_) => false,
        }
    }
}

/// The client's end of the session; [`Session::run`] keeps it up.
#[derive(Debug)]
pub(crate) struct Session {
    host: Host,
    seeds: Vec<SocketAddr>,
    introduction: Introduction,
    /// The groups to report on; marked as changed when one of them is worth a report.
    hosted: watch::Receiver<Vec<Group>>,
    state: watch::Sender<DiscoState>,
    stopping: CancellationToken,
    accepted_before: bool,
}

/// How the rest of the node talks to the session.
#[derive(Clone, Debug)]
pub(crate) struct SessionHandle {
    pub(crate) state: watch::Receiver<DiscoState>,
    stopping: CancellationToken,
}

/// A session that a server has accepted.
struct AcceptedSession {
    address: SocketAddr,
    reports: mpsc::Sender<NodeReport>,
    directives: Streaming<Directive>,
    first: Directive,
}

/// What a directive asks of the session itself.
struct AppliedDirective {
    /// How long the node's lease lasts.
    ttl: Duration,
    /// Whether the server had a quorum.
    fresh: bool,
}

/// The search for a server with a quorum.
type Search = Pin<Box<dyn Future<Output = AcceptedSession> + Send>>;

/// What follows an exchange.
enum Next {
    /// A session with another server has taken its place.
    Moved(Box<AcceptedSession>),
    Ended(Ended),
}

/// Why a session ended.
enum Ended {
    /// Try another server.
    Lost(Status),
    /// This server will never accept the node; another one may.
    Refused(SessionError),
    /// Try no server: the node must stop.
    Fatal(SessionError),
}

impl Session {
    pub(crate) fn new(
        host: Host,
        seeds: Vec<SocketAddr>,
        introduction: Introduction,
        hosted: watch::Receiver<Vec<Group>>,
    ) -> (Self, SessionHandle) {
        let state = watch::Sender::new(DiscoState::default());
        let handle = SessionHandle { state: state.subscribe(), stopping: CancellationToken::new() };
        let seen = state.subscribe();
        host.add_progress_source(move |group| seen.borrow().disco_progress(group));
        let session = Self {
            host,
            seeds,
            introduction,
            hosted,
            state,
            stopping: handle.stopping.clone(),
            accepted_before: false,
        };
        (session, handle)
    }

    /// Keeps a session up until shutdown.
    ///
    /// # Errors
    ///
    /// Only when going on could do harm: see [`SessionError`].
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), SessionError> {
        let ended = shutdown.run_until_cancelled(self.run_sessions()).await;
        self.mark_lost();
        ended.map_or(Ok(()), Err)
    }

    async fn run_sessions(&mut self) -> SessionError {
        let mut last: Option<SocketAddr> = None;
        let mut failed_rounds = 0;
        loop {
            let mut lost = false;
            let mut refusals = BTreeMap::new();
            for address in servers_to_try(&self.seeds, self.host.mesh().book().hints(), last) {
                let mut address = address;
                let ended = self.run_session(&mut address).await;
                let was_live = self.mark_lost();
                match ended {
                    Ended::Fatal(error) => return error,
                    Ended::Lost(status) if was_live => {
                        warn!(%address, %status, "lost DISCO");
                        last = Some(address);
                        failed_rounds = 0;
                        lost = true;
                        break;
                    }
                    Ended::Lost(status) => debug!(%address, %status, "no session with DISCO here"),
                    Ended::Refused(error) => {
                        if failed_rounds == 0 {
                            warn!(%error, "refused by one DISCO server; trying the others");
                        }
                        refusals.insert(address, error);
                    }
                }
            }
            if let Some(error) = refused_by_all(&self.seeds, refusals) {
                return error;
            }
            if !lost {
                self.state.send_if_modified(|state| state.set_link(Link::Unreached));
            }
            // Servers that start together do not find each other at once.
            if failed_rounds == ROUNDS_BEFORE_WARNING {
                warn!(seeds = ?self.seeds, "no DISCO server accepts this node; trying on");
            }
            sleep(backoff(failed_rounds, rand::random())).await;
            failed_rounds += 1;
        }
    }

    /// Runs a session from dialing the server to its end. If the session moves to another server,
    /// `address` becomes that server's.
    async fn run_session(&mut self, address: &mut SocketAddr) -> Ended {
        let hello = match self.hello() {
            Ok(hello) => hello,
            Err(error) => return Ended::Fatal(error.into()),
        };
        let mut session = match timeout(ACCEPT_WITHIN, open_session(*address, hello)).await {
            Ok(Ok(open)) => open,
            Ok(Err(status)) => return self.ended_by(*address, status).await,
            Err(_) => return Ended::Lost(Status::deadline_exceeded("no directive in time")),
        };
        loop {
            *address = session.address;
            session = match self.exchange(session).await {
                Next::Moved(other) => *other,
                Next::Ended(ended) => return ended,
            };
        }
    }

    /// Sends reports and applies directives until the session ends or moves.
    async fn exchange(&mut self, session: AcceptedSession) -> Next {
        let AcceptedSession { address, reports, mut directives, first } = session;
        let mut applied = match self.apply_directive(first, address) {
            Ok(applied) => applied,
            Err(ended) => return Next::Ended(ended),
        };
        self.accepted_before = true;
        info!(%address, fresh = applied.fresh, "in session with DISCO");
        let mut search: Option<Search> = None;
        let mut report_at = Instant::now();
        let mut said_stopping = false;
        loop {
            if applied.fresh {
                search = None;
            } else if search.is_none() {
                search = match self.search(address) {
                    Ok(search) => Some(search),
                    Err(error) => return Next::Ended(Ended::Fatal(error.into())),
                };
            }
            tokio::select! {
                directive = directives.message() => {
                    match self.handle_directive(directive, address).await {
                        Ok(next) => applied = next,
                        Err(ended) => return Next::Ended(ended),
                    }
                }
                found = search_result(&mut search) => {
                    info!(%address, other = %found.address, "leaving a DISCO server without a quorum");
                    return Next::Moved(Box::new(found));
                }
                () = self.stopping.cancelled(), if !said_stopping => {
                    said_stopping = true;
                    send(&reports, Report::Stopping(NodeStopping {}));
                }
                Ok(()) = self.hosted.changed() => self.report(&reports),
                () = sleep_until(report_at) => {
                    report_at = Instant::now() + (applied.ttl / 3).max(REPORT_AT_MOST_EVERY);
                    self.report(&reports);
                }
            }
        }
    }

    async fn handle_directive(
        &self,
        directive: Result<Option<Directive>, Status>,
        address: SocketAddr,
    ) -> Result<AppliedDirective, Ended> {
        match directive {
            Ok(Some(directive)) => self.apply_directive(directive, address),
            Ok(None) => Err(Ended::Lost(Status::unavailable("the server ended it"))),
            Err(status) => Err(self.ended_by(address, status).await),
        }
    }

    fn search(&self, current: SocketAddr) -> Result<Search, StorageError> {
        let (host, seeds, hello) = (self.host.clone(), self.seeds.clone(), self.hello()?);
        Ok(Box::pin(elsewhere::find_quorum(host, seeds, current, hello)))
    }

    fn hello(&self) -> Result<NodeHello, StorageError> {
        let identity = self.host.identity();
        let mesh = self.host.mesh().watch_id();
        let mesh_id = mesh.borrow().as_ref().map(MeshId::to_string);
        let groups = self.host.groups_on_disk()?;
        Ok(report::hello(&self.introduction, &identity, mesh_id.unwrap_or_default(), groups))
    }

    fn report(&self, reports: &mpsc::Sender<NodeReport>) {
        let hosted = self.hosted.borrow().clone();
        send(reports, Report::Status(report::status(&hosted)));
    }

    /// Applies a directive: the mesh first, then the addresses, then the orders.
    ///
    /// Orders never go back: those of a server without a quorum are left out if the node has some
    /// of a later revision.
    fn apply_directive(
        &self,
        directive: Directive,
        address: SocketAddr,
    ) -> Result<AppliedDirective, Ended> {
        let mesh_id = directive.meta.as_ref().map_or("", |meta| &meta.mesh_id);
        let mesh = self.adopt(mesh_id, address)?;
        let identity = self.host.identity();
        for hint in orders::hints(&directive) {
            if hint.node_id != identity.node_id {
                self.host.mesh().book().learn(hint);
            } else if hint.boot_epoch > identity.boot_epoch {
                return Err(Ended::Fatal(SessionError::RolledBack {
                    refusal: StartRefusal::RolledBack,
                    ours: identity.boot_epoch,
                    seen: hint.boot_epoch,
                }));
            }
        }
        let ttl = match directive.ttl_ms {
            0 => DEFAULT_TTL,
            ttl_ms => Duration::from_millis(ttl_ms),
        };
        let revision = directive.meta.as_ref().map_or(0, |meta| meta.revision);
        let orders = orders::from_proto(mesh, &directive);
        let fresh = orders.fresh;
        self.state.send_modify(|state| {
            state.link = Link::Live;
            state.stopping_noted |= directive.stopping_noted;
            state.follow(orders, revision);
        });
        Ok(AppliedDirective { ttl, fresh })
    }

    fn adopt(&self, mesh_id: &str, address: SocketAddr) -> Result<MeshId, Ended> {
        let Ok(theirs) = mesh_id.parse::<MeshId>() else {
            let what = format!("a directive without a mesh id ({mesh_id:?})");
            return Err(Ended::Lost(Status::internal(what)));
        };
        match self.host.mesh().adopt_mesh(&theirs) {
            Ok(()) => Ok(theirs),
            Err(AdoptError::Mismatch(MeshMismatch { ours, .. })) if self.accepted_before => {
                // A foreign server at a known address must not stop a node that serves.
                warn!(%address, %ours, %theirs, "a DISCO server of another mesh");
                Err(Ended::Lost(Status::failed_precondition("another mesh")))
            }
            Err(AdoptError::Mismatch(MeshMismatch { ours, theirs })) => {
                Err(Ended::Refused(SessionError::AnotherMesh { ours, theirs, address }))
            }
            Err(error @ AdoptError::Io(_)) => Err(Ended::Fatal(SessionError::Adopt(error))),
        }
    }

    async fn ended_by(&self, address: SocketAddr, status: Status) -> Ended {
        let verdict = verdict_of(status.code(), self.accepted_before);
        if verdict == Verdict::TryAnother {
            return Ended::Lost(status);
        }
        let message = status.message().to_owned();
        let refused = if status.code() == Code::AlreadyExists {
            SessionError::Copied { address, message }
        } else {
            SessionError::Refused { address, message }
        };
        let mesh = self.host.mesh().id();
        let is_own = match mesh {
            Some(mesh) => belongs_to(address, &mesh).await,
            None => false,
        };
        if is_own && matches!(refused, SessionError::Copied { .. }) {
            sleep(UNTIL_HELLO_ENDS_BOTH).await;
        }
        match verdict {
            Verdict::Final if is_own => Ended::Fatal(refused),
            Verdict::Final if self.accepted_before => Ended::Lost(status),
            Verdict::Final => Ended::Refused(refused),
            Verdict::TryAnother => Ended::Lost(status),
        }
    }

    /// Notes that the session ended. Returns whether there was one.
    fn mark_lost(&self) -> bool {
        self.state.send_if_modified(|state| state.link == Link::Live && state.set_link(Link::Lost))
    }
}

impl SessionHandle {
    /// Tells DISCO that the node stops, and waits at most `within` until DISCO has noted it. If the
    /// server of the session stops too, the next server is told.
    pub(crate) async fn announce_stop(&self, within: Duration) -> bool {
        self.stopping.cancel();
        let mut state = self.state.clone();
        let answered =
            state.wait_for(|state| state.stopping_noted || state.link == Link::Unreached);
        match timeout(within, answered).await {
            Ok(Ok(state)) => state.stopping_noted,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// The refusal that ends the node: one of them, if every seed has refused it in this round. A seed
/// that does not answer may be of the node's own mesh.
fn refused_by_all(
    seeds: &[SocketAddr],
    mut refusals: BTreeMap<SocketAddr, SessionError>,
) -> Option<SessionError> {
    let all = !seeds.is_empty() && seeds.iter().all(|seed| refusals.contains_key(seed));
    all.then(|| refusals.pop_first()).flatten().map(|(_, error)| error)
}

/// Dials, introduces the node and waits for the first directive.
async fn open_session(address: SocketAddr, hello: NodeHello) -> Result<AcceptedSession, Status> {
    let channel = connect(address).await?;
    let (reports, queue) = mpsc::channel(REPORT_QUEUE);
    send(&reports, Report::Hello(hello));
    let mut client = RegistryClient::new(channel);
    let mut directives = client.session(ReceiverStream::new(queue)).await?.into_inner();
    let first = directives.message().await?;
    let first = first.ok_or_else(|| Status::unavailable("the server ended it"))?;
    Ok(AcceptedSession { address, reports, directives, first })
}

/// Waits for the result of a search; for ever, if there is none.
async fn search_result(search: &mut Option<Search>) -> AcceptedSession {
    match search {
        Some(search) => search.await,
        None => pending().await,
    }
}

fn send(reports: &mpsc::Sender<NodeReport>, report: Report) {
    let report = NodeReport { report: Some(report) };
    if reports.try_send(report).is_err() {
        debug!("DISCO is slow to take reports");
    }
}
