//! The etcd services over real sockets and a real group of one.

use std::{net::SocketAddr, path::Path, time::Duration};

use mesh::{Member as Voter, Mesh, MeshConfig};
use node::{
    etcd::{Etcd, NAMESPACE_METADATA},
    kv::{KvMachine, MAX_REQUEST_BYTES},
    namespaces::{Hosted, MemberAddress, Namespaces},
};
use proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, DeleteRangeRequest, HashKvRequest, Member, MemberAddRequest,
    MemberListRequest, MoveLeaderRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader,
    StatusRequest, TxnRequest, cluster_client::ClusterClient, kv_client::KvClient,
    maintenance_client::MaintenanceClient, request_op::Request as Op,
    response_op::Response as Done,
};
use raft::{Host, Timing};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint, Server},
};

use crate::server::{PATIENCE, open_directory};

#[tokio::test]
async fn keys_are_written_read_and_deleted() {
    let server = Node::start(&["default"]).await;
    let mut kv = server.kv().await;
    let put = kv.put(put("a", "1")).await.unwrap().into_inner();
    let header = put.header.unwrap();
    assert_eq!((header.revision, header.member_id), (2, server.host.identity().node_id));
    assert!(header.cluster_id != 0 && header.raft_term != 0, "{header:?}");
    let ranged = kv.range(get("a")).await.unwrap().into_inner();
    assert_eq!((ranged.count, ranged.kvs[0].value.as_ref()), (1, &b"1"[..]));
    let serializable = RangeRequest { serializable: true, ..get("a") };
    assert_eq!(kv.range(serializable).await.unwrap().into_inner().kvs, ranged.kvs);
    let delete = DeleteRangeRequest { key: "a".into(), ..DeleteRangeRequest::default() };
    let deleted = kv.delete_range(delete).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, revision(deleted.header)), (1, 3));
    assert_eq!(kv.range(get("a")).await.unwrap().into_inner().count, 0);
    let then = RangeRequest { revision: 2, ..get("a") };
    assert_eq!(kv.range(then).await.unwrap().into_inner().kvs, ranged.kvs);
    let compacted = kv.compact(CompactionRequest { revision: 3, physical: true }).await.unwrap();
    assert_eq!(revision(compacted.into_inner().header), 3);
    let refused = kv.range(RangeRequest { revision: 2, ..get("a") }).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
    );
    server.stop().await;
}

#[tokio::test]
async fn transactions_write_and_those_that_only_read_cost_no_log_entry() {
    let server = Node::start(&["default"]).await;
    let mut kv = server.kv().await;
    let writes = txn([Op::RequestPut(put("a", "1")), Op::RequestRange(get("a"))]);
    let written = kv.txn(writes).await.unwrap().into_inner();
    assert_eq!(
        (written.succeeded, written.responses.len(), revision(written.header)),
        (true, 2, 2)
    );
    let before = server.maintenance().await.status(StatusRequest {}).await.unwrap().into_inner();
    let reads = kv.txn(txn([Op::RequestRange(get("a"))])).await.unwrap().into_inner();
    let Some(Done::ResponseRange(range)) = &reads.responses[0].response else {
        panic!("{reads:?}");
    };
    assert_eq!(range.count, 1);
    assert_eq!(revision(reads.header), 2);
    let after = server.maintenance().await.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(after.raft_index, before.raft_index);
    server.stop().await;
}

#[tokio::test]
async fn refusals_have_etcds_codes_and_texts() {
    let server = Node::start(&["default"]).await;
    let mut kv = server.kv().await;
    let large = "x".repeat(MAX_REQUEST_BYTES);
    let twice = txn([Op::RequestPut(put("a", "1")), Op::RequestPut(put("a", "2"))]);
    let many = TxnRequest {
        success: (0..129)
            .map(|n| RequestOp { request: Some(Op::RequestPut(put(&format!("k{n}"), "1"))) })
            .collect(),
        ..TxnRequest::default()
    };
    let leased = PutRequest { lease: 7, ..put("a", "1") };
    let refusals = [
        kv.put(put("", "1")).await.unwrap_err(),
        kv.put(put("a", &large)).await.unwrap_err(),
        kv.put(leased).await.unwrap_err(),
        kv.txn(twice).await.unwrap_err(),
        kv.txn(many).await.unwrap_err(),
        kv.range(RangeRequest { revision: 9, ..get("a") }).await.unwrap_err(),
    ];
    let said: Vec<_> = refusals.iter().map(|it| (it.code(), it.message())).collect();
    assert_eq!(
        said,
        [
            (Code::InvalidArgument, "etcdserver: key is not provided"),
            (Code::InvalidArgument, "etcdserver: request is too large"),
            (Code::NotFound, "etcdserver: requested lease not found"),
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
            (Code::InvalidArgument, "etcdserver: too many operations in txn request"),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        ]
    );
    server.stop().await;
}

#[tokio::test]
async fn a_namespace_is_chosen_by_metadata() {
    let server = Node::start(&["default", "orders"]).await;
    let mut kv = server.kv().await;
    kv.put(put("a", "default")).await.unwrap();
    kv.put(within("orders", put("a", "orders"))).await.unwrap();
    let there = kv.range(within("orders", get("a"))).await.unwrap().into_inner();
    assert_eq!(there.kvs[0].value, "orders");
    let here = kv.range(get("a")).await.unwrap().into_inner();
    assert_eq!(here.kvs[0].value, "default");
    let unknown = kv.range(within("order", get("a"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("hosts: default, orders"), "{unknown}");
    server.stop().await;
}

#[tokio::test]
async fn without_a_namespace_clients_are_told_to_come_back() {
    let server = Node::start(&[]).await;
    let refused = server.kv().await.range(get("a")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("hosts no namespace yet"), "{refused}");
    server.stop().await;
}

/// As in the first moments of a node whose port is open before its groups run.
#[tokio::test]
async fn a_call_that_comes_before_the_namespace_waits_for_it() {
    let server = Node::start(&["default"]).await;
    let hosted = server.namespaces.find("default").await.unwrap();
    server.namespaces.remove("default");
    let mut kv = server.kv().await;
    let mut early = std::pin::pin!(kv.put(put("a", "1")));
    let refused = tokio::time::timeout(Duration::from_millis(200), &mut early).await;
    assert!(refused.is_err(), "{refused:?}");
    server.namespaces.insert(hosted);
    early.await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn transactions_nest_as_deep_as_etcd_lets_them() {
    let server = Node::start(&["default"]).await;
    let mut kv = server.kv().await;
    let deep = |levels: usize| {
        let innermost = txn([Op::RequestPut(put("a", "1"))]);
        (0..levels).fold(innermost, |nested, _| txn([Op::RequestTxn(nested.into())]))
    };
    for levels in [49, 100] {
        let mut answer = kv.txn(deep(levels)).await.unwrap().into_inner();
        for _ in 0..levels {
            let Some(Done::ResponseTxn(nested)) = answer.responses.remove(0).response else {
                panic!("{answer:?}");
            };
            answer = nested.into_inner();
        }
        assert!(matches!(answer.responses[0].response, Some(Done::ResponsePut(_))));
    }
    let refused = kv.txn(deep(128)).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: too many operations in txn request");
    assert!(kv.txn(deep(2_000)).await.is_err());
    kv.put(put("b", "1")).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn members_and_status_are_as_etcdctl_asks_for_them() {
    let server = Node::start(&["default"]).await;
    let own_id = server.host.identity().node_id;
    server.kv().await.put(put("a", "1")).await.unwrap();
    let listed = server
        .cluster()
        .await
        .member_list(MemberListRequest { linearizable: true })
        .await
        .unwrap()
        .into_inner();
    let expected = Member {
        id: own_id,
        name: "n1".to_owned(),
        peer_ur_ls: vec!["http://127.0.0.1:7400".to_owned()],
        client_ur_ls: vec![format!("http://{}", server.address)],
        is_learner: false,
    };
    assert_eq!(listed.members, [expected]);
    let added = server.cluster().await.member_add(MemberAddRequest::default()).await.unwrap_err();
    assert_eq!(added.code(), Code::Unimplemented);

    let mut maintenance = server.maintenance().await;
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, status.version.as_str()), (own_id, "3.5.21"));
    assert_eq!((status.is_learner, status.errors.as_slice()), (false, &[][..]));
    assert!(status.db_size > 0 && status.raft_applied_index > 0 && status.raft_term > 0);
    assert_eq!(revision(status.header), 2);
    let alarms = maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner();
    assert_eq!(alarms.alarms, []);
    let hash = maintenance.hash_kv(HashKvRequest::default()).await.unwrap().into_inner();
    assert_eq!((revision(hash.header), hash.compact_revision), (2, -1));
    let moved = maintenance.move_leader(MoveLeaderRequest { target_id: 1 }).await.unwrap_err();
    assert_eq!(moved.message(), "etcdserver: bad leader transferee");
    server.stop().await;
}

#[tokio::test]
async fn a_restarted_node_has_what_it_acknowledged() {
    let dir = TempDir::new().unwrap();
    let server = Node::open(dir.path(), &["default"]).await;
    let mut kv = server.kv().await;
    for n in 0..20 {
        kv.put(put("a", &n.to_string())).await.unwrap();
    }
    let before = kv.range(get("a")).await.unwrap().into_inner();
    server.stop().await;
    let server = Node::open(dir.path(), &["default"]).await;
    let mut kv = server.kv().await;
    let after = kv.range(get("a")).await.unwrap().into_inner();
    assert_eq!(after.kvs, before.kvs);
    assert_eq!(revision(after.header), 21);
    let then = RangeRequest { revision: 11, ..get("a") };
    assert_eq!(kv.range(then).await.unwrap().into_inner().kvs[0].value, "9");
    server.stop().await;
}

/// A node of a mesh of one, with groups for the given namespaces.
pub(crate) struct Node {
    host: Host,
    address: SocketAddr,
    groups: Vec<raft::Group>,
    namespaces: Namespaces,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
    /// Removed when the test is over.
    _dir: Option<TempDir>,
}

impl Node {
    pub(crate) async fn start(namespaces: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let node = Self::open(dir.path(), namespaces).await;
        Self { _dir: Some(dir), ..node }
    }

    async fn open(path: &Path, namespaces: &[&str]) -> Self {
        let mesh_address: SocketAddr = "127.0.0.1:7400".parse().unwrap();
        let config = MeshConfig {
            advertise: mesh_address,
            seeds: Vec::new(),
            awaits_forming: false,
            version: "test".to_owned(),
        };
        let mesh = Mesh::open(open_directory(path).await, config);
        let host = Host::open(mesh, Timing::production()).unwrap();
        host.mesh().form_alone().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = Namespaces::new();
        let identity = host.identity();
        let mut groups = Vec::new();
        for (number, namespace) in namespaces.iter().enumerate() {
            let id = u32::try_from(number).unwrap() + 2;
            let group = host.start_group(id, namespace, KvMachine::new()).await.unwrap();
            let own = Voter { node_id: identity.node_id, store_id: identity.store_id };
            group.initialize(&[own]).await.unwrap();
            let mut status = group.watch_status();
            let led = status.wait_for(|status| status.leader.is_some());
            tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap();
            known.insert(Hosted { namespace: (*namespace).to_owned(), group: group.clone() });
            known.set_members(
                namespace,
                vec![MemberAddress {
                    node_id: identity.node_id,
                    name: "n1".to_owned(),
                    mesh_address: Some(mesh_address),
                    kv_address: Some(address),
                    voter: true,
                }],
            );
            groups.push(group);
        }
        let shutdown = CancellationToken::new();
        let namespaces = known.clone();
        let etcd = Etcd::new(known, identity.node_id, host.mesh().watch_id());
        let served = Server::builder()
            .add_service(etcd.kv())
            .add_service(etcd.cluster())
            .add_service(etcd.maintenance())
            .serve_with_incoming_shutdown(
                TcpListenerStream::new(listener),
                shutdown.clone().cancelled_owned(),
            );
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { served.await.unwrap() });
        Self { host, address, groups, namespaces, shutdown, tasks, _dir: None }
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        self.tasks.join_next().await;
        for group in &self.groups {
            group.stop().await;
        }
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel().await)
    }

    async fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel().await)
    }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    }
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

fn txn(operations: impl IntoIterator<Item = Op>) -> TxnRequest {
    let ops = operations.into_iter().map(|op| RequestOp { request: Some(op) });
    TxnRequest { success: ops.collect(), ..TxnRequest::default() }
}

fn within<T>(namespace: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(NAMESPACE_METADATA, namespace.parse().unwrap());
    request
}

fn revision(header: Option<ResponseHeader>) -> i64 {
    header.unwrap().revision
}
