//! Sessions: a data node's standing conversation with DISCO.
//!
//! The node says who and how it is; the session sees to it that the registry says the same, and
//! tells the node which groups it hosts and where everybody is, once at the start and again when
//! that changes. All of it is level-triggered: what to propose and what to tell are read from the
//! registry, so a session can break anywhere and be begun again anywhere.
//!
//! A session that breaks changes nothing. The node's lease decides, as that of every instance.
//!
//! Without a quorum sessions go on: nodes must find each other, also for hours. A directive says
//! then that it is old, and the node looks for a server that has a quorum; only the node can tell
//! whether there is one, if this server is cut off.

mod directive;
mod stay;

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use mesh::Hint;
use proto::quorate::v1::{Directive, NodeHello, NodeReport, RegistryDone, node_report::Report};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tonic::{Status, Streaming};
use tracing::Instrument;

use self::stay::{Standing, Stay, Task};
use crate::{
    leader::ProposeError,
    shared::{Formed, Shared},
};

/// How long a node may take to say who it is.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// How long a node may leave a directive untaken before its session is closed.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Directives made but not yet taken by the connection.
pub(crate) const DIRECTIVE_QUEUE: usize = 1;

/// How often a session looks at what nobody announces: addresses learned without the registry.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is recorded how far a node's groups have come, while they are written. What they
/// acknowledged since is remembered by the members that run, and by this server if it was told.
const PROGRESS: Duration = Duration::from_secs(10);

/// Pause after a proposal that failed.
const RETRY: Duration = Duration::from_millis(500);

type Work = Pin<Box<dyn Future<Output = (Task, Result<RegistryDone, ProposeError>)> + Send>>;

/// See the module.
pub(crate) struct Session {
    shared: Arc<Shared>,
    formed: Formed,
    number: u64,
    stay: Stay,
    reports: Streaming<NodeReport>,
    directives: mpsc::Sender<Result<Directive, Status>>,
    /// The last directive, without its meta, and whether the meta said that it is old.
    told: Option<(Directive, bool)>,
    /// The revision that the last directive named, and when.
    told_revision: (u64, Instant),
    /// The proposal under way.
    work: Option<Work>,
    retry_at: Instant,
    progress_at: Instant,
    /// Whether the last proposal found no leader or no quorum, which shows in the freshness of this
    /// server only later.
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
        let stay = match welcome(&shared, &mut reports).await {
            Ok(stay) => stay,
            Err(status) => {
                tracing::warn!(%status, "a node's session was refused");
                let _ = directives.send(Err(status)).await;
                return;
            }
        };
        let number = shared.next_session();
        let node_id = stay.node_id();
        let span =
            tracing::info_span!("session", session = number, node = format_args!("{node_id:016x}"));
        let session = Self {
            shared: Arc::clone(&shared),
            formed,
            number,
            stay,
            reports,
            directives,
            told: None,
            told_revision: (0, Instant::now()),
            work: None,
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
            self.begin_work();
            if let Err(end) = self.tell().await {
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
        let work = async {
            match &mut self.work {
                Some(work) => work.await,
                None => pending().await,
            }
        };
        // A node in this process stops with it, and has yet to say so.
        let stays = self.stay.node_id() == self.shared.host.identity().node_id;
        tokio::select! {
            () = self.shared.stopping.cancelled(), if !stays => Err(End::Stopping),
            () = self.directives.closed() => Err(End::Closed),
            report = self.reports.message() => match report {
                Ok(Some(report)) => self.take(report),
                Ok(None) | Err(_) => Err(End::Closed),
            },
            (task, outcome) = work => {
                self.work = None;
                self.settle(&task, outcome)
            }
            changed = topology.changed() => changed.map_err(|_| End::Stopping),
            _ = looks.tick() => Ok(()),
        }
    }

    fn take(&mut self, report: NodeReport) -> Result<(), End> {
        match report.report {
            Some(Report::Status(status)) => {
                self.shared.reports.put(self.stay.node_id(), self.number, status.clone());
                self.stay.report(status);
                if let Standing::Recorded { lease_id, .. } = self.standing() {
                    self.formed.renewals.renew_soon(lease_id, self.stay.node_id());
                }
                Ok(())
            }
            Some(Report::Stopping(_)) => {
                tracing::info!("the node stops");
                self.stay.stop();
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
    fn begin_work(&mut self) {
        if self.work.is_some() || Instant::now() < self.retry_at {
            return;
        }
        let progress_due = Instant::now() >= self.progress_at;
        let task = self.shared.board.read(|registry| {
            let progress = || progress_due.then(|| self.stay.progress_task(registry)).flatten();
            self.stay.next_task(registry).or_else(progress)
        });
        let Some(task) = task else {
            if progress_due {
                self.progress_at = Instant::now() + PROGRESS;
            }
            return;
        };
        let proposals = self.formed.proposals.clone();
        self.work = Some(Box::pin(async move {
            let outcome = proposals.propose(task.clone().into_command()).await;
            (task, outcome)
        }));
    }

    fn settle(
        &mut self,
        task: &Task,
        outcome: Result<RegistryDone, ProposeError>,
    ) -> Result<(), End> {
        let error = match outcome {
            Ok(_) => {
                self.cut_off = false;
                return Ok(());
            }
            Err(error) => error,
        };
        let is_own_record = matches!(task, Task::Record(_));
        if is_own_record && (error.is_refusal() || self.standing() == Standing::Unknown) {
            return Err(End::Refused(error.to_status()));
        }
        tracing::debug!(%error, ?task, "a proposal for the node failed");
        self.cut_off = !error.is_refusal();
        self.retry_at = Instant::now() + RETRY;
        Ok(())
    }

    /// Sends a directive, if what it says differs from the last, or whether it is old.
    ///
    /// A node that is known but not recorded as it is gets one only while the registry cannot be
    /// written: without a quorum nothing changes, and what is known is what there is to know.
    async fn tell(&mut self) -> Result<(), End> {
        let meta = self.shared.meta();
        let is_old = meta.stale_for_ms > 0;
        let lease_id = match self.standing() {
            Standing::Recorded { lease_id, .. } => lease_id,
            Standing::Outdated if self.cut_off || is_old => 0,
            Standing::Outdated | Standing::Unknown => return Ok(()),
        };
        let ttl = self.formed.renewals.ttl(lease_id);
        let next = Some((directive::of(&self.shared, &self.stay, ttl), is_old));
        // Data nodes are the memory of DISCO's own group: they are told how far it has come.
        let (revision, told_at) = self.told_revision;
        let is_remembered = meta.revision == revision || told_at.elapsed() < PROGRESS;
        if self.told == next && is_remembered {
            return Ok(());
        }
        self.told = next;
        self.told_revision = (meta.revision, Instant::now());
        let Some((directive, _)) = &self.told else { return Ok(()) };
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

    fn standing(&self) -> Standing {
        self.shared.board.read(|registry| self.stay.standing(registry))
    }
}

/// Takes a node's hello, if it may stay.
async fn welcome(shared: &Shared, reports: &mut Streaming<NodeReport>) -> Result<Stay, Status> {
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
    let stay = Stay::new(hello, rand::random_range(1..=u64::MAX))?;
    // Where the node is needs no quorum to be known.
    if !is_of_another_store(shared, &stay) {
        shared.host.mesh().book().learn(Hint {
            node_id: stay.node_id(),
            boot_epoch: stay.boot_epoch(),
            start: stay.start(),
            moves: stay.moves(),
            address: stay.mesh_address(),
            services: vec!["data".to_owned()],
        });
    }
    Ok(stay)
}

/// Whether somebody else is known under the node's id. Such a node will be refused, and until then
/// nobody's messages must go to it.
fn is_of_another_store(shared: &Shared, stay: &Stay) -> bool {
    let own = shared.host.identity();
    let known = if stay.node_id() == own.node_id {
        Some(own.store_id)
    } else {
        shared.board.read(|registry| Some(registry.node(stay.node_id())?.store_id))
    };
    known.is_some_and(|store_id| store_id != stay.store_id())
}

fn check_mesh(shared: &Shared, hello: &NodeHello) -> Result<(), Status> {
    let ours = shared
        .host
        .mesh()
        .watch_id()
        .borrow()
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    if hello.mesh_id.is_empty() || hello.mesh_id == ours {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "node {:016x} belongs to mesh {}, this server to mesh {ours}; a data directory serves one \
         mesh only: point the node at its own, or start it with an empty directory",
        hello.node_id, hello.mesh_id
    )))
}
