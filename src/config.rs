//! What a server is told, complete and checked.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use mesh::MeshId;

use crate::values::Addresses;

/// Where DISCO is looked for when nothing else is said.
pub(crate) const DEFAULT_DISCO: &str = "127.0.0.1:7400";

/// A service that this binary can provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Disco,
    Data,
}

/// How a server without a mesh gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Forms a mesh of its own at once: single mode.
    Alone,
    /// Waits until `quorate init` forms a mesh of it and others.
    Formed,
    /// Joins the mesh of the DISCO servers that it is told.
    Joined,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) services: BTreeSet<Service>,
    pub(crate) data_dir: PathBuf,
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) zone: String,
    /// The mesh that the data directory must belong to, if any is demanded.
    pub(crate) mesh: Option<MeshId>,
    pub(crate) start: Start,
    pub(crate) listen: SocketAddr,
    /// Where others reach the mesh port; its port is zero when the system chooses it.
    pub(crate) advertise: SocketAddr,
    /// Whether it is the address of this machine on the way to the seeds, and not one that was given.
    pub(crate) advertise_is_derived: bool,
    /// The etcd API, on servers with the data service.
    pub(crate) kv: Option<KvPort>,
    pub(crate) admin_listen: SocketAddr,
    /// Servers to greet at start, without this one.
    pub(crate) seeds: Vec<SocketAddr>,
    /// Where the data service finds DISCO, apart from this process.
    pub(crate) disco: Vec<SocketAddr>,
    /// By namespace: the entry after which an operator gives everything up.
    pub(crate) accept_losses: BTreeMap<String, u64>,
    /// How long a voter's node must be down before another one takes its seat.
    pub(crate) replace_after: Duration,
    pub(crate) latch_patience: Duration,
    /// How long streams of discovery go on without a quorum that may be elsewhere.
    pub(crate) stale_streams_after: Duration,
    pub(crate) shutdown_grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvPort {
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: SocketAddr,
}

impl Service {
    pub(crate) const ALL: [Self; 2] = [Self::Disco, Self::Data];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disco => "disco",
            Self::Data => "data",
        }
    }
}

impl Config {
    pub(crate) fn provides(&self, service: Service) -> bool {
        self.services.contains(&service)
    }

    pub(crate) fn service_names(&self) -> BTreeSet<String> {
        self.services.iter().map(|service| service.name().to_owned()).collect()
    }

    /// Tells the effective configuration, once.
    pub(crate) fn tell(&self) {
        let kv = self.kv.map(|kv| (kv.listen.to_string(), kv.advertise.to_string()));
        let (kv_listen, kv_advertise) = kv.unwrap_or_default();
        tracing::info!(
            services = %self.service_names().into_iter().collect::<Vec<_>>().join(","),
            data_dir = %self.data_dir.display(),
            name = self.name,
            region = self.region,
            zone = self.zone,
            listen = %self.listen,
            advertise = %self.advertise,
            kv_listen,
            kv_advertise,
            admin_listen = %self.admin_listen,
            seeds = %Addresses(self.seeds.clone()),
            start = ?self.start,
            shutdown_grace = ?self.shutdown_grace,
            version = env!("QUORATE_VERSION"),
            "configuration"
        );
    }
}
