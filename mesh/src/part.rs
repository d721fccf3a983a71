//! This server's part in its mesh: who it is, which mesh it is in, and whom it knows.
//!
//! The state and what is asked of it stand here. Forming and adopting a mesh are in `forming`, the
//! exchange of addresses in `hello`, the gRPC service in `mesh_service`.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use proto::quorate::v1 as pb;
use tokio::sync::watch;

use crate::{
    book::{Book, Hint},
    envelope::{self, Here, Refusal},
    formation::{Reservations, from_record},
    identity::{DataDir, DirLock, Identity},
    ids::{GroupId, MeshId, NodeId},
    peers::Peers,
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
    pub(crate) formation: watch::Sender<Option<pb::Formation>>,
    pub(crate) reservations: Mutex<Reservations>,
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
            formation: watch::Sender::new(None),
            reservations: Mutex::default(),
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

    /// The group that a message is for and who sent it, if it is meant for this server.
    ///
    /// # Errors
    ///
    /// Refuses a message for another mesh, server or store by name.
    pub fn receive(&self, envelope: Option<&pb::Envelope>) -> Result<(GroupId, NodeId), Refusal> {
        let mesh = self.inner.mesh.borrow();
        let here = Here {
            mesh: mesh.as_ref(),
            node_id: self.inner.identity.node_id,
            store_id: self.inner.identity.store_id,
        };
        envelope::check(envelope, here)
    }

    /// Takes note of the mesh of a server that answered, while this one belongs to none.
    pub(crate) fn meet(&self, theirs: MeshId) {
        self.inner.met_mesh.send_if_modified(|met| {
            let news = met.as_ref() != Some(&theirs);
            *met = Some(theirs);
            news
        });
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
