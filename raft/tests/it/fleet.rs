//! What the tests share: servers, groups on them, and waiting for conditions with a deadline.

use std::{
    collections::BTreeSet,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh::{DataDir, DataDirError, GroupId, Hint, Member, Mesh, MeshConfig, Overtaken};
use proto::quorate::v1 as pb;
use raft::{
    Applied, Commands, EntryMeta, Group, Host, HostError, Role, StateMachine, StorageError, Timing,
    WriteError,
    rows::{Read, Write},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

pub(crate) const GROUP: GroupId = 2;
/// How long any condition may take. Generous, since it only ends a test that hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A machine whose commands are `put KEY VALUE`, `delete KEY`, `add KEY`, `answer BYTES` and
/// `fail`.
///
/// Later versions of it know `shout KEY`, from level 2 on.
pub(crate) struct Words {
    pub(crate) level: u32,
}

/// The levels that the latest version knows.
fn level_of(command: &[u8]) -> Option<u32> {
    match command.split(|byte| *byte == b' ').next() {
        Some(b"shout") => Some(2),
        _ => Some(1),
    }
}

impl StateMachine for Words {
    fn commands(&self) -> Commands {
        Commands { level: self.level, level_of }
    }

    fn load(&mut self, _: &dyn Read) -> Result<(), StorageError> {
        Ok(())
    }

    fn apply(
        &mut self,
        entry: EntryMeta,
        command: &[u8],
        rows: &mut dyn Write,
    ) -> Result<Bytes, StorageError> {
        let command = String::from_utf8_lossy(command).into_owned();
        match command.split(' ').collect::<Vec<_>>()[..] {
            ["put", key, value] => rows.put(key.into(), value.into()),
            ["shout", key] if self.level >= 2 => rows.put(key.into(), b"!".to_vec()),
            ["delete", key] => rows.delete(key.into()),
            ["answer", bytes] => return Ok(vec![b'x'; bytes.parse().unwrap_or(0)].into()),
            ["add", key] => {
                let mut count = rows.get(key.as_bytes())?.unwrap_or_default();
                count.push(b'x');
                rows.put(key.into(), count);
            }
            _ => return Err(StorageError::new(format!("unknown command {command:?}"))),
        }
        Ok(format!("{command} at {}", entry.index).into())
    }

    fn publish(&mut self, _: u64) {}
}

/// A running server.
pub(crate) struct Server {
    pub(crate) host: Host,
    pub(crate) address: SocketAddr,
    path: PathBuf,
    stop: CancellationToken,
    greeting: JoinHandle<Result<(), Overtaken>>,
    running: JoinHandle<Result<(), HostError>>,
    serving: JoinHandle<()>,
}

/// How a server is started.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) seeds: Vec<SocketAddr>,
    pub(crate) awaits_forming: bool,
    pub(crate) timing: Timing,
}

impl Default for Setup {
    fn default() -> Self {
        Self { seeds: Vec::new(), awaits_forming: true, timing: Timing::quick() }
    }
}

impl Server {
    /// Starts a server on a port that the system chooses.
    pub(crate) async fn start(path: &Path, setup: Setup) -> Self {
        Self::start_on(path, setup, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_on(path: &Path, setup: Setup, bind: SocketAddr) -> Self {
        let listener = TcpListener::bind(bind).await.unwrap();
        let address = listener.local_addr().unwrap();
        let dir = open_dir(path).await;
        let config = MeshConfig {
            advertise: address,
            seeds: setup.seeds,
            awaits_forming: setup.awaits_forming,
            version: "test".to_owned(),
        };
        let host = Host::open(Mesh::open(dir, config), setup.timing).unwrap();
        let stop = CancellationToken::new();
        let greeting = spawn(host.mesh().clone().run(stop.clone()));
        let running = spawn(host.clone().run(stop.clone()));
        let server = tonic::transport::Server::builder()
            .add_service(host.raft_service())
            .add_service(host.mesh_service())
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                stop.clone().cancelled_owned(),
            );
        let serving = spawn(async move { server.await.unwrap() });
        Self { host, address, path: path.to_owned(), stop, greeting, running, serving }
    }

    pub(crate) fn member(&self) -> Member {
        let identity = self.host.identity();
        Member { node_id: identity.node_id, store_id: identity.store_id }
    }

    pub(crate) fn id(&self) -> u64 {
        self.host.identity().node_id
    }

    pub(crate) fn hint(&self) -> Hint {
        let identity = self.host.identity();
        Hint {
            node_id: identity.node_id,
            boot_epoch: identity.boot_epoch,
            start: identity.start,
            moves: 0,
            address: self.address,
            services: vec!["data".to_owned()],
        }
    }

    pub(crate) fn formation_member(&self) -> pb::FormationMember {
        let Member { node_id, store_id } = self.member();
        pb::FormationMember { node_id, store_id, address: self.address.to_string() }
    }

    pub(crate) fn group(&self) -> Group {
        self.host.group(GROUP).expect("the group runs")
    }

    pub(crate) async fn start_group(&self) -> Group {
        self.start_group_of(1).await
    }

    /// Starts the group in the version that knows commands up to a level.
    pub(crate) async fn start_group_of(&self, level: u32) -> Group {
        self.host.start_group(GROUP, "words", Words { level }).await.unwrap()
    }

    pub(crate) fn rows(&self) -> Vec<String> {
        rows(&self.group())
    }

    /// Stops the server; its directory may be opened again afterwards.
    pub(crate) async fn stop(self) -> PathBuf {
        self.stop.cancel();
        within(self.greeting).await.unwrap().unwrap();
        within(self.running).await.unwrap().unwrap();
        within(self.serving).await.unwrap();
        self.path
    }

    /// Waits until the server ends because another start counts.
    pub(crate) async fn overtaken(self) -> Overtaken {
        let error = within(self.greeting).await.unwrap().unwrap_err();
        self.stop.cancel();
        error
    }

    /// Waits until the server's host fails.
    pub(crate) async fn failed(self) -> HostError {
        let error = within(self.running).await.unwrap().unwrap_err();
        self.stop.cancel();
        error
    }
}

/// Several servers with one group on all of them.
pub(crate) struct Fleet {
    pub(crate) dir: TempDir,
    pub(crate) servers: Vec<Server>,
    pub(crate) setup: Setup,
}

impl Fleet {
    /// Servers that form a mesh and a group.
    pub(crate) async fn form(count: usize) -> Self {
        Self::form_with(count, Timing::quick()).await
    }

    pub(crate) async fn form_with(count: usize, timing: Timing) -> Self {
        Self::form_with_levels(&vec![1; count], timing).await
    }

    /// Servers of several versions, by the levels of commands that they know.
    pub(crate) async fn form_of_levels(levels: &[u32]) -> Self {
        Self::form_with_levels(levels, Timing::quick()).await
    }

    async fn form_with_levels(levels: &[u32], timing: Timing) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup { timing, ..Setup::default() };
        let mut servers = Vec::new();
        for number in 0..levels.len() {
            let path = dir.path().join(format!("server{number}"));
            servers.push(Server::start(&path, setup.clone()).await);
        }
        let mesh_id = mesh::MeshId::generate().to_string();
        let members = servers.iter().map(Server::formation_member).collect();
        let formation = pb::Formation { mesh_id, members };
        for step in [pb::form_request::Step::Reserve, pb::form_request::Step::Commit] {
            for server in &servers {
                crate::forming::form(server, &formation, step).await.unwrap();
            }
        }
        let voters: Vec<Member> = servers.iter().map(Server::member).collect();
        for (server, level) in servers.iter().zip(levels) {
            server.start_group_of(*level).await.initialize(&voters).await.unwrap();
        }
        Self { dir, servers, setup }
    }

    /// The leader, once all servers agree on one.
    pub(crate) async fn leader(&self) -> &Server {
        let id = until("a leader", || {
            let leaders: BTreeSet<_> =
                self.servers.iter().map(|server| server.group().status().leader).collect();
            match leaders.into_iter().collect::<Vec<_>>()[..] {
                [Some(leader)] => self.servers.iter().any(|it| it.id() == leader).then_some(leader),
                _ => None,
            }
        })
        .await;
        self.servers.iter().find(|server| server.id() == id).unwrap()
    }

    pub(crate) async fn follower(&self) -> &Server {
        let leader = self.leader().await.id();
        self.servers.iter().find(|server| server.id() != leader).unwrap()
    }

    /// Removes one server from the fleet and stops it.
    pub(crate) async fn stop(&mut self, id: u64) -> PathBuf {
        let at = self.servers.iter().position(|server| server.id() == id).unwrap();
        self.servers.remove(at).stop().await
    }

    /// Starts a server on a new port and its group.
    pub(crate) async fn start(&mut self, path: &Path) -> &Server {
        let server = Server::start(path, self.setup.clone()).await;
        server.start_group().await;
        self.servers.push(server);
        self.servers.last().unwrap()
    }

    /// Waits until every server has the same rows, and returns them.
    pub(crate) async fn converged(&self, last: u64) -> Vec<String> {
        until("all servers to apply", || {
            let applied =
                self.servers.iter().all(|server| *server.group().watch_applied().borrow() >= last);
            applied.then_some(())
        })
        .await;
        let rows = self.servers[0].rows();
        for server in &self.servers {
            assert_eq!(server.rows(), rows);
        }
        rows
    }
}

/// Repeats a command that may be applied twice, until it is acknowledged.
pub(crate) async fn put(group: &Group, command: &str) -> Applied {
    let started = Instant::now();
    loop {
        match group.write(Bytes::copy_from_slice(command.as_bytes()), DEADLINE).await {
            Ok(applied) => return applied,
            Err(
                WriteError::OutcomeUnknown
                | WriteError::NoLeader
                | WriteError::QuorumLost
                | WriteError::NoQuorum(_)
                | WriteError::Unconfirmed(_),
            ) if started.elapsed() < DEADLINE => {}
            Err(error) => panic!("{command}: {error}"),
        }
    }
}

pub(crate) fn rows(group: &Group) -> Vec<String> {
    let mut found = Vec::new();
    let view = group.view().unwrap();
    view.scan(b"", None, false, &mut |key, value| {
        found.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
        true
    })
    .unwrap();
    found
}

pub(crate) async fn until_role(group: &Group, role: Role) {
    let mut status = group.watch_status();
    within(status.wait_for(|status| status.role == role)).await.unwrap();
}

/// Polls for a condition that no event announces.
pub(crate) async fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    let mut ticks = time::interval(Duration::from_millis(10));
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "waited in vain for {what}");
        ticks.tick().await;
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    time::timeout(DEADLINE, future).await.expect("within the deadline")
}

#[expect(clippy::disallowed_methods, reason = "a test owns its tasks by their handles")]
pub(crate) fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(future)
}

/// Opens a data directory once its last user in this process is gone.
async fn open_dir(path: &Path) -> DataDir {
    let services = BTreeSet::from(["data".to_owned()]);
    until("the data directory", || match DataDir::open(path, &services, None) {
        Ok(dir) => Some(dir),
        Err(DataDirError::Locked(_)) => None,
        Err(error) => panic!("{error}"),
    })
    .await
}
