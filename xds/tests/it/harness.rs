//! Servers and clients for the tests.

mod ads;
mod node;
mod relay;
mod server;

use std::{future::Future, time::Duration};

use proto::quorate::v1::{Health, Instance, RegisterRequest, RenewRequest};
use tokio::time::{Instant, sleep};

pub(crate) use self::{
    ads::{Delta, Sotw, versions},
    node::{NodeClient, hello},
    server::{Disk, LATCH_PATIENCE, Server, form},
};

/// How long anything may take that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long it is watched that something does not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(400);

pub(crate) const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub(crate) const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub(crate) const ENDPOINTS: &str =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// Polls until there is something, with a deadline.
pub(crate) async fn eventually<T, F>(what: &str, mut poll: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = poll().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn instance(service: &str, id: &str, address: &str) -> Instance {
    Instance {
        service: service.to_owned(),
        id: id.to_owned(),
        address: address.to_owned(),
        health: Health::Healthy.into(),
        ..Instance::default()
    }
}

pub(crate) fn register(instance: Instance) -> RegisterRequest {
    RegisterRequest { instance: Some(instance), ..RegisterRequest::default() }
}

pub(crate) fn renew(lease_ids: &[u64]) -> RenewRequest {
    RenewRequest { lease_ids: lease_ids.to_vec(), ..RenewRequest::default() }
}
