//! This server as a part of its mesh: its identity, the mesh it belongs to, and the servers it
//! knows.
//!
//! This module holds the state and its accessors. Forming and adopting a mesh are in `forming`, the
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

/// The configuration of a server's part in its mesh.
#[derive(Debug, Clone)]
pub struct MeshConfig {
    /// The address at which others reach this server's mesh port.
    pub advertise: SocketAddr,
    /// Servers to send a Hello to at the start.
    pub seeds: Vec<SocketAddr>,
    /// Whether a server without a mesh waits to be formed, instead of joining one.
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
    /// The only mesh that this server may belong to, if one is configured.
    pub(crate) expected_mesh: Option<MeshId>,
    /// The mesh that seeds answered with, while this server belongs to none.
    met_mesh: watch::Sender<Option<MeshId>>,
    /// Whether every seed has been sent a Hello once.
    greeted: watch::Sender<bool>,
    pub(crate) formation: watch::Sender<Option<pb::Formation>>,
    pub(crate) reservations: Mutex<Reservations>,
    pub(crate) rumors: Rumors,
    /// Cancelled once another copy of the data directory has proven that it runs.
    pub(crate) copy_proven: CancellationToken,
    /// The servers that have reported that they count this start.
    pub(crate) counted_by: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) dir: Mutex<DataDir>,
}

impl Mesh {
    /// Opens the mesh of the server that a data directory belongs to.
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

    /// The identity of this server. Its mesh may be joined later: see [`Mesh::watch_id`].
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

    /// The mesh that this server belongs to. Once set, it never changes.
    pub fn id(&self) -> Option<MeshId> {
        self.inner.mesh.borrow().clone()
    }

    pub fn watch_id(&self) -> watch::Receiver<Option<MeshId>> {
        self.inner.mesh.subscribe()
    }

    /// The mesh that the seeds answered with, while this server belongs to none. They formed it
    /// without this server, or before this server lost its disk.
    pub fn met_mesh(&self) -> watch::Receiver<Option<MeshId>> {
        self.inner.met_mesh.subscribe()
    }

    /// The formation that made this server a member, if there was one.
    pub fn formation(&self) -> watch::Receiver<Option<pb::Formation>> {
        self.inner.formation.subscribe()
    }

    /// The configured addresses of other servers.
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

    /// The lock that keeps other processes out of the data directory. Databases in it hold it too.
    pub fn directory_lock(&self) -> Arc<DirLock> {
        self.lock_dir().lock()
    }

    /// Whether the stores were made and marked with the store id.
    pub fn store_made(&self) -> bool {
        self.lock_dir().store_made()
    }

    /// Records, durably, that the stores were made.
    ///
    /// # Errors
    ///
    /// If the identity file cannot be written.
    pub fn set_store_made(&self) -> io::Result<()> {
        self.lock_dir().set_store_made()
    }

    /// The envelope for a message to a member of a group. `store_id` is zero if it is not known.
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
            // The target would refuse the message: this server must first learn which start counts.
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

    /// Asks a server soon which of its starts runs. Called when it refused a message.
    pub fn request_lookup(&self, node_id: NodeId) {
        self.inner.rumors.request_lookup(node_id);
    }

    /// Checks that a message is meant for this server. Returns its group and its sender.
    ///
    /// # Errors
    ///
    /// If the message is for another mesh, server, store or start, or from a start that does not
    /// count.
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

    /// Waits until every one of `voters` counts this start, if the data directory may be a copy.
    /// Only then may it take part in their groups. A directory that is where it was made need not
    /// wait.
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

    /// Waits until every one of `servers` counts this start.
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

    /// Records, durably, that another start runs, or ran, from a copy of the data directory, so
    /// that the copies cannot run in turn.
    ///
    /// # Errors
    ///
    /// If the identity file cannot be written.
    pub fn set_overtaken(&self) -> io::Result<()> {
        self.lock_dir().set_overtaken()
    }

    /// Whether a copy of the data directory may have voted in terms that this one does not know of.
    /// Then its groups must raise their terms beyond those.
    pub fn terms_forgotten(&self) -> bool {
        self.lock_dir().terms_forgotten()
    }

    /// Records, durably, that every group has raised its term beyond the forgotten ones.
    ///
    /// # Errors
    ///
    /// If the identity file cannot be written.
    pub fn set_terms_raised(&self) -> io::Result<()> {
        self.lock_dir().set_terms_raised()
    }

    /// Sets the mesh that the seeds answered with, while this server belongs to none.
    pub(crate) fn set_met_mesh(&self, theirs: Option<MeshId>) {
        self.inner.met_mesh.send_if_modified(|met| {
            let changed = *met != theirs;
            *met = theirs;
            changed
        });
    }

    /// Records that every seed has been sent a Hello.
    pub(crate) fn set_greeted(&self) {
        self.inner.greeted.send_if_modified(|greeted| !std::mem::replace(greeted, true));
    }

    /// On a server that waits to be formed: waits until every seed was asked for its mesh, or until
    /// the limit.
    pub(crate) async fn greeted(&self, limit: Duration) {
        if self.inner.config.awaits_forming && self.id().is_none() {
            let mut greeted = self.inner.greeted.subscribe();
            // The caller must not wait for servers that are down, and it makes checks of its own.
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
