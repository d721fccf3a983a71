//! One DISCO server: a host, the service and a listener, on a runtime of its own, so that ending
//! the runtime ends the server as the end of a process would.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use proto::quorate::v1::{
    FormRequest, Formation, FormationMember, IdentifyRequest, form_request::Step,
    mesh_client::MeshClient, registry_client::RegistryClient,
};
use raft::{DataDir, DataDirError, Host, HostConfig, MeshId, Timing};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch, task::spawn_blocking};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use xds::{Disco, DiscoConfig, Readiness};

use super::{PATIENCE, eventually};

/// A data directory that outlives servers.
pub(crate) struct Disk(TempDir);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) host: Host,
    pub(crate) ready: watch::Receiver<Readiness>,
    shutdown: CancellationToken,
    ended: watch::Receiver<bool>,
    runtime: Option<Runtime>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

impl Server {
    /// A server that forms a mesh alone.
    pub(crate) async fn single(disk: &Disk) -> Self {
        Self::start(disk, true, Vec::new()).await
    }

    /// A server that waits to be formed with others, or finds them again at these addresses.
    pub(crate) async fn member(disk: &Disk, seeds: Vec<SocketAddr>) -> Self {
        Self::start(disk, false, seeds).await
    }

    async fn start(disk: &Disk, single: bool, seeds: Vec<SocketAddr>) -> Self {
        let dir = open(disk).await;
        let runtime = spawn_blocking(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
        });
        let runtime = runtime.await.unwrap().unwrap();
        let (address, host, disco, ended, shutdown) = runtime
            .spawn(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let host = Host::open(dir, host_config(address, seeds, !single)).unwrap();
                let disco = Disco::start(host.clone(), disco_config(single));
                let shutdown = CancellationToken::new();
                let ended = serve(listener, host.clone(), disco.clone(), shutdown.clone());
                (address, host, disco, ended, shutdown)
            })
            .await
            .unwrap();
        let runtime = Some(runtime);
        Self { address, host, ready: disco.ready(), shutdown, ended, runtime }
    }

    pub(crate) async fn ready(&self) {
        let mut ready = self.ready.clone();
        let reached = ready.wait_for(Readiness::is_ready);
        tokio::time::timeout(PATIENCE, reached).await.expect("not ready in time").unwrap();
    }

    pub(crate) fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect_timeout(Duration::from_secs(2)).connect_lazy()
    }

    pub(crate) fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel())
    }

    pub(crate) fn is_leader(&self) -> bool {
        let group = self.host.group(1);
        group.is_some_and(|it| it.status().leader == Some(self.host.identity().node_id))
    }

    /// Asks the server to stop, and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = self.ended.wait_for(|ended| *ended);
        tokio::time::timeout(PATIENCE, ended).await.expect("did not stop in time").unwrap();
        self.kill().await;
    }

    /// Ends the server without asking.
    pub(crate) async fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }
}

impl Drop for Server {
    /// Waits until the server's databases are closed: a process that exits while one is being
    /// closed is aborted by RocksDB, whose static mutexes are gone by then.
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // Elsewhere, since a runtime may not end within another one.
        let ended = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join();
        if ended.is_err() {
            eprintln!("a server's runtime panicked while it ended");
        }
    }
}

/// Forms a mesh of blank servers, as `quorate init` does.
pub(crate) async fn form(servers: &[&Server]) {
    let mut members = Vec::new();
    for server in servers {
        let identity = MeshClient::new(server.channel())
            .identify(IdentifyRequest {})
            .await
            .unwrap()
            .into_inner();
        members.push(FormationMember {
            node_id: identity.node_id,
            store_id: identity.store_id,
            address: server.address.to_string(),
        });
    }
    let formation = Formation { mesh_id: MeshId::generate().to_string(), members };
    for step in [Step::Reserve, Step::Commit] {
        for server in servers {
            let request = FormRequest { formation: Some(formation.clone()), step: step.into() };
            MeshClient::new(server.channel()).form(request).await.unwrap();
        }
    }
}

fn serve(
    listener: TcpListener,
    host: Host,
    disco: Disco,
    shutdown: CancellationToken,
) -> watch::Receiver<bool> {
    let router = tonic::transport::Server::builder()
        .add_service(host.raft_service())
        .add_service(host.mesh_service())
        .add_service(disco.ads_service())
        .add_service(disco.registry_service());
    let (ended_tx, ended) = watch::channel(false);
    let host_stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let stop = host_stop.clone().cancelled_owned();
    let incoming = TcpListenerStream::new(listener);
    tasks.spawn(async move { router.serve_with_incoming_shutdown(incoming, stop).await.unwrap() });
    let host_shutdown = host_stop.clone();
    tasks.spawn(async move { host.run(host_shutdown).await.unwrap() });
    tasks.spawn(async move {
        disco.run(shutdown).await.unwrap();
        host_stop.cancel();
        ended_tx.send_replace(true);
    });
    // The runtime ends them.
    tasks.detach_all();
    ended
}

/// Opens a data directory once the server before has let go of it.
async fn open(disk: &Disk) -> DataDir {
    let services = BTreeSet::from(["disco".to_owned()]);
    eventually("the data directory is free", || async {
        match DataDir::open(&disk.path(), &services, None) {
            Ok(dir) => Some(dir),
            Err(DataDirError::Locked(_)) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await
}

fn host_config(advertise: SocketAddr, seeds: Vec<SocketAddr>, awaits_forming: bool) -> HostConfig {
    HostConfig {
        advertise,
        seeds,
        awaits_forming,
        timing: Timing::quick(),
        version: "test".to_owned(),
    }
}

fn disco_config(single: bool) -> DiscoConfig {
    DiscoConfig {
        name: "d".to_owned(),
        region: String::new(),
        zone: String::new(),
        version: "test".to_owned(),
        data_voters_wanted: if single { 1 } else { 3 },
        single,
    }
}
