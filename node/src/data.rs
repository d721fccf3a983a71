//! The data service of one process: learns what to host, hosts it, says how it is.
//!
//! Orders come from three places. What the disk remembers is followed first and at once, so that a
//! node restarts while DISCO is away. DISCO's directives follow, whenever they change. Without
//! DISCO there is the formation: its members are the first voters of the namespace `default`.
//!
//! ```text
//!   groups.json ──┐
//!   session ──────┼─► Hosting ─► start::decide ─► raft::Host::start_group ─► Namespaces ─► etcd
//!   formation ────┘      │
//!                        └─► session: reports     Ready: what is waited for
//! ```
//!
//! On shutdown the node first tells DISCO, so that no new traffic comes, and then hands over its
//! leaderships. The groups run on, so that calls which are under way or still arrive are forwarded
//! to the next leader. The host closes the groups once the listeners have finished every call. The
//! node stays a member of its groups: a stop is not a leave. Listeners and host must outlive
//! [`Data::run`].

mod groups_file;
mod hosting;
mod readiness;
mod static_orders;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use futures::future::join_all;
use mesh::GroupId;
use raft::{Host, StartGroupError, StorageError, start::StartRefusal};
use thiserror::Error;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{
    groups_file::GroupsFile,
    hosting::{Hosting, OwnMember},
    readiness::{OrdersState, readiness},
};
pub use self::{groups_file::GroupsFileError, readiness::Ready};
use crate::{
    namespaces::{Absence, Namespaces},
    session::{DiscoState, Introduction, Session, SessionError, SessionHandle},
};

/// How often groups that could not be started are tried again, and readiness is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a stopping node waits for DISCO to record that it stops.
const NOTE_WITHIN: Duration = Duration::from_secs(2);

/// How long a leadership may take to be handed over. Without it the others elect a leader.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);

/// What the data service is told at its start.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// The data directory that the host was opened on.
    pub directory: PathBuf,
    /// DISCO servers to try. Empty: there is no DISCO, and the formation says what to host.
    pub disco: Vec<SocketAddr>,
    /// Where other servers reach this one.
    pub mesh_address: SocketAddr,
    /// Where clients reach the etcd v3 API.
    pub kv_address: SocketAddr,
    pub region: String,
    pub zone: String,
    /// A label for people.
    pub name: String,
    /// Of the program, for people.
    pub version: String,
    /// How long a voter's node must be down before a learner replaces it.
    pub replace_after: Duration,
}

/// The data service.
#[derive(Debug)]
pub struct Data {
    host: Host,
    config: DataConfig,
    hosting: Hosting,
    namespaces: Namespaces,
    ready: watch::Sender<Ready>,
}

/// Why the data service ends.
#[derive(Debug, Error)]
pub enum DataError {
    #[error("the notes on this node's groups cannot be used")]
    GroupsFile(#[from] GroupsFileError),
    #[error("DISCO ended this node's stay")]
    Session(#[from] SessionError),
    #[error("namespace {namespace} (group {group}) must not run on this disk")]
    Refused {
        group: GroupId,
        namespace: String,
        #[source]
        refusal: StartRefusal,
    },
    #[error("group {group} did not start")]
    StartGroup {
        group: GroupId,
        #[source]
        source: StartGroupError,
    },
    #[error("the groups on this node's disk cannot be listed")]
    Storage(#[from] StorageError),
    #[error("a task of the data service failed")]
    Task(#[from] JoinError),
}

impl DataError {
    /// Whether another start of this node counts in the mesh, so that this one must not go on.
    pub const fn is_overtaken(&self) -> bool {
        let Self::Session(error) = self else { return false };
        matches!(error, SessionError::Copied { .. } | SessionError::RolledBack { .. })
    }

    /// Whether a safety rule refused this node, so that a person must look.
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Session(error) => error.is_refusal(),
            Self::Refused { .. } => true,
            Self::StartGroup { source, .. } => matches!(source, StartGroupError::Outdated(_)),
            Self::GroupsFile(_) | Self::Storage(_) | Self::Task(_) => false,
        }
    }
}

impl Data {
    /// Prepares the service from what the data directory remembers. Nothing runs yet.
    ///
    /// # Errors
    ///
    /// If the notes in the data directory cannot be understood.
    pub fn start(host: Host, config: DataConfig) -> Result<Self, DataError> {
        let groups_file = GroupsFile::load(&config.directory)?;
        let namespaces = Namespaces::new();
        let hosting = Hosting::new(
            host.clone(),
            groups_file,
            namespaces.clone(),
            OwnMember {
                name: config.name.clone(),
                mesh_address: config.mesh_address,
                kv_address: config.kv_address,
            },
            config.replace_after,
        );
        Ok(Self { host, config, hosting, namespaces, ready: watch::Sender::new(Ready::starting()) })
    }

    /// The namespaces of this node, for the services that clients call.
    pub fn namespaces(&self) -> Namespaces {
        self.namespaces.clone()
    }

    /// Whether the node serves, and if not, what it waits for.
    pub fn ready(&self) -> watch::Receiver<Ready> {
        self.ready.subscribe()
    }

    /// Runs the service until shutdown, then says goodbye. The groups are the host's to close.
    ///
    /// # Errors
    ///
    /// When a safety rule refuses this node, or its disk fails.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), DataError> {
        let ended = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let session = self.open_session(&mut tasks, &ended);
        let served = self.serve(session.as_ref(), &mut tasks, &shutdown).await;
        if let Some(session) = &session {
            let noted = session.announce_stop(NOTE_WITHIN).await;
            info!(noted, "told DISCO that this node stops");
        }
        self.hand_over().await;
        ended.cancel();
        while tasks.join_next().await.is_some() {}
        served
    }

    fn open_session(
        &self,
        tasks: &mut JoinSet<Result<(), SessionError>>,
        ended: &CancellationToken,
    ) -> Option<SessionHandle> {
        if self.config.disco.is_empty() {
            return None;
        }
        let introduction = Introduction {
            mesh_address: self.config.mesh_address,
            kv_address: self.config.kv_address,
            region: self.config.region.clone(),
            zone: self.config.zone.clone(),
            name: self.config.name.clone(),
            version: self.config.version.clone(),
        };
        let (session, handle) = Session::new(
            self.host.clone(),
            self.config.disco.clone(),
            introduction,
            self.hosting.hosted(),
        );
        tasks.spawn(session.run(ended.clone()));
        Some(handle)
    }

    async fn serve(
        &mut self,
        session: Option<&SessionHandle>,
        tasks: &mut JoinSet<Result<(), SessionError>>,
        shutdown: &CancellationToken,
    ) -> Result<(), DataError> {
        let mut disco = match session {
            Some(session) => session.state.clone(),
            None => watch::Sender::new(DiscoState::default()).subscribe(),
        };
        let mut formation = self.host.mesh().formation();
        formation.mark_changed();
        let mut hosted = self.hosting.hosted();
        // What the disk remembers is started first: if it is of another mesh, the node must end
        // before orders of this mesh are written into the same file.
        self.hosting.start_missing().await?;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = tasks.join_next() => return Ok(ended??),
                failure = self.hosting.failed() => return Err(failure.into()),
                Ok(()) = disco.changed() => {
                    let disco = disco.borrow_and_update().clone();
                    self.follow_disco(disco).await?;
                }
                Ok(()) = formation.changed(), if session.is_none() => self.follow_formation().await?,
                Ok(()) = hosted.changed() => self.hosting.refresh()?,
                _ = look.tick() => {
                    self.hosting.start_missing().await?;
                    self.hosting.refresh()?;
                }
            }
            let latest = self.readiness(session.is_some());
            self.publish_absence(&latest, session.is_some());
            self.ready.send_if_modified(|ready| {
                let changed = *ready != latest;
                *ready = latest;
                changed
            });
        }
    }

    async fn follow_disco(&mut self, disco: DiscoState) -> Result<(), DataError> {
        if !disco.is_live() {
            self.hosting.forget_topology();
            return Ok(());
        }
        match disco.orders {
            Some(orders) => self.hosting.follow(&orders).await,
            None => Ok(()),
        }
    }

    async fn follow_formation(&mut self) -> Result<(), DataError> {
        let formation = self.host.mesh().formation().borrow().clone();
        let Some(orders) = formation.as_ref().and_then(static_orders::from_formation) else {
            return Ok(());
        };
        self.hosting.follow(&orders).await
    }

    /// Publishes why there is no namespace, and whether one may come without a person's help.
    fn publish_absence(&self, ready: &Ready, has_disco: bool) {
        let lasting = match self.orders_state(has_disco) {
            OrdersState::WaitsToBeFormed | OrdersState::LeftOut => true,
            OrdersState::Known | OrdersState::WaitsForDisco => false,
        };
        self.namespaces.set_absence(Absence { reasons: ready.reasons.clone(), lasting });
    }

    fn orders_state(&self, has_disco: bool) -> OrdersState {
        match (self.hosting.has_orders(), has_disco) {
            (true, _) => OrdersState::Known,
            (false, true) => OrdersState::WaitsForDisco,
            (false, false) if self.host.mesh().met_mesh().borrow().is_some() => {
                OrdersState::LeftOut
            }
            (false, false) => OrdersState::WaitsToBeFormed,
        }
    }

    fn readiness(&self, has_disco: bool) -> Ready {
        let orders_state = self.orders_state(has_disco);
        let groups = self.hosting.groups();
        let missing = self.hosting.missing();
        readiness(
            orders_state,
            groups.map(|group| (group.namespace(), group.status())),
            missing.map(|assignment| assignment.namespace.as_str()),
        )
    }

    async fn hand_over(self) {
        let topology = self.hosting.topology().borrow().clone();
        let groups = self.hosting.stop_tasks().await;
        let may_lead = |node| topology.may_lead(node);
        join_all(groups.iter().map(|group| group.hand_over(HAND_OVER_WITHIN, may_lead))).await;
    }
}
