//! Probes whether another server can be reached.

use std::time::Duration;

use proto::quorate::v1::{IdentifyRequest, mesh_client::MeshClient};
use tokio::time;

use crate::{ids::NodeId, part::Mesh};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(1);

impl Mesh {
    /// Whether a server answers at the address that this server would send messages to.
    pub async fn reaches(&self, node_id: NodeId) -> bool {
        let mut client = MeshClient::new(self.peers().channel(node_id));
        let asked = time::timeout(TIMEOUT, client.identify(IdentifyRequest {})).await;
        matches!(asked, Ok(Ok(server)) if server.get_ref().node_id == node_id)
    }
}
