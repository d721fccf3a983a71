//! The etcd v3 gRPC services over the namespaces of this node.
//!
//! A client names its namespace with the metadata key `quorate-namespace`; if it names none, the
//! namespace is `default`. Malformed requests are refused here. Writes are proposed to the
//! namespace's group, through its leader. Reads are answered from this replica's rows, after the
//! group has confirmed that they are recent; a serializable read leaves the confirmation out.
//!
//! Codes and texts are etcd's, since its clients decide by them what to retry. In a header the
//! cluster is the mesh and the member is the node; each namespace counts its own revisions.
//!
//! The mesh decides which groups there are and who their members are, so requests to change members
//! are refused.

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

/// The etcd version that we claim: clients derive from it what the server can do.
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
