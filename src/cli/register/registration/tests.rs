use std::{
    future::pending,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures::Stream;
use proto::quorate::v1::{
    AnswerMeta, ConfigureServiceReply, ConfigureServiceRequest, DeregisterReply,
    DeregisterSilentReply, DeregisterSilentRequest, Directive, ListGroupsReply, ListGroupsRequest,
    ListInstancesReply, ListInstancesRequest, ListMembersReply, ListMembersRequest,
    ListServicesReply, ListServicesRequest, LiveReply, LiveRequest, NodeReport, RegisterReply,
    RemoveMemberReply, RemoveMemberRequest, RemoveServiceReply, RemoveServiceRequest, RenewReply,
    SetHealthReply,
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
    kept.health.send_replace(Condition::new(Health::Healthy, ""));
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
    kept.health.send_replace(Condition::new(Health::Healthy, ""));
    kept.until_told(Health::Healthy).await;
    disco.set(|state| state.lease = None);
    disco.until(|seen| seen.registered.len() == 2).await;
    assert_eq!(disco.seen().registered, [Health::Unknown, Health::Healthy]);
}

#[tokio::test]
async fn a_health_that_finds_no_instance_registers_it_with_that_health() {
    let disco = FakeDisco::start().await;
    let mut kept = Kept::start(&[disco.address], Health::Healthy);
    kept.until_told(Health::Healthy).await;
    disco.set(|state| state.lease = None);
    kept.health.send_replace(Condition::new(Health::Unhealthy, "it answered `503`"));
    kept.until_told(Health::Unhealthy).await;
    assert_eq!(disco.seen().registered.last(), Some(&Health::Unhealthy));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_passed_over() {
    let gone = nowhere().await;
    let disco = FakeDisco::start().await;
    let mut kept = Kept::start(&[gone, disco.address], Health::Healthy);
    kept.until_told(Health::Healthy).await;
}

#[tokio::test]
async fn what_can_never_succeed_ends_the_registration() {
    let disco = FakeDisco::start().await;
    disco.set(|state| state.refuses = true);
    let mut kept = Kept::start(&[disco.address], Health::Healthy);
    assert_eq!(kept.failure().await.code, Code::Usage);
}

#[tokio::test]
async fn a_server_without_a_quorum_is_passed_over() {
    let cut_off = FakeDisco::start().await;
    let disco = FakeDisco::start().await;
    cut_off.set(|state| state.meta.stale_for_ms = 1);
    let mut kept = Kept::start(&[cut_off.address, disco.address], Health::Healthy);
    kept.until_told(Health::Healthy).await;
    disco.until(|seen| seen.renewed >= 2).await;
}

#[tokio::test]
async fn without_any_quorum_renewals_are_good_enough() {
    let gone = nowhere().await;
    let disco = FakeDisco::start().await;
    let mut kept = Kept::start(&[disco.address, gone], Health::Healthy);
    kept.until_told(Health::Healthy).await;
    disco.set(|state| state.meta.stale_for_ms = 1);
    let before = disco.seen().renewed;
    disco.until(|seen| seen.renewed > before + 2).await;
    assert_eq!(disco.seen().registered, [Health::Healthy], "the lease is kept");
}

#[tokio::test]
async fn an_instance_stays_with_the_mesh_that_answered_first() {
    // Servers that compare the mesh in a request with their own, and one that does not.
    for checks_mesh in [true, false] {
        let disco = FakeDisco::start().await;
        disco.set(|state| {
            state.meta.mesh_id = "ours".to_owned();
            state.checks_mesh = checks_mesh;
        });
        let mut kept = Kept::start(&[disco.address], Health::Healthy);
        kept.until_told(Health::Healthy).await;
        disco.set(|state| {
            state.meta.mesh_id = "theirs".to_owned();
            state.lease = None;
        });
        let before = disco.seen().asked;
        disco.until(|seen| seen.asked > before + 2).await;
        assert_eq!(disco.seen().registered, [Health::Healthy], "{checks_mesh}");
        disco.set(|state| state.meta.mesh_id = "ours".to_owned());
        disco.until(|seen| seen.registered.len() == 2).await;
    }
}

#[tokio::test]
async fn a_mesh_that_is_named_is_the_only_one_asked() {
    let disco = FakeDisco::start().await;
    disco.set(|state| state.meta.mesh_id = "theirs".to_owned());
    let asked = Disco::new(vec![disco.address], Duration::from_secs(2)).of_mesh("ours");
    let mut registration = registration(asked);
    let failure = registration.register_by(Instant::now(), &healthy()).await;
    let failure = failure.expect_err("another mesh");
    assert_eq!(failure.code, Code::Refused);
    for mesh in ["mesh ours", "mesh theirs"] {
        assert!(failure.message.contains(mesh), "{}", failure.message);
    }
    assert_eq!(disco.seen().registered, []);
}

#[tokio::test]
async fn an_id_that_is_anothers_ends_the_registration() {
    let disco = FakeDisco::start().await;
    disco.set(|state| state.held_by_another = true);
    let mut kept = Kept::start(&[disco.address], Health::Healthy);
    let failure = kept.failure().await;
    assert_eq!(failure.code, Code::Refused);
    assert!(failure.message.contains("held by another"), "{}", failure.message);
}

#[tokio::test]
async fn the_place_of_a_holder_that_is_not_heard_is_waited_for() {
    for heard_ago in [None, Some(3_600_000)] {
        let disco = FakeDisco::start().await;
        disco.set(|state| {
            state.held_by_another = true;
            state.holder_heard_ago = heard_ago;
        });
        let mut kept = Kept::start(&[disco.address], Health::Healthy);
        disco.until(|seen| seen.clashes >= 3).await;
        disco.set(|state| state.held_by_another = false);
        kept.until_told(Health::Healthy).await;
    }
}

#[tokio::test]
async fn who_says_goodbye_does_not_take_the_place_back() {
    let disco = FakeDisco::start().await;
    let mut kept = Kept::start(&[disco.address], Health::Healthy);
    kept.until_told(Health::Healthy).await;
    disco.set(|state| state.lease = Some(77));
    kept.health.send_replace(Condition::new(Health::Draining, ""));
    timeout(DEADLINE, kept.told.wait_for(Option::is_none)).await.expect("in time").expect("kept");
    assert_eq!(disco.seen().registered, [Health::Healthy]);
}

#[tokio::test]
async fn an_id_that_was_lost_is_waited_for() {
    let disco = FakeDisco::start().await;
    let mut kept = Kept::start(&[disco.address], Health::Healthy);
    kept.until_told(Health::Healthy).await;
    disco.set(|state| {
        state.held_by_another = true;
        state.lease = None;
    });
    disco.until(|seen| seen.clashes >= 2).await;
    disco.set(|state| state.held_by_another = false);
    disco.until(|seen| seen.registered.len() == 2).await;
}

#[tokio::test]
async fn shutdown_does_not_wait_long_for_an_answer() {
    let disco = FakeDisco::start().await;
    disco.set(|state| state.hangs = true);
    let mut kept = Kept::start(&[disco.address], Health::Healthy);
    disco.until(|seen| seen.asked == 1).await;
    kept.shutdown.cancel();
    let (_, outcome) = kept.ended().await;
    assert_eq!(outcome, Ok(()));
}

#[tokio::test]
async fn what_was_never_asked_for_is_not_deregistered() {
    let disco = FakeDisco::start().await;
    registration(patient(&[disco.address])).deregister().await;
    assert_eq!(disco.seen().asked, 0);
    disco.set(|state| state.held_by_another = true);
    let mut refused = registration(patient(&[disco.address]));
    refused.register(&healthy()).await.expect_err("held by another");
    refused.deregister().await;
    assert_eq!(disco.seen().deregistered, Vec::<u64>::new());
}

#[tokio::test]
async fn an_instance_is_deregistered_under_its_lease() {
    let disco = FakeDisco::start().await;
    let mut registration = registration(patient(&[disco.address]));
    registration.register(&healthy()).await.expect("registered");
    registration.deregister().await;
    assert_eq!(disco.seen().deregistered, disco.seen().granted);
}

#[tokio::test]
async fn a_registration_whose_answer_was_lost_is_given_up_under_the_same_lease() {
    let disco = FakeDisco::start().await;
    disco.set(|state| state.hangs = true);
    let mut kept = Kept::start(&[disco.address], Health::Healthy);
    disco.until(|seen| seen.asked == 1).await;
    kept.shutdown.cancel();
    let (registration, _) = kept.ended().await;
    disco.set(|state| state.hangs = false);
    registration.deregister().await;
    let seen = disco.seen();
    assert_eq!(seen.deregistered, seen.wanted);
    assert!(!seen.wanted.contains(&0), "{seen:?}");
}

#[tokio::test]
async fn a_first_registration_gives_up_when_nobody_answers() {
    let mut registration = registration(patient(&[nowhere().await]));
    let deadline = Instant::now() + Duration::from_millis(600);
    let failure = registration.register_by(deadline, &healthy()).await.expect_err("nobody");
    assert_eq!(failure.code, Code::Unreachable);
}

fn healthy() -> Condition {
    Condition::new(Health::Healthy, "")
}

/// A registration that is kept by a task.
struct Kept {
    health: watch::Sender<Condition>,
    told: watch::Receiver<Option<Health>>,
    shutdown: CancellationToken,
    keeper: JoinSet<(Registration, Result<(), Failure>)>,
}

impl Kept {
    fn start(disco: &[SocketAddr], first: Health) -> Self {
        let (health, health_rx) = watch::channel(Condition::new(first, ""));
        let (told_tx, told) = watch::channel(None);
        let mut keeper = JoinSet::new();
        let shutdown = CancellationToken::new();
        let mut registration = registration(patient(disco));
        let until = shutdown.clone();
        keeper.spawn(async move {
            let outcome = registration.keep(health_rx, told_tx, until).await;
            (registration, outcome)
        });
        Self { health, told, shutdown, keeper }
    }

    async fn ended(&mut self) -> (Registration, Result<(), Failure>) {
        let ended = timeout(DEADLINE, self.keeper.join_next()).await.expect("in time");
        ended.expect("a task").expect("no panic")
    }

    async fn failure(&mut self) -> Failure {
        self.ended().await.1.expect_err("a failure")
    }

    async fn until_told(&mut self, health: Health) {
        let told = self.told.wait_for(|told| *told == Some(health));
        timeout(DEADLINE, told).await.expect("in time").expect("the keeper runs");
    }
}

/// Longer than any test waits for an answer.
fn patient(disco: &[SocketAddr]) -> Disco {
    Disco::new(disco.to_vec(), 6 * DEADLINE)
}

/// An address where nobody listens.
async fn nowhere() -> SocketAddr {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    gone.local_addr().expect("bound")
}

fn registration(disco: Disco) -> Registration {
    let instance = Instance {
        service: "web".to_owned(),
        id: "web-1".to_owned(),
        address: "127.0.0.1:8000".to_owned(),
        ..Instance::default()
    };
    Registration::new(disco, instance, Duration::ZERO)
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
    /// Requests of every kind, answered or not.
    asked: usize,
    registered: Vec<Health>,
    /// Leases that registrations wanted, and those that they got.
    wanted: Vec<u64>,
    granted: Vec<u64>,
    told: Vec<Health>,
    renewed: usize,
    clashes: usize,
    /// Leases under which the instance was given up.
    deregistered: Vec<u64>,
}

struct State {
    meta: AnswerMeta,
    lease: Option<u64>,
    leases: u64,
    refuses: bool,
    held_by_another: bool,
    holder_heard_ago: Option<u64>,
    /// Whether requests meant for another mesh are refused.
    checks_mesh: bool,
    hangs: bool,
    seen: watch::Sender<Seen>,
}

impl FakeDisco {
    async fn start() -> Self {
        let (seen, changed) = watch::channel(Seen::default());
        let state = State {
            meta: AnswerMeta::default(),
            lease: None,
            leases: 0,
            refuses: false,
            held_by_another: false,
            holder_heard_ago: Some(0),
            checks_mesh: true,
            hangs: false,
            seen,
        };
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

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect("no panic"));
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

impl FakeRegistry {
    async fn admit(&self, mesh_id: &str, wanted: Option<u64>) -> Result<(), Status> {
        let hangs = {
            let state = self.0.lock().expect("no panic");
            state.seen.send_modify(|seen| {
                seen.asked += 1;
                seen.wanted.extend(wanted);
            });
            state.hangs
        };
        if hangs {
            pending::<()>().await;
        }
        let state = self.0.lock().expect("no panic");
        let ours = &state.meta.mesh_id;
        if state.checks_mesh && !mesh_id.is_empty() && mesh_id != ours {
            let message = format!("this is mesh {ours}, and mesh {mesh_id} is meant");
            return Err(Status::failed_precondition(message));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Registry for FakeRegistry {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<Directive, Status>> + Send>>;

    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterReply>, Status> {
        let request = request.into_inner();
        self.admit(&request.mesh_id, Some(request.lease_id)).await?;
        let mut state = self.0.lock().expect("no panic");
        if state.refuses {
            return Err(Status::invalid_argument("no such protocol"));
        }
        if state.held_by_another {
            state.seen.send_modify(|seen| seen.clashes += 1);
            let mut status = Status::already_exists("the instance is held by another process");
            let mut tell = |key, millis: u64| {
                status.metadata_mut().insert(key, millis.into());
            };
            if let Some(heard_ago) = state.holder_heard_ago {
                tell("quorate-holder-heard-ms-ago", heard_ago);
            }
            tell("quorate-holder-left-ms", 300);
            return Err(status);
        }
        let health = request.instance.expect("an instance").health();
        state.leases += 1;
        let lease_id = state.leases;
        state.lease = Some(lease_id);
        state.seen.send_modify(|seen| {
            seen.registered.push(health);
            seen.granted.push(lease_id);
        });
        let meta = Some(state.meta.clone());
        Ok(Response::new(RegisterReply { meta, lease_id, ttl_ms: 300 }))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Status> {
        let request = request.into_inner();
        self.admit(&request.mesh_id, None).await?;
        let state = self.0.lock().expect("no panic");
        let asked = request.lease_ids;
        let unknown = asked.into_iter().filter(|id| state.lease != Some(*id)).collect();
        state.seen.send_modify(|seen| seen.renewed += 1);
        Ok(Response::new(RenewReply { meta: Some(state.meta.clone()), unknown, ttl_ms: 300 }))
    }

    async fn set_health(
        &self,
        request: Request<SetHealthRequest>,
    ) -> Result<Response<SetHealthReply>, Status> {
        let request = request.into_inner();
        self.admit(&request.mesh_id, None).await?;
        let state = self.0.lock().expect("no panic");
        if state.lease != Some(request.lease_id) {
            return Err(Status::not_found("the lease is unknown"));
        }
        state.seen.send_modify(|seen| seen.told.push(request.health()));
        Ok(Response::new(SetHealthReply { meta: Some(state.meta.clone()) }))
    }

    async fn deregister(
        &self,
        request: Request<DeregisterRequest>,
    ) -> Result<Response<DeregisterReply>, Status> {
        let request = request.into_inner();
        self.admit(&request.mesh_id, None).await?;
        let mut state = self.0.lock().expect("no panic");
        state.seen.send_modify(|seen| seen.deregistered.push(request.lease_id));
        let existed = state.lease == Some(request.lease_id);
        state.lease = state.lease.filter(|_| !existed);
        Ok(Response::new(DeregisterReply { meta: Some(state.meta.clone()), existed }))
    }

    async fn session(
        &self,
        _: Request<Streaming<NodeReport>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn deregister_silent(
        &self,
        _: Request<DeregisterSilentRequest>,
    ) -> Result<Response<DeregisterSilentReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn configure_service(
        &self,
        _: Request<ConfigureServiceRequest>,
    ) -> Result<Response<ConfigureServiceReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn remove_service(
        &self,
        _: Request<RemoveServiceRequest>,
    ) -> Result<Response<RemoveServiceReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn remove_member(
        &self,
        _: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn live(&self, _: Request<LiveRequest>) -> Result<Response<LiveReply>, Status> {
        Err(Status::unimplemented("not asked here"))
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
