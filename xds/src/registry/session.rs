//! The server side of a data node's session with DISCO.
//!
//! The node reports who it is and how its groups are. The session brings the registry's record of
//! the node up to date, and tells the node which groups it hosts and where the other nodes are, at
//! the start and whenever that changes. What to propose and what to send are read from the registry
//! each time, so a session can break at any point and begin again at any server.
//!
//! A session that breaks changes nothing. The node's lease decides whether the node is up, as for
//! every instance.
//!
//! Sessions go on without a quorum, since nodes must find each other even then. A directive then
//! says that it is old, and the node searches for a server with a quorum. If this server is cut
//! off, only the node can find out whether there is one.

mod directive;
mod node;

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use mesh::{Hint, node_hex};
use proto::quorate::v1::{Directive, NodeHello, NodeReport, RegistryDone, node_report::Report};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tonic::{Status, Streaming};
use tracing::Instrument;

use self::node::{NodeCommand, RecordState, SessionNode};
use crate::{
    leader::ProposeError,
    shared::{Formed, Shared},
};

/// How long a node may take to say who it is.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// How long a node may take to read a directive before its session is closed.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Directives that the connection has not taken yet.
pub(crate) const DIRECTIVE_QUEUE: usize = 1;

/// How often a session checks for changes that are not announced: addresses that the book has
/// learned.
const LOOK: Duration = Duration::from_secs(1);

/// How often the progress of a node's groups is recorded while they are written. What they
/// acknowledge in between is remembered by the members that run, and by this server if it was
/// reported here.
const PROGRESS: Duration = Duration::from_secs(10);

/// Pause after a proposal that failed.
const RETRY: Duration = Duration::from_millis(500);

type ProposalFuture =
    Pin<Box<dyn Future<Output = (NodeCommand, Result<RegistryDone, ProposeError>)> + Send>>;

/// One session, from the node's hello to its end.
pub(crate) struct Session {
    shared: Arc<Shared>,
    formed: Formed,
    number: u64,
    node: SessionNode,
    reports: Streaming<NodeReport>,
    directives: mpsc::Sender<Result<Directive, Status>>,
    /// The directive that was last sent, without its meta, and whether the meta said that it is
    /// old.
    last_sent: Option<(Directive, bool)>,
    /// The revision that the last directive named, and when it was sent.
    sent_revision: (u64, Instant),
    /// The proposal under way.
    proposal: Option<ProposalFuture>,
    retry_at: Instant,
    progress_at: Instant,
    /// Whether the last proposal found no leader or no quorum. The staleness of this server shows
    /// that only later.
    cut_off: bool,
}

/// Why a session ended.
enum End {
    Closed,
    Stopping,
    Refused(Status),
}

impl Session {
    /// Holds a session from its first report to its end.
    pub(crate) async fn serve(
        shared: Arc<Shared>,
        formed: Formed,
        mut reports: Streaming<NodeReport>,
        directives: mpsc::Sender<Result<Directive, Status>>,
    ) {
        let node = match accept_hello(&shared, &mut reports).await {
            Ok(node) => node,
            Err(status) => {
                tracing::warn!(%status, "a node's session was refused");
                let _ = directives.send(Err(status)).await;
                return;
            }
        };
        let number = shared.next_session();
        let node_id = node.node_id();
        let span = tracing::info_span!("session", session = number, node = %node_hex(node_id));
        let session = Self {
            shared: Arc::clone(&shared),
            formed,
            number,
            node,
            reports,
            directives,
            last_sent: None,
            sent_revision: (0, Instant::now()),
            proposal: None,
            retry_at: Instant::now(),
            progress_at: Instant::now(),
            cut_off: false,
        };
        session.run().instrument(span).await;
        shared.reports.forget(node_id, number);
    }

    async fn run(mut self) {
        let mut topology = self.shared.board.topology();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            topology.mark_unchanged();
            self.begin_proposal();
            if let Err(end) = self.send_directive().await {
                break end;
            }
            if let Err(end) = self.step(&mut topology, &mut looks).await {
                break end;
            }
        };
        match end {
            End::Closed => tracing::debug!("the session ended"),
            End::Stopping => tracing::debug!("the session ends, since the server stops"),
            End::Refused(status) => {
                tracing::warn!(%status, "the session was ended");
                let _ = timeout(WRITE_DEADLINE, self.directives.send(Err(status))).await;
            }
        }
    }

    async fn step(
        &mut self,
        topology: &mut watch::Receiver<u64>,
        looks: &mut Interval,
    ) -> Result<(), End> {
        let proposal = async {
            match &mut self.proposal {
                Some(proposal) => proposal.await,
                None => pending().await,
            }
        };
        // The session of this process's own node goes on, since that node has yet to report that it
        // stops.
        let is_own_node = self.node.node_id() == self.shared.host.identity().node_id;
        tokio::select! {
            () = self.shared.stopping.cancelled(), if !is_own_node => Err(End::Stopping),
            () = self.directives.closed() => Err(End::Closed),
            report = self.reports.message() => match report {
                Ok(Some(report)) => self.handle_report(report),
                Ok(None) | Err(_) => Err(End::Closed),
            },
            (command, outcome) = proposal => {
                self.proposal = None;
                self.finish_proposal(&command, outcome)
            }
            changed = topology.changed() => changed.map_err(|_| End::Stopping),
            _ = looks.tick() => Ok(()),
        }
    }

    fn handle_report(&mut self, report: NodeReport) -> Result<(), End> {
        match report.report {
            Some(Report::Status(status)) => {
                self.shared.reports.put(self.node.node_id(), self.number, status.clone());
                self.node.report(status);
                if let RecordState::Recorded { lease_id, .. } = self.record_state() {
                    self.formed.renewals.renew_soon(lease_id, self.node.node_id());
                }
                Ok(())
            }
            Some(Report::Stopping(_)) => {
                tracing::info!("the node stops");
                self.node.stop();
                self.retry_at = Instant::now();
                Ok(())
            }
            Some(Report::Hello(_)) => {
                let message = "a node says hello once; begin another session";
                Err(End::Refused(Status::invalid_argument(message)))
            }
            // A report of a later version.
            None => Ok(()),
        }
    }

    /// Begins the next proposal, if one is missing and none is under way.
    fn begin_proposal(&mut self) {
        if self.proposal.is_some() || Instant::now() < self.retry_at {
            return;
        }
        let progress_due = Instant::now() >= self.progress_at;
        let command = self.shared.board.read(|registry| {
            let progress = || progress_due.then(|| self.node.progress_command(registry)).flatten();
            self.node.next_command(registry).or_else(progress)
        });
        let Some(command) = command else {
            if progress_due {
                self.progress_at = Instant::now() + PROGRESS;
            }
            return;
        };
        let proposals = self.formed.proposals.clone();
        self.proposal = Some(Box::pin(async move {
            let outcome = proposals.propose(command.clone().into_command()).await;
            (command, outcome)
        }));
    }

    fn finish_proposal(
        &mut self,
        command: &NodeCommand,
        outcome: Result<RegistryDone, ProposeError>,
    ) -> Result<(), End> {
        let error = match outcome {
            Ok(_) => {
                self.cut_off = false;
                return Ok(());
            }
            Err(error) => error,
        };
        let is_own_record = matches!(command, NodeCommand::Record(_));
        if is_own_record && (error.is_refusal() || self.record_state() == RecordState::Unknown) {
            return Err(End::Refused(error.to_status()));
        }
        tracing::debug!(%error, task = ?command, "a proposal for the node failed");
        self.cut_off = !error.is_refusal();
        self.retry_at = Instant::now() + RETRY;
        Ok(())
    }

    /// Sends a directive, if its content or its staleness differs from the last one.
    ///
    /// A node whose record is outdated gets a directive only while the registry cannot be written:
    /// its record cannot be brought up to date then, and the node must find the others all the
    /// same.
    async fn send_directive(&mut self) -> Result<(), End> {
        let meta = self.shared.meta();
        let is_old = meta.stale_for_ms > 0;
        let lease_id = match self.record_state() {
            RecordState::Recorded { lease_id, .. } => lease_id,
            RecordState::Outdated if self.cut_off || is_old => 0,
            RecordState::Outdated | RecordState::Unknown => return Ok(()),
        };
        let ttl = self.formed.renewals.ttl(lease_id);
        let next = Some((directive::of(&self.shared, &self.node, ttl), is_old));
        // Data nodes remember how far DISCO's own group has come, so they are told its revision
        // from time to time.
        let (revision, sent_at) = self.sent_revision;
        let is_remembered = meta.revision == revision || sent_at.elapsed() < PROGRESS;
        if self.last_sent == next && is_remembered {
            return Ok(());
        }
        self.last_sent = next;
        self.sent_revision = (meta.revision, Instant::now());
        let Some((directive, _)) = &self.last_sent else { return Ok(()) };
        let message = Directive { meta: Some(meta), ..directive.clone() };
        match timeout(WRITE_DEADLINE, self.directives.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Closed),
            Err(_) => {
                tracing::warn!("the node does not read; its session is closed");
                Err(End::Closed)
            }
        }
    }

    fn record_state(&self) -> RecordState {
        self.shared.board.read(|registry| self.node.record_state(registry))
    }
}

/// Takes a node's hello, if it may hold a session here.
async fn accept_hello(
    shared: &Shared,
    reports: &mut Streaming<NodeReport>,
) -> Result<SessionNode, Status> {
    let first = timeout(HELLO_PATIENCE, reports.message())
        .await
        .map_err(|_| Status::deadline_exceeded("a session begins with a hello"))??;
    let Some(NodeReport { report: Some(Report::Hello(hello)) }) = first else {
        return Err(Status::invalid_argument("a session begins with a hello"));
    };
    check_mesh(shared, &hello)?;
    if hello.node_id == 0 || hello.store_id == 0 {
        return Err(Status::invalid_argument("the node has no id or its store has none"));
    }
    let node = SessionNode::new(hello, rand::random_range(1..=u64::MAX))?;
    // The node's address can be learned without a quorum.
    if !is_of_another_store(shared, &node) {
        shared.host.mesh().book().learn(Hint {
            node_id: node.node_id(),
            boot_epoch: node.boot_epoch(),
            start: node.start(),
            moves: node.moves(),
            address: node.mesh_address(),
            services: vec!["data".to_owned()],
        });
    }
    Ok(node)
}

/// Whether the node's id is known with another store. Such a node will be refused, and until then
/// no messages must be sent to it.
fn is_of_another_store(shared: &Shared, node: &SessionNode) -> bool {
    let own = shared.host.identity();
    let known = if node.node_id() == own.node_id {
        Some(own.store_id)
    } else {
        shared.board.read(|registry| Some(registry.node(node.node_id())?.store_id))
    };
    known.is_some_and(|store_id| store_id != node.store_id())
}

fn check_mesh(shared: &Shared, hello: &NodeHello) -> Result<(), Status> {
    let ours = shared.mesh_id();
    if hello.mesh_id.is_empty() || hello.mesh_id == ours {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "node {} belongs to mesh {}, this server to mesh {ours}; a data directory serves one \
         mesh only: point the node at its own, or start it with an empty directory",
        node_hex(hello.node_id),
        hello.mesh_id
    )))
}
