//! A DISCO server that only holds sessions: it orders every node that says hello to host one group
//! alone, and passes on to the test what the node said. It has a quorum until the test takes it
//! away, and tells no address but what the test gives it.
//!
//! What DISCO really does with a session is tested end to end, with the real one.

use std::net::{Ipv4Addr, SocketAddr};

use mesh::MeshId;
use node::namespaces::{DEFAULT_GROUP, DEFAULT_NAMESPACE};
use proto::quorate::v1::{
    AddressHint, AnswerMeta, ConfigureServiceReply, ConfigureServiceRequest, DeregisterReply,
    DeregisterRequest, DeregisterSilentReply, DeregisterSilentRequest, Directive, GroupRecord,
    ListGroupsReply, ListGroupsRequest, ListInstancesReply, ListInstancesRequest, ListMembersReply,
    ListMembersRequest, ListServicesReply, ListServicesRequest, LiveReply, LiveRequest, Member,
    NodeHello, NodeReport, RegisterReply, RegisterRequest, RemoveMemberReply, RemoveMemberRequest,
    RemoveServiceReply, RemoveServiceRequest, RenewReply, RenewRequest, SetHealthReply,
    SetHealthRequest,
    node_report::Report,
    registry_server::{Registry, RegistryServer},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::server::PATIENCE;

/// Reports that the test has not received yet.
const REPORTS: usize = 1024;

pub(crate) struct Disco {
    pub(crate) address: SocketAddr,
    reports: mpsc::Receiver<Report>,
    has_quorum: watch::Sender<bool>,
    addresses: watch::Sender<Vec<AddressHint>>,
    /// None once the server was killed or dropped.
    runtime: Option<Runtime>,
}

impl Disco {
    pub(crate) async fn start(mesh: &MeshId) -> Self {
        Self::start_at(mesh, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    pub(crate) async fn start_at(mesh: &MeshId, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let listener = listener.into_std().unwrap();
        let (told, reports) = mpsc::channel(REPORTS);
        let has_quorum = watch::Sender::new(true);
        let addresses = watch::Sender::default();
        let registry = FakeRegistry {
            mesh_id: mesh.to_string(),
            told,
            has_quorum: has_quorum.subscribe(),
            addresses: addresses.subscribe(),
        };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            let registry = RegistryServer::new(registry);
            Server::builder().add_service(registry).serve_with_incoming(incoming).await
        });
        Self { address, reports, has_quorum, addresses, runtime: Some(runtime) }
    }

    /// Gives the server a quorum or takes it away.
    pub(crate) fn set_quorum(&self, has_quorum: bool) {
        self.has_quorum.send_replace(has_quorum);
    }

    /// Tells nodes where a server is reached.
    pub(crate) fn tell_address(&self, hint: AddressHint) {
        self.addresses.send_replace(vec![hint]);
    }

    /// Waits for a status report. A node sends one only to the server that it stays with.
    pub(crate) async fn hears_status(&mut self) {
        self.hears(|report| matches!(report, Report::Status(_)).then_some(())).await;
    }

    /// Waits for a report of a kind.
    pub(crate) async fn hears<T>(&mut self, wanted: impl Fn(Report) -> Option<T>) -> T {
        let hearing = async {
            loop {
                if let Some(heard) = wanted(self.reports.recv().await.unwrap()) {
                    return heard;
                }
            }
        };
        timeout(PATIENCE, hearing).await.unwrap()
    }

    pub(crate) async fn hears_hello(&mut self) -> NodeHello {
        self.hears(|report| match report {
            Report::Hello(hello) => Some(hello),
            Report::Status(_) | Report::Stopping(_) => None,
        })
        .await
    }

    pub(crate) async fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }
}

impl Drop for Disco {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct FakeRegistry {
    mesh_id: String,
    told: mpsc::Sender<Report>,
    has_quorum: watch::Receiver<bool>,
    addresses: watch::Receiver<Vec<AddressHint>>,
}

impl FakeRegistry {
    async fn hold_session(
        mut self,
        mut reports: Streaming<NodeReport>,
        directives: mpsc::Sender<Result<Directive, Status>>,
    ) {
        let mut directive = Directive { ttl_ms: 900, ..Directive::default() };
        loop {
            let report = tokio::select! {
                report = reports.message() => match report {
                    Ok(Some(NodeReport { report: Some(report) })) => Some(report),
                    Ok(_) | Err(_) => return,
                },
                Ok(()) = self.has_quorum.changed() => None,
                Ok(()) = self.addresses.changed() => None,
            };
            match &report {
                Some(Report::Hello(hello)) => directive.groups = vec![group_of(hello)],
                Some(Report::Stopping(_)) => directive.stopping_noted = true,
                Some(Report::Status(_)) | None => {}
            }
            if let Some(report) = report
                && self.told.send(report).await.is_err()
            {
                return;
            }
            let stale_for_ms = if *self.has_quorum.borrow_and_update() { 0 } else { 5_000 };
            directive.addresses = self.addresses.borrow_and_update().clone();
            let mesh_id = self.mesh_id.clone();
            directive.meta = Some(AnswerMeta { mesh_id, stale_for_ms, ..AnswerMeta::default() });
            if directives.send(Ok(directive.clone())).await.is_err() {
                return;
            }
        }
    }
}

fn group_of(hello: &NodeHello) -> GroupRecord {
    let member = Member { node_id: hello.node_id, store_id: hello.store_id };
    GroupRecord {
        group: DEFAULT_GROUP,
        namespace: DEFAULT_NAMESPACE.to_owned(),
        first_voters: vec![member],
        replicas: vec![member],
        voters_wanted: 1,
        ..GroupRecord::default()
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Registry for FakeRegistry {
    type SessionStream = ReceiverStream<Result<Directive, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<NodeReport>>,
    ) -> Answer<Self::SessionStream> {
        let (directives, queue) = mpsc::channel(1);
        Handle::current().spawn(self.clone().hold_session(request.into_inner(), directives));
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn register(&self, _: Request<RegisterRequest>) -> Answer<RegisterReply> {
        Err(unsupported())
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Answer<RenewReply> {
        Err(unsupported())
    }

    async fn set_health(&self, _: Request<SetHealthRequest>) -> Answer<SetHealthReply> {
        Err(unsupported())
    }

    async fn deregister(&self, _: Request<DeregisterRequest>) -> Answer<DeregisterReply> {
        Err(unsupported())
    }

    async fn deregister_silent(
        &self,
        _: Request<DeregisterSilentRequest>,
    ) -> Answer<DeregisterSilentReply> {
        Err(unsupported())
    }

    async fn configure_service(
        &self,
        _: Request<ConfigureServiceRequest>,
    ) -> Answer<ConfigureServiceReply> {
        Err(unsupported())
    }

    async fn remove_service(&self, _: Request<RemoveServiceRequest>) -> Answer<RemoveServiceReply> {
        Err(unsupported())
    }

    async fn remove_member(&self, _: Request<RemoveMemberRequest>) -> Answer<RemoveMemberReply> {
        Err(unsupported())
    }

    async fn live(&self, _: Request<LiveRequest>) -> Answer<LiveReply> {
        Err(unsupported())
    }

    async fn list_services(&self, _: Request<ListServicesRequest>) -> Answer<ListServicesReply> {
        Err(unsupported())
    }

    async fn list_instances(&self, _: Request<ListInstancesRequest>) -> Answer<ListInstancesReply> {
        Err(unsupported())
    }

    async fn list_members(&self, _: Request<ListMembersRequest>) -> Answer<ListMembersReply> {
        Err(unsupported())
    }

    async fn list_groups(&self, _: Request<ListGroupsRequest>) -> Answer<ListGroupsReply> {
        Err(unsupported())
    }
}

fn unsupported() -> Status {
    Status::unimplemented("only sessions are held here")
}
