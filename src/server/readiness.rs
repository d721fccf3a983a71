//! Whether this server can do its work, and if not, why: asked over HTTP (`/ready`) and as gRPC
//! health on the mesh port and on the KV port.
//!
//! Each service says so itself; this puts them together. Readiness gates traffic, never discovery:
//! a server that is not ready is in the mesh all the same.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::Ended;

const STOPPING: &str = "stopping";

/// Clones are handles to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    disco: Option<watch::Receiver<xds::Readiness>>,
    data: Option<watch::Receiver<node::Ready>>,
    reasons: Arc<watch::Sender<Vec<String>>>,
    mesh_health: HealthReporter,
    kv_health: HealthReporter,
    stopping: CancellationToken,
}

impl Readiness {
    pub(super) fn new(
        disco: Option<watch::Receiver<xds::Readiness>>,
        data: Option<watch::Receiver<node::Ready>>,
    ) -> Self {
        Self {
            disco,
            data,
            reasons: Arc::new(watch::Sender::new(vec!["starting".to_owned()])),
            mesh_health: HealthReporter::new(),
            kv_health: HealthReporter::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Watches until the end of the server.
    pub(super) async fn keep(mut self, closing: CancellationToken) -> Ended {
        loop {
            self.tell().await;
            let stopping = self.stopping.is_cancelled();
            tokio::select! {
                () = closing.cancelled() => return ("readiness", Ok(())),
                () = self.stopping.cancelled(), if !stopping => {}
                () = changed(&mut self.disco) => {}
                () = changed(&mut self.data) => {}
            }
        }
    }

    /// From here on the server is not ready, so that clients turn away before it closes.
    pub(super) fn stop(&self) {
        self.stopping.cancel();
    }

    /// Completes when the server is ready.
    pub(super) async fn ready(&self) {
        // An error would say that the sender is gone, and it is held here.
        let _ = self.reasons.subscribe().wait_for(Vec::is_empty).await;
    }

    /// Why the server is not ready; none if it is.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.reasons.borrow().clone()
    }

    /// Why the etcd API does not serve.
    pub(super) fn kv_reasons(&self) -> Vec<String> {
        self.look().1
    }

    pub(super) fn mesh_health(&self) -> HealthReporter {
        self.mesh_health.clone()
    }

    pub(super) fn kv_health(&self) -> HealthReporter {
        self.kv_health.clone()
    }

    async fn tell(&self) {
        let (disco, data) = self.look();
        self.kv_health.set_service_status("", status(&data)).await;
        let mut reasons: Vec<_> = disco.into_iter().chain(data).collect();
        reasons.dedup();
        self.mesh_health.set_service_status("", status(&reasons)).await;
        self.reasons.send_if_modified(|told| {
            let changed = *told != reasons;
            if changed {
                let ready = reasons.is_empty();
                tracing::info!(ready, reasons = reasons.join("; "), "readiness");
                *told = reasons;
            }
            changed
        });
    }

    /// What each service lacks.
    fn look(&self) -> (Vec<String>, Vec<String>) {
        if self.stopping.is_cancelled() {
            return (vec![STOPPING.to_owned()], vec![STOPPING.to_owned()]);
        }
        let disco = self.disco.as_ref().map(|disco| disco.borrow().reasons.clone());
        let data = self.data.as_ref().map(|data| data.borrow().reasons.clone());
        (disco.unwrap_or_default(), data.unwrap_or_default())
    }
}

/// Completes when a service says something else; never for one that is not run, or has ended.
async fn changed<T>(receiver: &mut Option<watch::Receiver<T>>) {
    if let Some(watched) = receiver
        && watched.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn status(reasons: &[String]) -> ServingStatus {
    if reasons.is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing }
}
