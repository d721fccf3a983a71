use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::Stream;
use proto::quorate::v1::{
    DeregisterReply, Directive, ListGroupsReply, ListGroupsRequest, ListInstancesReply,
    ListInstancesRequest, ListMembersReply, ListMembersRequest, ListServicesReply,
    ListServicesRequest, NodeReport, RegisterReply, RenewReply, SetHealthReply,
    registry_server::{Registry, RegistryServer},
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_instance_is_registered_renewed_and_its_health_told() {
    let disco = FakeDisco::start().await;
    let mut kept = Kept::start(&[disco.address], Health::Unknown);
    kept.until_told(Health::Unknown).await;
    kept.health.send_replace(Health::Healthy);
    kept.until_told(Health::Healthy).await;
    disco.until(|seen| seen.renewed >= 2).await;
    let seen = disco.seen();
    assert_eq!(seen.registered, [Health::Unknown]);
    assert_eq!(seen.told, [Health::Healthy]);
}

#[tokio::test]
async fn a_forgotten_lease_is_registered_again_as_the_instance_is_now() {
    let disco = FakeDisco::start().await;
    let mut kept = Kept::start(&[disco.address], Health::Unknown);
    kept.until_told(Health::Unknown).await;
    kept.health.send_replace(Health::Healthy);
    kept.until_told(Health::Healthy).await;
    disco.forget();
    disco.until(|seen| seen.registered.len() == 2).await;
    assert_eq!(disco.seen().registered, [Health::Unknown, Health::Healthy]);
}

#[tokio::test]
async fn a_health_that_finds_no_instance_registers_it_with_that_health() {
    let disco = FakeDisco::start().await;
    let mut kept = Kept::start(&[disco.address], Health::Healthy);
    kept.until_told(Health::Healthy).await;
    disco.forget();
    kept.health.send_replace(Health::Draining);
    kept.until_told(Health::Draining).await;
    assert_eq!(disco.seen().registered.last(), Some(&Health::Draining));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_passed_over() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = gone.local_addr().expect("bound");
    drop(gone);
    let disco = FakeDisco::start().await;
    let mut kept = Kept::start(&[address, disco.address], Health::Healthy);
    kept.until_told(Health::Healthy).await;
}

#[tokio::test]
async fn what_can_never_succeed_ends_the_registration() {
    let disco = FakeDisco::start().await;
    disco.state.lock().expect("no panic").refuses = true;
    let mut kept = Kept::start(&[disco.address], Health::Healthy);
    let ended = timeout(DEADLINE, kept.keeper.join_next()).await.expect("in time");
    let failure = ended.expect("a task").expect("no panic").expect_err("refused");
    assert_eq!(failure.code, Code::Usage);
}

#[tokio::test]
async fn a_first_registration_gives_up_when_nobody_answers() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = gone.local_addr().expect("bound");
    drop(gone);
    let mut registration = registration(&[address]);
    let deadline = Instant::now() + Duration::from_millis(600);
    let failure = registration.register_by(deadline, Health::Healthy).await.expect_err("nobody");
    assert_eq!(failure.code, Code::Unreachable);
}

/// A registration that is kept by a task.
struct Kept {
    health: watch::Sender<Health>,
    told: watch::Receiver<Option<Health>>,
    keeper: JoinSet<Result<(), Failure>>,
}

impl Kept {
    fn start(disco: &[SocketAddr], first: Health) -> Self {
        let (health, health_rx) = watch::channel(first);
        let (told_tx, told) = watch::channel(None);
        let mut keeper = JoinSet::new();
        let shutdown = CancellationToken::new();
        keeper.spawn(registration(disco).keep(health_rx, told_tx, shutdown));
        Self { health, told, keeper }
    }

    async fn until_told(&mut self, health: Health) {
        let told = self.told.wait_for(|told| *told == Some(health));
        timeout(DEADLINE, told).await.expect("in time").expect("the keeper runs");
    }
}

fn registration(disco: &[SocketAddr]) -> Registration {
    let instance = Instance {
        service: "web".to_owned(),
        id: "web-1".to_owned(),
        address: "127.0.0.1:8000".to_owned(),
        ..Instance::default()
    };
    Registration::new(Disco::new(disco.to_vec(), Duration::from_secs(2)), instance, Duration::ZERO)
}

/// A registry of one instance that remembers what it was asked.
struct FakeDisco {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<Seen>,
    _server: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    registered: Vec<Health>,
    told: Vec<Health>,
    renewed: usize,
}

struct State {
    lease: Option<u64>,
    leases: u64,
    refuses: bool,
    seen: watch::Sender<Seen>,
}

impl FakeDisco {
    async fn start() -> Self {
        let (seen, changed) = watch::channel(Seen::default());
        let state = State { lease: None, leases: 0, refuses: false, seen };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let service = RegistryServer::new(FakeRegistry(state.clone()));
        let mut server = JoinSet::new();
        server.spawn(async {
            let incoming = TcpListenerStream::new(listener);
            let _ = Server::builder().add_service(service).serve_with_incoming(incoming).await;
        });
        Self { address, state, changed, _server: server }
    }

    fn forget(&self) {
        self.state.lock().expect("no panic").lease = None;
    }

    fn seen(&self) -> Seen {
        self.changed.borrow().clone()
    }

    async fn until(&self, condition: impl FnMut(&Seen) -> bool) {
        let mut changed = self.changed.clone();
        let seen = changed.wait_for(condition);
        timeout(DEADLINE, seen).await.expect("in time").expect("the server runs");
    }
}

struct FakeRegistry(Arc<Mutex<State>>);

#[tonic::async_trait]
impl Registry for FakeRegistry {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<Directive, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterReply>, Status> {
        let mut state = self.0.lock().expect("no panic");
        if state.refuses {
            return Err(Status::invalid_argument("no such protocol"));
        }
        let health = request.into_inner().instance.expect("an instance").health();
        state.leases += 1;
        state.lease = Some(state.leases);
        state.seen.send_modify(|seen| seen.registered.push(health));
        Ok(Response::new(RegisterReply { meta: None, lease_id: state.leases, ttl_ms: 300 }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let state = self.0.lock().expect("no panic");
        let asked = request.into_inner().lease_ids;
        let unknown = asked.into_iter().filter(|id| state.lease != Some(*id)).collect();
        state.seen.send_modify(|seen| seen.renewed += 1);
        Ok(Response::new(RenewReply { meta: None, unknown, ttl_ms: 300 }))
    }

    async fn set_health(
        &self,
        request: Request<SetHealthRequest>,
    ) -> Result<Response<SetHealthReply>, Status> {
        let state = self.0.lock().expect("no panic");
        let request = request.into_inner();
        if state.lease != Some(request.lease_id) {
            return Err(Status::failed_precondition("the lease is unknown"));
        }
        state.seen.send_modify(|seen| seen.told.push(request.health()));
        Ok(Response::new(SetHealthReply::default()))
    }

    async fn deregister(
        &self,
        _: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterReply>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn session(
        &self,
        _: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn list_services(
        &self,
        _: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesReply>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn list_instances(
        &self,
        _: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesReply>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn list_members(
        &self,
        _: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersReply>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn list_groups(
        &self,
        _: Request<ListGroupsRequest>,
    ) -> Result<Response<ListGroupsReply>, Status> {
        Err(Status::unimplemented("not asked"))
    }
}
