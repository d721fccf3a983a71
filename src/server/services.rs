//! The services of this process, and what each port answers for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use node::{Data, DataConfig, etcd::Etcd};
use raft::Host;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::{
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};
use xds::{Disco, DiscoConfig, StreamDeadlines};

use super::{StageTasks, kv_http, readiness::Readiness, statuses::told_plainly};
use crate::{
    config::{Config, KvPort, Service, Start},
    failure::Failure,
};

/// Voters of a data group, and the number of data nodes that the first decision waits for.
const DATA_VOTERS: usize = 3;

/// gRPC services by their names on the wire, for reflection.
const MESH_SERVICES: [&str; 2] = ["quorate.v1.Mesh", "quorate.v1.Raft"];
const DISCO_SERVICES: [&str; 1] = ["quorate.v1.Registry"];
const KV_SERVICES: [&str; 3] =
    ["etcdserverpb.KV", "etcdserverpb.Cluster", "etcdserverpb.Maintenance"];
const COMMON_SERVICES: [&str; 1] = ["grpc.health.v1.Health"];

/// What this server was told to run.
#[derive(Debug)]
pub(super) struct Services {
    disco: Option<Disco>,
    data: Option<Data>,
    etcd: Option<Etcd>,
}

impl Services {
    /// Prepares the services. Nothing runs yet.
    pub(super) fn start(config: &Config, host: &Host) -> Result<Self, Failure> {
        let disco = config
            .provides(Service::Disco)
            .then(|| Disco::start(host.clone(), disco_config(config)));
        let data = match config.kv {
            Some(kv) => Some(
                Data::start(host.clone(), data_config(config, kv))
                    .map_err(|error| Failure::other("cannot start the data service", &error))?,
            ),
            None => None,
        };
        let etcd = data.as_ref().map(|data| {
            Etcd::new(data.namespaces(), host.identity().node_id, host.mesh().watch_id())
        });
        Ok(Self { disco, data, etcd })
    }

    pub(super) fn disco(&self) -> Option<&Disco> {
        self.disco.as_ref()
    }

    pub(super) fn readiness(&self) -> Readiness {
        Readiness::new(self.disco.as_ref().map(Disco::ready), self.data.as_ref().map(Data::ready))
    }

    pub(super) fn mesh_routes(
        &self,
        host: &Host,
        health: HealthReporter,
    ) -> Result<Routes, Failure> {
        let mut routes = Routes::builder();
        routes.add_service(host.raft_service()).add_service(host.mesh_service());
        let mut names = MESH_SERVICES.to_vec();
        if let Some(disco) = &self.disco {
            disco.add_discovery(&mut routes);
            routes.add_service(disco.registry_service());
            names.extend(DISCO_SERVICES);
        }
        add_common(&mut routes, &names, health)?;
        Ok(told_plainly(routes.routes(), &names))
    }

    pub(super) fn kv_routes(
        &self,
        health: HealthReporter,
        readiness: &Readiness,
    ) -> Result<Option<Routes>, Failure> {
        let Some(etcd) = &self.etcd else { return Ok(None) };
        let mut routes = Routes::builder();
        routes.add_service(etcd.kv()).add_service(etcd.cluster()).add_service(etcd.maintenance());
        add_common(&mut routes, &KV_SERVICES, health)?;
        let over_http = kv_http::router(readiness);
        let routes = routes.routes().into_axum_router().merge(over_http);
        let routes = routes.fallback(kv_http::unknown).into();
        Ok(Some(told_plainly(routes, &KV_SERVICES)))
    }

    pub(super) fn run(self, tasks: &mut StageTasks) {
        if let Some(disco) = self.disco {
            let stop = tasks.stop.clone();
            tasks
                .set
                .spawn(async { ("the disco service", disco.run(stop).await.map_err(Into::into)) });
        }
        if let Some(data) = self.data {
            let stop = tasks.stop.clone();
            tasks
                .set
                .spawn(async { ("the data service", data.run(stop).await.map_err(Into::into)) });
        }
    }
}

fn disco_config(config: &Config) -> DiscoConfig {
    let single = config.start == Start::Alone;
    // A lone DISCO server serves data nodes of their own; only a lone server with all services is
    // its own and only data node.
    let alone = single && config.provides(Service::Data);
    DiscoConfig {
        name: config.name.clone(),
        region: config.region.clone(),
        zone: config.zone.clone(),
        version: env!("QUORATE_VERSION").to_owned(),
        data_voters_wanted: if alone { 1 } else { DATA_VOTERS },
        single,
        latch_patience: config.latch_patience,
        stale_streams_after: config.stale_streams_after,
        stream_deadlines: StreamDeadlines::default(),
    }
}

fn data_config(config: &Config, kv: KvPort) -> DataConfig {
    let mut disco = config.disco.clone();
    if config.provides(Service::Disco) {
        disco.insert(0, from_here(config.listen));
    }
    DataConfig {
        directory: config.data_dir.clone(),
        disco,
        mesh_address: config.advertise,
        kv_address: kv.advertise,
        region: config.region.clone(),
        zone: config.zone.clone(),
        name: config.name.clone(),
        version: env!("QUORATE_VERSION").to_owned(),
        replace_after: config.replace_after,
    }
}

/// Where this machine reaches one of its own listeners.
fn from_here(listen: SocketAddr) -> SocketAddr {
    let loopback = match listen.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
    };
    let ip = if listen.ip().is_unspecified() { loopback } else { listen.ip() };
    SocketAddr::new(ip, listen.port())
}

/// Health and reflection, on every gRPC port.
fn add_common(
    routes: &mut RoutesBuilder,
    names: &[&str],
    health: HealthReporter,
) -> Result<(), Failure> {
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        names.iter().chain(&COMMON_SERVICES).fold(builder, |it, name| it.with_service_name(*name))
    };
    let broken = |error| Failure::other("cannot offer reflection", &error);
    routes
        .add_service(HealthServer::new(HealthService::from_health_reporter(health)))
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?);
    Ok(())
}
