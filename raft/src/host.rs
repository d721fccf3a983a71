//! A server's part in the mesh: its stores, its groups, its peers and its membership of a mesh.

mod forming;
mod stored;
mod timing;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{Config, errors::Fatal};
use proto::quorate::v1::{self as pb, mesh_server::MeshServer, raft_server::RaftServer};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot, watch},
    task,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub(crate) use self::forming::FormStepError;
pub use self::{
    forming::{AdoptError, FormAloneError, MeshMismatch},
    stored::StoredReplica,
    timing::Timing,
};
use crate::{
    book::{Book, Hint},
    envelope::{self, Here, Refusal},
    formation::{Reservations, from_record},
    group::{Group, Parts, Role},
    hello::Greeter,
    identity::{DataDir, Identity},
    ids::{GroupId, MeshId, NodeId},
    log_store::LogStore,
    mesh_service::MeshService,
    network::NetworkFactory,
    peers::{MESSAGE_BYTES, Peers},
    raft_service::RaftService,
    rows::{StateMachine, StorageError},
    state::{State, StateStore},
    types::{Raft, TypeConfig},
};

/// Failures of groups that were not yet reported. One is enough to end the host.
const FAILURES: usize = 16;

/// How a server takes part in its mesh.
#[derive(Debug, Clone)]
pub struct HostConfig {
    /// Where others reach this server's mesh port.
    pub advertise: SocketAddr,
    /// Servers to greet at the start.
    pub seeds: Vec<SocketAddr>,
    /// Whether a server without a mesh waits to be formed, rather than to join one.
    pub awaits_forming: bool,
    pub timing: Timing,
    pub version: String,
}

/// A server's part in the mesh. Clones are handles to the same one.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    config: HostConfig,
    identity: Identity,
    book: Book,
    peers: Peers,
    log: LogStore,
    state: StateStore,
    groups: Mutex<BTreeMap<GroupId, Group>>,
    /// Held while a group starts, so that none starts twice.
    starting: AsyncMutex<()>,
    mesh: watch::Sender<Option<MeshId>>,
    /// The only mesh that this server may be in, if it was told one.
    expected_mesh: Option<MeshId>,
    /// The mesh of the servers that this one greets, while it belongs to none.
    met_mesh: watch::Sender<Option<MeshId>>,
    formation: watch::Sender<Option<pb::Formation>>,
    reservations: Mutex<Reservations>,
    failures: mpsc::Sender<(GroupId, String)>,
    supervised: Mutex<Option<Supervised>>,
    /// Ends what other servers have open here.
    stopping: CancellationToken,
    /// Last, so that the lock outlives the stores.
    dir: Mutex<DataDir>,
}

/// What [`Host::run`] watches.
struct Supervised {
    failures: mpsc::Receiver<(GroupId, String)>,
    writer: oneshot::Receiver<()>,
}

/// Why a data directory cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the stores of the data directory")]
    Storage(#[from] StorageError),
    #[error("cannot write the identity file")]
    Identity(#[source] std::io::Error),
    #[error(
        "the log store is missing or empty although this server had one; \
         restore the whole data directory, or start with an empty one as a new server"
    )]
    StoreMissing,
    #[error(
        "the log store is {found:016x}, the identity says {expected:016x}: \
         raft/ belongs to another data directory"
    )]
    StoreSwapped { expected: u64, found: u64 },
}

/// Why a group is not started.
#[derive(Debug, thiserror::Error)]
pub enum StartGroupError {
    #[error("this server belongs to no mesh")]
    NoMesh,
    #[error("the group is running")]
    Running,
    #[error("the group is {ours:?} in this data directory, not {wanted:?}")]
    OtherNamespace { ours: String, wanted: String },
    #[error("the stored state ends at {applied}, but the log before {purged} is gone")]
    StateBehind { applied: u64, purged: u64 },
    #[error("cannot read the group's state")]
    Storage(#[from] StorageError),
    #[error("openraft refused to start: {0}")]
    Refused(String),
}

/// Why a host ended although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("group {group} failed: {reason}")]
    Group { group: GroupId, reason: String },
    #[error("the log-writer thread ended")]
    LogWriter,
    #[error(
        "the mesh knows of start number {seen} of this server, and this is number {ours}: its disk was \
         copied or restored, or it runs elsewhere too"
    )]
    Superseded { ours: u64, seen: u64 },
    #[error("the host runs already")]
    Running,
}

impl HostError {
    /// Whether a safety rule refused this server, so that a person must look.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Superseded { .. })
    }
}

impl Host {
    /// Opens the stores of a data directory and starts the log-writer thread.
    pub fn open(mut dir: DataDir, config: HostConfig) -> Result<Self, OpenError> {
        let identity = dir.identity();
        let raft_dir = dir.path().join("raft");
        if dir.store_made() && !raft_dir.join("CURRENT").exists() {
            return Err(OpenError::StoreMissing);
        }
        let (log, writer) = LogStore::open(&raft_dir, dir.lock())?;
        match log.store_id()? {
            Some(found) if found != identity.store_id => {
                return Err(OpenError::StoreSwapped { expected: identity.store_id, found });
            }
            Some(_) => {}
            None if dir.store_made() => return Err(OpenError::StoreMissing),
            None => log.set_store_id(identity.store_id)?,
        }
        dir.set_store_made().map_err(OpenError::Identity)?;
        let recorded: Vec<(GroupId, u64)> =
            log.records()?.into_iter().map(|(group, record)| (group, record.generation)).collect();
        let state = StateStore::open(dir.path(), dir.lock(), &recorded)?;
        let book = Book::open(dir.path());
        let formation = dir.formation().map(from_record);
        let (failures, failed) = mpsc::channel(FAILURES);
        let inner = Inner {
            peers: Peers::new(book.clone()),
            book,
            log,
            state,
            groups: Mutex::default(),
            starting: AsyncMutex::default(),
            mesh: watch::Sender::new(identity.mesh_id.clone()),
            expected_mesh: dir.expected_mesh().cloned(),
            met_mesh: watch::Sender::new(None),
            formation: watch::Sender::new(None),
            reservations: Mutex::default(),
            failures,
            supervised: Mutex::new(Some(Supervised { failures: failed, writer })),
            stopping: CancellationToken::new(),
            dir: Mutex::new(dir),
            config,
            identity,
        };
        let host = Self { inner: Arc::new(inner) };
        if let Some(formation) = formation {
            host.publish_formation(formation);
        }
        Ok(host)
    }

    /// Who this server is, as of the start of the process; the mesh may have been joined since,
    /// see [`Host::mesh`].
    pub fn identity(&self) -> Identity {
        Identity { mesh_id: self.mesh_id(), ..self.inner.identity.clone() }
    }

    pub fn book(&self) -> &Book {
        &self.inner.book
    }

    /// The mesh that this server belongs to. It never changes once there is one.
    pub fn mesh(&self) -> watch::Receiver<Option<MeshId>> {
        self.inner.mesh.subscribe()
    }

    /// The mesh of the servers that this one was told of, while it belongs to none: they formed it
    /// without this server, or before it lost its disk.
    pub fn met_mesh(&self) -> watch::Receiver<Option<MeshId>> {
        self.inner.met_mesh.subscribe()
    }

    /// The formation by which this server became a member, if it was formed.
    pub fn formation(&self) -> watch::Receiver<Option<pb::Formation>> {
        self.inner.formation.subscribe()
    }

    /// The gRPC service for messages between members of groups.
    pub fn raft_service(&self) -> RaftServer<impl proto::quorate::v1::raft_server::Raft + use<>> {
        RaftServer::new(RaftService { host: self.clone() })
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// The gRPC service that every server of a mesh answers.
    pub fn mesh_service(&self) -> MeshServer<impl proto::quorate::v1::mesh_server::Mesh + use<>> {
        MeshServer::new(MeshService { host: self.clone() })
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    /// Starts a group on this server and returns once its rows are at the commit index that was
    /// known when it last stopped. A group without voters waits, until it is initialized or a
    /// leader adds this server.
    pub async fn start_group(
        &self,
        id: GroupId,
        namespace: &str,
        machine: impl StateMachine,
    ) -> Result<Group, StartGroupError> {
        let _starting = self.inner.starting.lock().await;
        let mesh = self.mesh_id().ok_or(StartGroupError::NoMesh)?;
        if self.group(id).is_some() {
            return Err(StartGroupError::Running);
        }
        let record = self.record_of(id, namespace).await?;
        let log = self.inner.log.group(id).await?;
        let (store, log_store) = (self.inner.state.clone(), self.inner.log.clone());
        let machine: Box<dyn StateMachine> = Box::new(machine);
        let opening =
            task::spawn_blocking(move || State::open(store, log_store, id, &record, machine));
        let (state, published) = opening
            .await
            .map_err(|error| StorageError::with_source("loading the state panicked", error))??;
        let applied = state.applied().map_or(0, |applied| applied.index);
        if let Some(purged) = log.purged()
            && purged.index > applied
        {
            return Err(StartGroupError::StateBehind { applied, purged: purged.index });
        }
        let network = NetworkFactory {
            mesh: mesh.clone(),
            group: id,
            node_id: self.inner.identity.node_id,
            peers: self.inner.peers.clone(),
            store: self.inner.state.clone(),
        };
        let config = self.raft_config(id)?;
        let node_id = self.inner.identity.node_id;
        let raft = Raft::new(node_id, config, network, log.clone(), state)
            .await
            .map_err(|fatal: Fatal<TypeConfig>| StartGroupError::Refused(fatal.to_string()))?;
        let group = Group::start(Parts {
            id,
            namespace: namespace.to_owned(),
            node_id,
            mesh,
            raft,
            log,
            published,
            db: self.inner.state.db.clone(),
            peers: self.inner.peers.clone(),
            timing: self.inner.config.timing.clone(),
            failures: self.inner.failures.clone(),
        });
        self.lock_groups().insert(id, group.clone());
        Ok(group)
    }

    /// Every group that this data directory holds something of.
    pub fn groups_on_disk(&self) -> Result<Vec<GroupId>, StorageError> {
        Ok(self.inner.log.records()?.into_iter().map(|(group, _)| group).collect())
    }

    /// A group that runs on this server.
    pub fn group(&self, id: GroupId) -> Option<Group> {
        let group = self.lock_groups().get(&id).cloned();
        group.filter(|group| group.status().role != Role::Stopped)
    }

    /// Every group that was started on this server.
    pub fn groups(&self) -> Vec<Group> {
        self.lock_groups().values().cloned().collect()
    }

    /// Exchanges address hints and watches over the stores, until `shutdown`; then stops every
    /// group and brings its state to disk.
    ///
    /// # Errors
    ///
    /// Ends by itself if a group or the log-writer thread failed, or if the mesh knows of a later
    /// start of this server: the process must end too.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), HostError> {
        let supervised = lock(&self.inner.supervised).take();
        let Some(Supervised { mut failures, writer }) = supervised else {
            return Err(HostError::Running);
        };
        let greeter = Greeter::new(self.clone(), self.inner.config.seeds.clone());
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            seen = greeter.run() => Err(HostError::Superseded {
                ours: self.inner.identity.boot_epoch,
                seen: seen.boot_epoch,
            }),
            failure = failures.recv() => Err(match failure {
                Some((group, reason)) => HostError::Group { group, reason },
                None => HostError::LogWriter,
            }),
            _ = writer => Err(HostError::LogWriter),
        };
        self.inner.stopping.cancel();
        for group in self.groups() {
            group.stop().await;
        }
        result
    }

    pub fn advertise(&self) -> SocketAddr {
        self.inner.config.advertise
    }

    /// Resolves when this host is being stopped.
    pub(crate) fn stopping(&self) -> WaitForCancellationFutureOwned {
        self.inner.stopping.clone().cancelled_owned()
    }

    pub(crate) fn mesh_id(&self) -> Option<MeshId> {
        self.inner.mesh.borrow().clone()
    }

    /// Takes note of the mesh of a server that answered, while this one belongs to none.
    pub(crate) fn meet_mesh(&self, theirs: MeshId) {
        self.inner.met_mesh.send_if_modified(|met| {
            let news = met.as_ref() != Some(&theirs);
            *met = Some(theirs);
            news
        });
    }

    pub(crate) fn state_store(&self) -> StateStore {
        self.inner.state.clone()
    }

    pub(crate) fn own_hint(&self) -> Hint {
        let identity = &self.inner.identity;
        Hint {
            node_id: identity.node_id,
            boot_epoch: identity.boot_epoch,
            address: self.inner.config.advertise,
            services: identity.services.iter().cloned().collect(),
        }
    }

    pub(crate) fn server_identity(&self) -> pb::ServerIdentity {
        let identity = self.identity();
        let mesh_id = identity.mesh_id.map(|mesh| mesh.to_string()).unwrap_or_default();
        pb::ServerIdentity {
            awaits_forming: mesh_id.is_empty() && self.inner.config.awaits_forming,
            mesh_id,
            node_id: identity.node_id,
            store_id: identity.store_id,
            services: identity.services.into_iter().collect(),
            address: self.inner.config.advertise.to_string(),
            version: self.inner.config.version.clone(),
        }
    }

    /// The group that a message is for and who sent it, if it is meant for this server.
    pub(crate) fn receive_with_source(
        &self,
        envelope: Option<&pb::Envelope>,
    ) -> Result<(Group, NodeId), Refusal> {
        let (id, source) = {
            let mesh = self.inner.mesh.borrow();
            let here = Here {
                mesh: mesh.as_ref(),
                node_id: self.inner.identity.node_id,
                store_id: self.inner.identity.store_id,
            };
            envelope::check(envelope, here)?
        };
        let group = self.lock_groups().get(&id).cloned().ok_or(Refusal::NoGroup(id))?;
        Ok((group, source))
    }

    /// The record of a group, made if this server holds nothing of it.
    async fn record_of(
        &self,
        id: GroupId,
        namespace: &str,
    ) -> Result<pb::StoredGroup, StartGroupError> {
        if let Some(record) = self.inner.log.record(id)? {
            if record.namespace != namespace {
                return Err(StartGroupError::OtherNamespace {
                    ours: record.namespace,
                    wanted: namespace.to_owned(),
                });
            }
            return Ok(record);
        }
        let store = self.inner.state.clone();
        // The column family first: a record that names none would look like lost state.
        let generation =
            task::spawn_blocking(move || store.create_family(id)).await.map_err(|error| {
                StorageError::with_source("making a column family panicked", error)
            })??;
        let record = pb::StoredGroup { namespace: namespace.to_owned(), generation };
        self.inner.log.put_record(id, &record).await?;
        Ok(record)
    }

    fn raft_config(&self, id: GroupId) -> Result<Arc<Config>, StartGroupError> {
        let config = self.inner.config.timing.raft_config(id);
        let config = config.validate();
        config.map(Arc::new).map_err(|error| StartGroupError::Refused(error.to_string()))
    }

    fn lock_groups(&self) -> MutexGuard<'_, BTreeMap<GroupId, Group>> {
        lock(&self.inner.groups)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
