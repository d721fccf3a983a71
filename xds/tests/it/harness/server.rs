//! One DISCO server: a host, the service and a listener, on a runtime of its own, so that ending
//! the runtime ends the server as the end of a process would.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use mesh::{DISCO_GROUP, DataDir, DataDirError, Hint, Mesh, MeshConfig, MeshId, hangup::Hanging};
use proto::quorate::v1::{
    FormRequest, Formation, FormationMember, IdentifyRequest, form_request::Step,
    mesh_client::MeshClient, registry_client::RegistryClient,
};
use raft::{Group, Host, Timing};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime, sync::watch, task::spawn_blocking};
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Channel, Endpoint},
};
use xds::{Disco, DiscoConfig, DiscoError, Readiness, StreamDeadlines};

use super::{PATIENCE, eventually, relay::Relay};

/// A data directory that outlives servers.
pub(crate) struct Disk(TempDir);

/// How the service ended, once it has.
type Ended = watch::Receiver<Option<Result<(), String>>>;

pub(crate) struct Server {
    /// Where the test reaches it. Its peers reach it at the address that it advertises, through the
    /// relay.
    pub(crate) address: SocketAddr,
    pub(crate) host: Host,
    pub(crate) disco: Disco,
    pub(crate) ready: watch::Receiver<Readiness>,
    shutdown: CancellationToken,
    cut: CancellationToken,
    /// Accepts connections and never answers. A server that is cut off finds it at the addresses of
    /// its peers.
    void: std::net::TcpListener,
    ended: Ended,
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
        Self::start(disk, disco_config(true), Vec::new()).await
    }

    /// As [`Server::single`], and it soon lets go of clients that do not read or do not answer.
    pub(crate) async fn impatient(disk: &Disk) -> Self {
        let deadlines = StreamDeadlines { read: CLIENT_PATIENCE, answer: CLIENT_PATIENCE };
        let config = DiscoConfig { stream_deadlines: deadlines, ..disco_config(true) };
        Self::start(disk, config, Vec::new()).await
    }

    /// A server that waits to be formed with others, or finds them again at these addresses.
    pub(crate) async fn member(disk: &Disk, seeds: Vec<SocketAddr>) -> Self {
        Self::start(disk, disco_config(false), seeds).await
    }

    async fn start(disk: &Disk, config: DiscoConfig, seeds: Vec<SocketAddr>) -> Self {
        let dir = open(disk).await;
        let runtime = spawn_blocking(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
        });
        let runtime = runtime.await.unwrap().unwrap();
        let cut = CancellationToken::new();
        let relay_cut = cut.clone();
        let (address, host, disco, ended, shutdown) = runtime
            .spawn(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let relay = Relay::bind().await;
                let in_mesh = mesh_config(relay.address, seeds, !config.single);
                let host = Host::open(Mesh::open(dir, in_mesh), Timing::quick()).unwrap();
                let disco = Disco::start(host.clone(), config);
                let shutdown = CancellationToken::new();
                let relayed = relay.run(address, relay_cut);
                let ended = serve(listener, relayed, host.clone(), disco.clone(), shutdown.clone());
                (address, host, disco, ended, shutdown)
            })
            .await
            .unwrap();
        let runtime = Some(runtime);
        let void = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ready = disco.ready();
        Self { address, host, disco, ready, shutdown, cut, void, ended, runtime }
    }

    pub(crate) async fn ready(&self) {
        let mut ready = self.ready.clone();
        let reached = ready.wait_for(|it| it.reasons.is_empty());
        tokio::time::timeout(PATIENCE, reached).await.expect("not ready in time").unwrap();
    }

    pub(crate) fn channel(&self) -> Channel {
        self.endpoint().connect_lazy()
    }

    /// The connection of a client that reads nothing: the server may send it no byte of a response.
    pub(crate) fn unread_channel(&self) -> Channel {
        self.endpoint().initial_stream_window_size(0_u32).connect_lazy()
    }

    fn endpoint(&self) -> Endpoint {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect_timeout(Duration::from_secs(2))
    }

    pub(crate) fn registry(&self) -> RegistryClient<Channel> {
        RegistryClient::new(self.channel())
    }

    /// The replica of the DISCO group on this server.
    pub(crate) fn group(&self) -> Group {
        self.host.group(DISCO_GROUP).unwrap()
    }

    pub(crate) fn mesh_id(&self) -> String {
        self.host.mesh().id().unwrap().to_string()
    }

    pub(crate) fn is_leader(&self) -> bool {
        let group = self.host.group(DISCO_GROUP);
        group.is_some_and(|it| it.status().leader == Some(self.host.identity().node_id))
    }

    /// Asks the server to stop.
    pub(crate) fn begin_stop(&self) {
        self.shutdown.cancel();
    }

    /// Asks the server to stop, and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.begin_stop();
        assert_eq!(self.ended().await, Ok(()));
        self.kill().await;
    }

    /// Waits until the service has ended. An error says why it ended by itself.
    pub(crate) async fn ended(&mut self) -> Result<(), String> {
        let ended = self.ended.wait_for(Option::is_some);
        let ended = tokio::time::timeout(PATIENCE, ended).await.expect("did not end in time");
        ended.unwrap().clone().unwrap()
    }

    /// Waits until the server answers reads and holds sessions.
    pub(crate) async fn answers(&self) {
        let mut ready = self.ready.clone();
        let reached = ready.wait_for(|it| it.answering);
        tokio::time::timeout(PATIENCE, reached).await.expect("no answers in time").unwrap();
    }

    /// Cuts the server off from its peers, both ways. The test still reaches it.
    pub(crate) fn cut_off(&self) {
        self.cut.cancel();
        let own_id = self.host.identity().node_id;
        for hint in self.host.mesh().book().hints().into_iter().filter(|it| it.node_id != own_id) {
            let address = self.void.local_addr().unwrap();
            self.host.mesh().book().learn(Hint { moves: u64::MAX, address, ..hint });
        }
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
        // On a thread of its own, since a runtime must not end within another one.
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
            address: server.host.mesh().advertise().to_string(),
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
    relayed: impl Future<Output = ()> + Send + 'static,
    host: Host,
    disco: Disco,
    shutdown: CancellationToken,
) -> Ended {
    let mut routes = Routes::builder();
    routes.add_service(host.raft_service()).add_service(host.mesh_service());
    routes.add_service(disco.registry_service());
    disco.add_discovery(&mut routes);
    let router = tonic::transport::Server::builder().add_routes(routes.routes());
    let (ended_tx, ended) = watch::channel(None);
    let host_stop = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(relayed);
    let stop = host_stop.clone().cancelled_owned();
    let incoming = TcpListenerStream::new(listener).map(|it| it.map(Hanging::new));
    tasks.spawn(async move { router.serve_with_incoming_shutdown(incoming, stop).await.unwrap() });
    let host_shutdown = host_stop.clone();
    let (mesh, mesh_shutdown) = (host.mesh().clone(), host_stop.clone());
    tasks.spawn(async move { mesh.run(mesh_shutdown).await.unwrap() });
    tasks.spawn(async move { host.run(host_shutdown).await.unwrap() });
    tasks.spawn(async move {
        let outcome = disco.run(shutdown).await;
        host_stop.cancel();
        ended_tx.send_replace(Some(outcome.map_err(describe)));
    });
    // The runtime ends them.
    tasks.detach_all();
    ended
}

fn describe(error: DiscoError) -> String {
    format!("refusal: {}, {error}", error.is_refusal())
}

/// Opens a data directory once the server before has unlocked it.
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

fn mesh_config(advertise: SocketAddr, seeds: Vec<SocketAddr>, awaits_forming: bool) -> MeshConfig {
    MeshConfig { advertise, seeds, awaits_forming, version: "test".to_owned() }
}

/// Short enough to be waited for.
pub(crate) const LATCH_PATIENCE: Duration = Duration::from_secs(5);
const CLIENT_PATIENCE: Duration = Duration::from_secs(3);

fn disco_config(single: bool) -> DiscoConfig {
    DiscoConfig {
        name: "d".to_owned(),
        region: String::new(),
        zone: String::new(),
        version: "test".to_owned(),
        data_voters_wanted: if single { 1 } else { 3 },
        single,
        latch_patience: LATCH_PATIENCE,
        stale_streams_after: Duration::from_secs(5),
        stream_deadlines: StreamDeadlines::default(),
    }
}
