//! This server's part in its mesh: who it is, which mesh it is in, and whom it knows.
//!
//! The state and what is asked of it stand here. Forming and adopting a mesh are in `forming`, the
//! exchange of addresses in `hello`, the gRPC service in `mesh_service`.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::quorate::v1 as pb;
use tokio::{sync::watch, task, time};
use tokio_util::sync::CancellationToken;

use crate::{
    book::{Book, Hint},
    envelope::{self, EnvelopeError, Received, Recipient},
    formation::{Reservations, from_record},
    identity::{DataDir, DirLock, Identity},
    ids::{GroupId, MeshId, NodeId, node_hex},
    peers::Peers,
    rumors::Rumors,
};

/// How a server takes part in its mesh.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// Where others reach this server's mesh port.
    pub advertise: SocketAddr,
    /// Servers to greet at the start.
    pub seeds: Vec<SocketAddr>,
    /// Whether a server without a mesh waits to be formed, rather than to join one.
    pub awaits_forming: bool,
    pub version: String,
}

/// A server's part in its mesh. Clones are handles to the same one.
#[derive(Clone)]
pub struct Mesh {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: MeshConfig,
    pub(crate) identity: Identity,
    pub(crate) book: Book,
    peers: Peers,
    pub(crate) mesh: watch::Sender<Option<MeshId>>,
    /// The only mesh that this server may be in, if it was told one.
    pub(crate) expected_mesh: Option<MeshId>,
    /// The mesh of the servers that this one greets, while it belongs to none.
    met_mesh: watch::Sender<Option<MeshId>>,
    /// Whether every server that this one was told of has been greeted once.
    greeted: watch::Sender<bool>,
    pub(crate) formation: watch::Sender<Option<pb::Formation>>,
    pub(crate) reservations: Mutex<Reservations>,
    pub(crate) rumors: Rumors,
    /// Set once another copy of the data directory has proven that it runs.
    pub(crate) copy_proven: CancellationToken,
    /// The servers that were heard to count this start.
    pub(crate) counted_by: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) dir: Mutex<DataDir>,
}

impl Mesh {
    /// Takes the part of the server that a data directory belongs to.
    pub fn open(dir: DataDir, config: MeshConfig) -> Self {
        let book = Book::open(dir.path());
        let identity = dir.identity();
        let formation = dir.formation().map(from_record);
        let inner = Inner {
            peers: Peers::new(book.clone()),
            book,
            mesh: watch::Sender::new(identity.mesh_id.clone()),
            expected_mesh: dir.expected_mesh().cloned(),
            met_mesh: watch::Sender::new(None),
            greeted: watch::Sender::new(config.seeds.is_empty()),
            formation: watch::Sender::new(None),
            reservations: Mutex::default(),
            rumors: Rumors::default(),
            copy_proven: CancellationToken::new(),
            counted_by: watch::Sender::default(),
            dir: Mutex::new(dir),
            config,
            identity,
        };
        let mesh = Self { inner: Arc::new(inner) };
        if let Some(formation) = formation {
            mesh.publish_formation(formation);
        }
        mesh
    }

    /// Who this server is, as of the start of the process; the mesh may have been joined since,
    /// see [`Mesh::watch_id`].
    pub fn identity(&self) -> Identity {
        Identity { mesh_id: self.id(), ..self.inner.identity.clone() }
    }

    pub fn book(&self) -> &Book {
        &self.inner.book
    }

    /// The connections to other servers.
    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// The mesh that this server belongs to. It never changes once there is one.
    pub fn id(&self) -> Option<MeshId> {
        self.inner.mesh.borrow().clone()
    }

    pub fn watch_id(&self) -> watch::Receiver<Option<MeshId>> {
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

    /// The other servers that this one was told of.
    pub fn seeds(&self) -> &[SocketAddr] {
        &self.inner.config.seeds
    }

    pub fn advertise(&self) -> SocketAddr {
        self.inner.config.advertise
    }

    /// The data directory of this server.
    pub fn directory(&self) -> PathBuf {
        self.lock_dir().path().to_owned()
    }

    /// What keeps other processes out of the data directory; databases in it hold on to it.
    pub fn directory_lock(&self) -> Arc<DirLock> {
        self.lock_dir().lock()
    }

    /// Whether the log store was made and marked with the store id.
    pub fn store_made(&self) -> bool {
        self.lock_dir().store_made()
    }

    /// Remembers, durably, that the log store exists.
    ///
    /// # Errors
    ///
    /// If the identity file cannot be written.
    pub fn set_store_made(&self) -> io::Result<()> {
        self.lock_dir().set_store_made()
    }

    /// The envelope of a message to a member of a group. `store_id` is zero if it is not known.
    pub fn envelope(
        &self,
        mesh: &MeshId,
        group: GroupId,
        target: NodeId,
        store_id: u64,
    ) -> pb::Envelope {
        let identity = &self.inner.identity;
        let target_start = self.inner.book.counted_start(target).number;
        if target_start == 0 {
            // It would be refused: this server must have met that one first.
            self.inner.rumors.request_lookup(target);
        }
        pb::Envelope {
            mesh_id: mesh.to_string(),
            group,
            source_id: identity.node_id,
            target_id: target,
            target_store_id: store_id,
            source_epoch: identity.boot_epoch,
            source_start: identity.start,
            target_start,
        }
    }

    /// A member refused a message: its start may be another one than the counted.
    pub fn request_lookup(&self, node_id: NodeId) {
        self.inner.rumors.request_lookup(node_id);
    }

    /// The group that a message is for and who sent it, if it is meant for this server.
    ///
    /// # Errors
    ///
    /// Refuses a message for another mesh, server, store or start, or from a start that does not
    /// count, by name.
    pub fn receive(&self, envelope: Option<&pb::Envelope>) -> Result<Received, EnvelopeError> {
        let mesh = self.inner.mesh.borrow();
        let recipient = Recipient {
            mesh: mesh.as_ref(),
            node_id: self.inner.identity.node_id,
            store_id: self.inner.identity.store_id,
            start: self.inner.identity.start,
        };
        let received = envelope::check(envelope, recipient).inspect_err(|error| {
            if let (EnvelopeError::OtherStart, Some(envelope)) = (error, envelope) {
                self.inner.rumors.request_lookup(envelope.source_id);
            }
        })?;
        if !self.inner.book.counts(received.source, received.source_start) {
            self.inner.rumors.request_lookup(received.source);
            return Err(EnvelopeError::NotCounted(node_hex(received.source)));
        }
        Ok(received)
    }

    /// Waits until this start counts with every one of `voters`, if the data directory may be a
    /// copy: only then may it take part in their groups. One that stands where it was made may at
    /// once.
    ///
    /// # Errors
    ///
    /// If the identity file cannot be written.
    pub async fn await_counted(&self, voters: &BTreeSet<NodeId>) -> io::Result<()> {
        if !self.inner.identity.moved {
            return Ok(());
        }
        self.await_counted_by(voters).await;
        let mesh = self.clone();
        task::spawn_blocking(move || mesh.lock_dir().set_place()).await.map_err(io::Error::other)?
    }

    /// Waits until this start counts with every one of `servers`.
    pub async fn await_counted_by(&self, servers: &BTreeSet<NodeId>) {
        let mut counted_by = self.inner.counted_by.subscribe();
        loop {
            let missing: Vec<String> = servers
                .difference(&counted_by.borrow_and_update())
                .map(|node_id| node_hex(*node_id))
                .collect();
            if missing.is_empty() {
                return;
            }
            tracing::warn!(
                waits_for = missing.join(","),
                "this data directory does not stand where it was made, so it may be a copy: it takes \
                 part once every other voter of its groups has met this start; if no other copy \
                 will ever run, and they cannot be reached: stop this server, then quorate reclaim"
            );
            if counted_by.changed().await.is_err() {
                return;
            }
        }
    }

    /// Remembers, durably, that another start runs, or ran, from a copy of the data directory, so
    /// that copies do not take turns.
    ///
    /// # Errors
    ///
    /// If the identity file cannot be written.
    pub fn set_overtaken(&self) -> io::Result<()> {
        self.lock_dir().set_overtaken()
    }

    /// Whether the data directory may have forgotten votes that a copy of it gave: groups must then
    /// leave the terms behind that they may have been given in.
    pub fn terms_forgotten(&self) -> bool {
        self.lock_dir().terms_forgotten()
    }

    /// Remembers, durably, that every group has left the forgotten terms behind.
    ///
    /// # Errors
    ///
    /// If the identity file cannot be written.
    pub fn set_terms_raised(&self) -> io::Result<()> {
        self.lock_dir().set_terms_raised()
    }

    /// Takes note of the mesh of the servers that answered, while this one belongs to none.
    pub(crate) fn set_met_mesh(&self, theirs: Option<MeshId>) {
        self.inner.met_mesh.send_if_modified(|met| {
            let changed = *met != theirs;
            *met = theirs;
            changed
        });
    }

    /// Notes that every server that this one was told of has been greeted.
    pub(crate) fn set_greeted(&self) {
        self.inner.greeted.send_if_modified(|greeted| !std::mem::replace(greeted, true));
    }

    /// Waits until a server that may be formed knows whether the others have a mesh, or for a while.
    pub(crate) async fn greeted(&self, limit: Duration) {
        if self.inner.config.awaits_forming && self.id().is_none() {
            let mut greeted = self.inner.greeted.subscribe();
            // Whoever asks has other means too, and must not wait for servers that are down.
            let _ = time::timeout(limit, greeted.wait_for(|greeted| *greeted)).await;
        }
    }

    pub(crate) fn own_hint(&self) -> Hint {
        let identity = &self.inner.identity;
        Hint {
            node_id: identity.node_id,
            boot_epoch: identity.boot_epoch,
            start: identity.start,
            moves: 0,
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
            boot_epoch: identity.boot_epoch,
            start: identity.start,
            moves: 0,
            met_mesh_id: self
                .inner
                .met_mesh
                .borrow()
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            seeds: self.inner.config.seeds.iter().map(ToString::to_string).collect(),
        }
    }

    pub(crate) fn lock_dir(&self) -> MutexGuard<'_, DataDir> {
        self.inner.dir.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lock_reservations(&self) -> MutexGuard<'_, Reservations> {
        self.inner.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}
