//! A data server in this process: real sockets, a real disk, a runtime of its own, so that it can
//! be stopped and killed as a process can.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use mesh::{DataDir, DataDirError, Identity, Mesh, MeshConfig, MeshId};
use node::{Data, DataConfig, DataError, Ready, etcd::Etcd, namespaces::DEFAULT_GROUP};
use proto::{
    etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient},
    quorate::v1::{
        FormRequest, Formation, FormationMember, form_request::Step, mesh_client::MeshClient,
    },
};
use raft::{Host, HostError, Status, Timing};
use tokio::{
    net::TcpListener as AsyncListener,
    runtime::{Builder, Runtime},
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Server as Listener};

/// Everything here happens within this, or the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a server may take to stop, as a user is promised.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// Longer than any test runs: no voter is replaced.
const REPLACE_AFTER: Duration = Duration::from_secs(600);

/// Ports that a server will listen on, known before it starts.
pub(crate) struct Ports {
    mesh: TcpListener,
    kv: TcpListener,
}

pub(crate) struct Server {
    pub(crate) identity: Identity,
    pub(crate) mesh_address: SocketAddr,
    kv_address: SocketAddr,
    directory: PathBuf,
    host: Host,
    ready: watch::Receiver<Ready>,
    stop: CancellationToken,
    stop_host: CancellationToken,
    hosting: JoinHandle<Result<(), HostError>>,
    data: JoinHandle<Result<(), DataError>>,
    runtime: Runtime,
}

impl Ports {
    pub(crate) fn bind() -> Self {
        let bind = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        Self { mesh: bind(), kv: bind() }
    }

    pub(crate) fn mesh_address(&self) -> SocketAddr {
        self.mesh.local_addr().unwrap()
    }
}

impl Server {
    /// Starts a server that is told the addresses of others, and no DISCO.
    pub(crate) async fn start(directory: &Path, ports: Ports, peers: &[SocketAddr]) -> Self {
        Self::run(directory, ports, peers, &[]).await
    }

    /// Starts a server that is told of DISCO servers only.
    pub(crate) async fn join(directory: &Path, disco: &[SocketAddr]) -> Self {
        Self::run(directory, Ports::bind(), &[], disco).await
    }

    async fn run(
        directory: &Path,
        ports: Ports,
        peers: &[SocketAddr],
        disco: &[SocketAddr],
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mesh_address = ports.mesh_address();
        let kv_address = ports.kv.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stop_host = CancellationToken::new();
        let stops = (stop.clone(), stop_host.clone());
        let boot = boot(directory.to_owned(), ports, peers.to_vec(), disco.to_vec(), stops);
        let (host, hosting, ready, data) = runtime.spawn(boot).await.unwrap();
        Self {
            identity: host.identity(),
            mesh_address,
            kv_address,
            directory: directory.to_owned(),
            host,
            ready,
            stop,
            stop_host,
            hosting,
            data,
            runtime,
        }
    }

    /// What this replica knows of the group of the namespace `default`, once it runs.
    pub(crate) fn status(&self) -> Option<Status> {
        self.host.group(DEFAULT_GROUP).map(|group| group.status())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Stops the server in the way of SIGTERM, and gives its directory back.
    pub(crate) async fn stop(self) -> PathBuf {
        self.stop.cancel();
        timeout(STOPS_WITHIN, self.data).await.unwrap().unwrap().unwrap();
        self.stop_host.cancel();
        timeout(STOPS_WITHIN, self.hosting).await.unwrap().unwrap().unwrap();
        drop(self.host);
        end(self.runtime).await;
        self.directory
    }

    /// Ends the server without notice, and gives its directory back.
    pub(crate) async fn kill(self) -> PathBuf {
        drop(self.host);
        end(self.runtime).await;
        self.directory
    }

    /// Waits for the data service to end by itself.
    pub(crate) async fn refusal(self) -> DataError {
        let ended = timeout(PATIENCE, self.data).await.unwrap().unwrap();
        drop(self.host);
        end(self.runtime).await;
        ended.unwrap_err()
    }

    pub(crate) async fn is_ready(&self) {
        let mut ready = self.ready.clone();
        let is_ready = ready.wait_for(|ready| ready.groups == 1 && ready.reasons.is_empty());
        match timeout(PATIENCE, is_ready).await {
            Ok(ready) => drop(ready.unwrap()),
            Err(_) => panic!("not ready: {:?}", self.ready.borrow()),
        };
    }

    /// Waits until the server says that it waits for something.
    pub(crate) async fn waits(&self, words: &str) {
        let mut ready = self.ready.clone();
        let says = ready.wait_for(|ready| ready.reasons.iter().any(|it| it.contains(words)));
        timeout(PATIENCE, says).await.unwrap().unwrap();
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        let request = || PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        self.until_available(async |client| client.put(request()).await).await;
    }

    /// A linearizable read.
    pub(crate) async fn get(&self, key: &str) -> Option<String> {
        let request = || RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        let response = self.until_available(async |client| client.range(request()).await).await;
        let pair = response.into_inner().kvs.pop()?;
        Some(String::from_utf8(pair.value.to_vec()).unwrap())
    }

    pub(crate) fn leads(&self) -> bool {
        self.status().is_some_and(|status| status.leader == Some(self.identity.node_id))
    }

    /// Waits until the leader has this server's acknowledgment of everything.
    pub(crate) async fn caught_up_with(&self, leader: &Self) {
        until("the follower to catch up", || {
            let status = leader.status();
            let members = status.iter().flat_map(|status| &status.members);
            let mut own = members.filter(|it| it.node_id == self.identity.node_id);
            own.any(|it| it.lag == Some(0))
        })
        .await;
    }

    /// Repeats a call for as long as the answer is UNAVAILABLE.
    async fn until_available<T>(
        &self,
        call: impl AsyncFn(&mut KvClient<tonic::transport::Channel>) -> Result<T, tonic::Status>,
    ) -> T {
        let trying = async {
            let endpoint = format!("http://{}", self.kv_address);
            let mut client = KvClient::connect(endpoint).await.unwrap();
            loop {
                match call(&mut client).await {
                    Ok(answer) => return answer,
                    Err(status) if status.code() == Code::Unavailable => {
                        sleep(Duration::from_millis(50)).await;
                    }
                    Err(status) => panic!("{status}"),
                }
            }
        };
        timeout(PATIENCE, trying).await.unwrap()
    }
}

/// Waits for a condition that nothing announces.
pub(crate) async fn until(what: &str, check: impl Fn() -> bool) {
    let waiting = async {
        while !check() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "waited in vain for {what}");
}

/// Forms a mesh as `quorate init` does: reserved on all, then committed on all.
pub(crate) async fn form(servers: &[&Server]) {
    let members = servers.iter().map(|server| FormationMember {
        node_id: server.identity.node_id,
        store_id: server.identity.store_id,
        address: server.mesh_address.to_string(),
    });
    let formation =
        Formation { mesh_id: MeshId::generate().to_string(), members: members.collect() };
    for step in [Step::Reserve, Step::Commit] {
        for server in servers {
            let endpoint = format!("http://{}", server.mesh_address);
            let mut client = MeshClient::connect(endpoint).await.unwrap();
            let formation = Some(formation.clone());
            client.form(FormRequest { formation, step: step.into() }).await.unwrap();
        }
    }
}

/// Opens a data directory once the host before has unlocked it.
pub(crate) async fn open_directory(directory: &Path) -> DataDir {
    let services = BTreeSet::from(["data".to_owned()]);
    let opening = async {
        loop {
            match DataDir::open(directory, &services, None) {
                Ok(opened) => return opened,
                Err(DataDirError::Locked(_)) => sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(PATIENCE, opening).await.unwrap()
}

pub(crate) async fn open_host(
    directory: &Path,
    advertise: SocketAddr,
    seeds: Vec<SocketAddr>,
) -> Host {
    let opened = open_directory(directory).await;
    let config = MeshConfig { advertise, seeds, awaits_forming: true, version: "test".to_owned() };
    Host::open(Mesh::open(opened, config), Timing::quick()).unwrap()
}

type Booted = (
    Host,
    JoinHandle<Result<(), HostError>>,
    watch::Receiver<Ready>,
    JoinHandle<Result<(), DataError>>,
);

async fn boot(
    directory: PathBuf,
    ports: Ports,
    peers: Vec<SocketAddr>,
    disco: Vec<SocketAddr>,
    (stop, stop_host): (CancellationToken, CancellationToken),
) -> Booted {
    let mesh_address = ports.mesh_address();
    let kv_address = ports.kv.local_addr().unwrap();
    let host = open_host(&directory, mesh_address, peers).await;
    let config = DataConfig {
        directory,
        disco,
        mesh_address,
        kv_address,
        region: String::new(),
        zone: String::new(),
        name: mesh_address.to_string(),
        version: "0.0.0".to_owned(),
        replace_after: REPLACE_AFTER,
    };
    let data = Data::start(host.clone(), config).unwrap();
    let ready = data.ready();
    assert!(!ready.borrow().reasons.is_empty(), "nothing serves before it runs");
    let etcd = Etcd::new(data.namespaces(), host.identity().node_id, host.mesh().watch_id());
    let mesh = Listener::builder()
        .add_service(host.raft_service())
        .add_service(host.mesh_service())
        .serve_with_incoming(incoming(ports.mesh));
    let kv = Listener::builder()
        .add_service(etcd.kv())
        .add_service(etcd.cluster())
        .add_service(etcd.maintenance())
        .serve_with_incoming(incoming(ports.kv));
    let runtime = tokio::runtime::Handle::current();
    runtime.spawn(mesh);
    runtime.spawn(kv);
    runtime.spawn(host.mesh().clone().run(CancellationToken::new()));
    let hosting = runtime.spawn(host.clone().run(stop_host));
    let running = runtime.spawn(data.run(stop));
    (host, hosting, ready, running)
}

fn incoming(listener: TcpListener) -> TcpListenerStream {
    TcpListenerStream::new(AsyncListener::from_std(listener).unwrap())
}

async fn end(runtime: Runtime) {
    spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
}
