//! The etcd v3 gRPC services over the namespaces of this node.
//!
//! A client names its namespace with the metadata key `quorate-namespace`; without it, it is
//! `default`. What can be refused by its form is refused here; what is to be written is proposed to
//! the namespace's group, through its leader wherever that is; what is to be read is read here, from
//! this replica's rows, after the group has confirmed that they are recent enough unless the client
//! asks for no such thing.
//!
//! Codes and texts are etcd's, since its clients decide by them what to try again. A header has the
//! mesh as its cluster and the node as its member; revisions are the namespace's own.
//!
//! Which groups there are and who belongs to them is not decided here: requests to change members
//! are refused, since the mesh keeps them.

mod backend;
mod cluster;
mod kv;
mod maintenance;
mod refusal;
mod scans;

use mesh::{MeshId, NodeId};
use proto::etcdserverpb::{
    cluster_server::ClusterServer, kv_server::KvServer, maintenance_server::MaintenanceServer,
};
use tokio::sync::watch;

use self::backend::Backend;
pub use self::{cluster::ClusterService, kv::KvService, maintenance::MaintenanceService};
use crate::{kv::MAX_REQUEST_BYTES, namespaces::Namespaces};

/// The metadata key with which a client names its namespace.
pub const NAMESPACE_METADATA: &str = "quorate-namespace";

/// The namespace of clients that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The etcd version that we claim: clients ask it for what the server can do.
pub const ETCD_VERSION: &str = "3.5.21";

/// Messages above this are refused while they are read. It is above [`MAX_REQUEST_BYTES`], so that
/// what is a little too large gets etcd's own answer.
const MAX_MESSAGE_BYTES: usize = MAX_REQUEST_BYTES + 512 * 1024;

/// The services that clients call on the KV port.
#[derive(Clone, Debug)]
pub struct Etcd {
    backend: Backend,
}

impl Etcd {
    pub fn new(
        namespaces: Namespaces,
        node_id: NodeId,
        mesh: watch::Receiver<Option<MeshId>>,
    ) -> Self {
        Self { backend: Backend::new(namespaces, node_id, mesh) }
    }

    pub fn kv(&self) -> KvServer<KvService> {
        KvServer::new(KvService::new(self.backend.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn cluster(&self) -> ClusterServer<ClusterService> {
        ClusterServer::new(ClusterService::new(self.backend.clone()))
    }

    pub fn maintenance(&self) -> MaintenanceServer<MaintenanceService> {
        MaintenanceServer::new(MaintenanceService::new(self.backend.clone()))
    }
}
