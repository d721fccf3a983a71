//! The way to the leader's registry service, for what is not a command: renewals, and questions
//! about what only the leader knows.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mesh::dial::endpoint;
use proto::quorate::v1::{
    LiveReply, LiveRequest, NodeLive, RemoveMemberReply, RemoveMemberRequest, RenewReply,
    RenewRequest, registry_client::RegistryClient,
};
use tonic::{Request, Status, metadata::MetadataValue, transport::Channel};

use crate::MESSAGE_LIMIT;

/// Marks a request that a server has passed on. It is not passed on again, so that no request
/// travels in circles while servers disagree about who leads.
const FORWARDED: &str = "quorate-forwarded";

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Well below a third of the shortest lease, so that the owner can try again in time.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

const REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to the leader, kept for as long as the leader's address is the same.
#[derive(Debug, Default)]
pub(crate) struct LeaderLink {
    kept: Mutex<Option<(SocketAddr, Channel)>>,
}

impl LeaderLink {
    /// Renews leases at the server of this address.
    pub(crate) async fn renew(
        &self,
        leader: SocketAddr,
        lease_ids: Vec<u64>,
        reports: Vec<NodeLive>,
    ) -> Result<RenewReply, Status> {
        let mesh_id = String::new();
        let mut request = Request::new(RenewRequest { lease_ids, mesh_id, reports });
        request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
        let reply = RegistryClient::new(self.channel(leader)).renew(request).await?;
        Ok(reply.into_inner())
    }

    /// Asks the server of this address for what only a leader knows.
    pub(crate) async fn live(
        &self,
        leader: SocketAddr,
        lease_ids: Vec<u64>,
    ) -> Result<LiveReply, Status> {
        let client = RegistryClient::new(self.channel(leader));
        let mut client = client.max_decoding_message_size(MESSAGE_LIMIT);
        Ok(client.live(LiveRequest { lease_ids }).await?.into_inner())
    }

    /// Lets the server of this address remove a member.
    pub(crate) async fn remove_member(
        &self,
        leader: SocketAddr,
        node_id: u64,
    ) -> Result<RemoveMemberReply, Status> {
        let mut request =
            Request::new(RemoveMemberRequest { node_id, ..RemoveMemberRequest::default() });
        request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
        // A change of membership takes a few rounds.
        request.set_timeout(REMOVAL_TIMEOUT);
        let endpoint = endpoint(leader).connect_timeout(CONNECT_TIMEOUT);
        let mut client = RegistryClient::new(endpoint.connect_lazy());
        Ok(client.remove_member(request).await?.into_inner())
    }

    fn channel(&self, leader: SocketAddr) -> Channel {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, channel)) = &*kept
            && *address == leader
        {
            return channel.clone();
        }
        let endpoint = endpoint(leader).connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
        let channel = endpoint.connect_lazy();
        *kept = Some((leader, channel.clone()));
        channel
    }
}

/// Whether another server passed the request on.
pub(crate) fn is_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}
