//! What the service counts, for metrics.

use std::time::Duration;

use proto::quorate::v1::Health;

use crate::shared::Shared;

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Open streams of Envoys and gRPC clients, and sessions of data nodes.
    pub streams: usize,
    /// Open streams of Envoys and gRPC clients.
    pub xds_streams: usize,
    /// Of those, the streams with a response that its client has not answered for long.
    pub xds_unanswered: usize,
    /// How long the oldest unanswered response has waited.
    pub xds_oldest_unanswered: Duration,
    /// Resources that clients reject at present, counted for each client.
    pub xds_rejected: usize,
    /// Responses that clients have rejected since the start.
    pub xds_rejections: u64,
    /// The log index up to which this server has applied.
    pub revision: u64,
    pub services: usize,
    pub instances: usize,
    /// Of the instances, those that report to be healthy.
    pub healthy: usize,
    /// Of the instances, those whose owners are silent: they are served only as a last resort.
    pub silent: usize,
    /// Leases whose owners are silent while expiry is held back; zero unless this server leads and
    /// too many owners fell silent at once.
    pub held_leases: usize,
}

impl Figures {
    pub(crate) fn of(shared: &Shared) -> Self {
        let (services, instances, healthy, silent) = shared.board.read(|registry| {
            let silent = registry.instances().filter(|it| it.silent_since.is_some()).count();
            let healthy = registry.instances().filter(|it| it.health == Health::Healthy);
            let healthy = healthy.filter(|it| it.silent_since.is_none()).count();
            (registry.services().count(), registry.instances().count(), healthy, silent)
        });
        let xds = shared.clients.figures(shared.now());
        Self {
            streams: shared.tasks.len(),
            xds_streams: xds.open,
            xds_unanswered: xds.unanswered,
            xds_oldest_unanswered: xds.oldest_unanswered,
            xds_rejected: xds.rejected,
            xds_rejections: xds.rejections,
            revision: shared.board.revision(),
            services,
            instances,
            healthy,
            silent,
            held_leases: shared.leases.frozen().map_or(0, |frozen| frozen.missing),
        }
    }
}
