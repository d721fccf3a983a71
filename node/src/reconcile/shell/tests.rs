use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
    time::Duration,
};

use mesh::{DataDir, Hint, Member, MeshConfig, MeshId, NodeId};
use raft::{Group, Host, Timing};
use tempfile::{TempDir, tempdir};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use super::{Reconciler, Topology};
use crate::{
    kv::KvMachine,
    namespaces::{DEFAULT_GROUP, DEFAULT_NAMESPACE},
    session::{Assignment, NodeState, Orders, Peer},
};

/// Everything here happens within this, or the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Long for a member that answers: its leader hears it many times a second.
const SILENCE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_voter_grows_to_three_and_a_dead_one_is_replaced() {
    let mut mesh = Mesh::new();
    for _ in 0..4 {
        mesh.start_node().await;
    }
    let ids = mesh.ids();
    let leader = mesh.groups[0].clone();
    leader.initialize(&[mesh.member(0)]).await.unwrap();

    let topology = watch::Sender::new(Topology::default());
    let reconciler = Reconciler::new(leader.clone(), topology.subscribe(), Duration::ZERO);
    mesh.tasks.spawn(reconciler.run());

    mesh.advise(&topology, 3, &[]);
    members_become(&leader, &ids[..3], &ids[..3]).await;

    mesh.groups[2].stop().await;
    mesh.advise(&topology, 4, &[ids[2]]);
    let left = [ids[0], ids[1], ids[3]];
    members_become(&leader, &left, &left).await;
}

/// S6: DISCO takes two voters for dead, and one of them answers its leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_voters_that_disco_says_are_down_only_the_silent_one_is_replaced() {
    let mut mesh = Mesh::new();
    for _ in 0..4 {
        mesh.start_node().await;
    }
    let ids = mesh.ids();
    let leader = mesh.groups[0].clone();
    leader.initialize(&[mesh.member(0)]).await.unwrap();

    let topology = watch::Sender::new(Topology::default());
    let reconciler = Reconciler::new(leader.clone(), topology.subscribe(), SILENCE);
    mesh.tasks.spawn(reconciler.run());

    mesh.advise(&topology, 3, &[]);
    members_become(&leader, &ids[..3], &ids[..3]).await;

    // Of two dead voters the one with the lower id is replaced first. If DISCO were believed, that
    // would be the one that answers, and it would not come back.
    let (answers, stops) = if ids[1] < ids[2] { (1, 2) } else { (2, 1) };
    mesh.groups[stops].stop().await;
    mesh.advise(&topology, 4, &[ids[answers], ids[stops]]);
    let left = [ids[0], ids[answers], ids[3]];
    members_become(&leader, &left, &left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_node_becomes_a_learner() {
    let mut mesh = Mesh::new();
    for _ in 0..2 {
        mesh.start_node().await;
    }
    let ids = mesh.ids();
    let leader = mesh.groups[0].clone();
    leader.initialize(&[mesh.member(0)]).await.unwrap();

    let topology = watch::Sender::new(Topology::default());
    let reconciler = Reconciler::new(leader.clone(), topology.subscribe(), PATIENCE);
    mesh.tasks.spawn(reconciler.run());

    mesh.voters_wanted = 1;
    mesh.advise(&topology, 2, &[]);
    members_become(&leader, &ids, &ids[..1]).await;
}

/// Nodes in this process, over real sockets, each with a blank replica of one group.
struct Mesh {
    id: MeshId,
    hosts: Vec<Host>,
    groups: Vec<Group>,
    voters_wanted: usize,
    tasks: JoinSet<()>,
    directories: Vec<TempDir>,
}

impl Mesh {
    fn new() -> Self {
        Self {
            id: MeshId::generate(),
            hosts: Vec::new(),
            groups: Vec::new(),
            voters_wanted: 3,
            tasks: JoinSet::new(),
            directories: Vec::new(),
        }
    }

    async fn start_node(&mut self) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let directory = tempdir().unwrap();
        let host = open(directory.path(), address);
        host.mesh().adopt_mesh(&self.id).unwrap();
        let serving = Server::builder()
            .add_service(host.raft_service())
            .add_service(host.mesh_service())
            .serve_with_incoming(TcpListenerStream::new(listener));
        self.tasks.spawn(async move { serving.await.unwrap() });
        let group =
            host.start_group(DEFAULT_GROUP, DEFAULT_NAMESPACE, KvMachine::new()).await.unwrap();
        for other in &self.hosts {
            other.mesh().book().learn(hint(&host));
            host.mesh().book().learn(hint(other));
        }
        self.directories.push(directory);
        self.hosts.push(host);
        self.groups.push(group);
    }

    /// Says that the first `count` nodes should hold a replica, and all but `down` are up.
    fn advise(&self, topology: &watch::Sender<Topology>, count: usize, down: &[NodeId]) {
        let replicas: Vec<Member> = (0..count).map(|index| self.member(index)).collect();
        let peers = replicas.iter().map(|member| {
            let is_down = down.contains(&member.node_id);
            let state = if is_down { NodeState::Down } else { NodeState::Up };
            let peer = Peer {
                node_id: member.node_id,
                name: String::new(),
                mesh_address: None,
                kv_address: None,
                zone: String::new(),
                state,
            };
            (member.node_id, peer)
        });
        let assignment = Assignment {
            group: DEFAULT_GROUP,
            namespace: DEFAULT_NAMESPACE.to_owned(),
            first_voters: vec![self.member(0)],
            voters_wanted: self.voters_wanted,
            formed: true,
            replicas: replicas.clone(),
        };
        let orders = Orders {
            mesh: self.id.clone(),
            assignments: BTreeMap::from([(DEFAULT_GROUP, assignment)]),
            peers: peers.collect(),
            fresh: true,
        };
        topology.send_modify(|topology| topology.follow(&orders, Instant::now()));
    }

    fn member(&self, index: usize) -> Member {
        let identity = self.hosts[index].identity();
        Member { node_id: identity.node_id, store_id: identity.store_id }
    }

    fn ids(&self) -> Vec<NodeId> {
        self.hosts.iter().map(|host| host.identity().node_id).collect()
    }
}

fn open(directory: &Path, advertise: std::net::SocketAddr) -> Host {
    let services = BTreeSet::from(["data".to_owned()]);
    let directory = DataDir::open(directory, &services, None).unwrap();
    let config = MeshConfig {
        advertise,
        seeds: Vec::new(),
        awaits_forming: false,
        version: "test".to_owned(),
    };
    Host::open(mesh::Mesh::open(directory, config), Timing::quick()).unwrap()
}

fn hint(host: &Host) -> Hint {
    let identity = host.identity();
    Hint {
        node_id: identity.node_id,
        boot_epoch: identity.boot_epoch,
        start: identity.start,
        moves: 0,
        address: host.mesh().advertise(),
        services: vec!["data".to_owned()],
    }
}

async fn members_become(group: &Group, members: &[NodeId], voters: &[NodeId]) {
    let members: BTreeSet<NodeId> = members.iter().copied().collect();
    let voters: BTreeSet<NodeId> = voters.iter().copied().collect();
    let mut statuses = group.watch_status();
    let become_so = statuses.wait_for(|status| {
        let all = status.members.iter();
        let voting = status.members.iter().filter(|it| it.voter);
        !status.joint
            && all.map(|it| it.node_id).collect::<BTreeSet<_>>() == members
            && voting.map(|it| it.node_id).collect::<BTreeSet<_>>() == voters
    });
    if timeout(PATIENCE, become_so).await.is_err() {
        panic!("{members:x?} with voters {voters:x?} expected: {:x?}", group.status());
    }
}
