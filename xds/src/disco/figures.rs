//! What the service counts, for whoever watches it.

use proto::quorate::v1::Health;

use crate::shared::Shared;

/// The service at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Open streams of Envoys and gRPC clients, and sessions of data nodes.
    pub streams: usize,
    /// The log index up to which this server has applied.
    pub revision: u64,
    pub services: usize,
    pub instances: usize,
    /// Of the instances, those that report to be healthy.
    pub healthy: usize,
    /// Leases whose owners are silent while expiry is held; zero unless this server leads and too
    /// many owners fell silent at once.
    pub held_leases: usize,
}

impl Figures {
    pub(crate) fn of(shared: &Shared) -> Self {
        let (services, instances, healthy) = shared.board.read(|registry| {
            let healthy = registry.instances().filter(|it| it.health == Health::Healthy).count();
            (registry.services().count(), registry.instances().count(), healthy)
        });
        Self {
            streams: shared.tasks.len(),
            revision: shared.board.revision(),
            services,
            instances,
            healthy,
            held_leases: shared.leases.frozen().map_or(0, |frozen| frozen.missing),
        }
    }
}
