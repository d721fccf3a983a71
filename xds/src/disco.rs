//! The composition: what runs on a DISCO server, from its start to its stop.

mod figures;

use std::{fmt, sync::Arc, time::Duration};

use mesh::{DISCO_GROUP, Member};
use proto::quorate::v1::{Formation, registry_server::RegistryServer};
use raft::{
    Group, Host,
    start::{Disk, Record, Start, decide},
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

pub use self::figures::Figures;
use crate::{
    MESSAGE_LIMIT,
    ads::{self, AdsServer},
    clients::RejectedResource,
    config::DiscoConfig,
    error::DiscoError,
    leader::{LeaseKeeper, Placer, Proposals, Renewals, Servers},
    publish::{Leases, Publisher, RegistryMachine},
    ready::{Gate, Readiness},
    registry::{RegistryService, own_record},
    shared::{Formed, Shared},
};

/// What the DISCO group is called.
const NAMESPACE: &str = "disco";

/// How long a server that starts waits for a quorum before it answers from what it has. It serves
/// discovery only once it has caught up.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(3);

/// How often a server asks whether there is a quorum.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// How long a quorum may take to answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// Pause before a quorum that did not answer is asked again.
const PROBE_RETRY: Duration = Duration::from_millis(100);

/// How long a stop waits for streams to end, and then for the leadership to be handed over.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How long after it has heard of a mesh a server waits for its own commit of the formation, which
/// may arrive later, before it says that it was left out.
const COMMIT_WITHIN: Duration = Duration::from_secs(3);

/// The `disco` service of one server. Clones are handles to it.
#[derive(Clone)]
pub struct Disco {
    shared: Arc<Shared>,
    readiness: watch::Sender<Readiness>,
    /// Taken by [`Disco::run`].
    publisher: Arc<Mutex<Option<Publisher>>>,
}

impl Disco {
    /// The service, before it runs. Its gRPC services can be given to a listener; they refuse
    /// callers until the server belongs to a mesh and has something to answer from.
    pub fn start(host: Host, config: DiscoConfig) -> Self {
        let (publisher, board) = Publisher::new();
        let (readiness, ready) = watch::channel(Readiness::not_formed());
        let leases = Leases::new(config.latch_patience);
        let shared = Shared::new(host, config, board, leases, Gate::new(ready));
        let memory = Arc::downgrade(&shared);
        shared.host.add_progress_source(move |group| memory.upgrade()?.progress(group));
        Self { shared, readiness, publisher: Arc::new(Mutex::new(Some(publisher))) }
    }

    /// Whether the server answers, serves and is ready.
    pub fn ready(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// The present figures of the service.
    pub fn figures(&self) -> Figures {
        Figures::of(&self.shared)
    }

    /// The resources that clients of this server reject, at most `limit`.
    pub fn rejected_resources(&self, limit: usize) -> Vec<RejectedResource> {
        self.shared.clients.rejected(limit)
    }

    /// Adds the gRPC services of discovery: ADS, and one for each type of resources.
    pub fn add_discovery(&self, routes: &mut RoutesBuilder) {
        AdsServer::new(Arc::clone(&self.shared)).add_services(routes);
    }

    /// The registry, for the mesh listener.
    pub fn registry_service(
        &self,
    ) -> RegistryServer<impl proto::quorate::v1::registry_server::Registry + use<>> {
        RegistryServer::new(RegistryService::new(Arc::clone(&self.shared)))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Runs the service until `shutdown`: then streams end, and the leadership is handed over.
    ///
    /// The host must go on until this has returned.
    ///
    /// # Errors
    ///
    /// If the service ended by itself. The process must end then too.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), DiscoError> {
        let publisher = self.publisher.lock().await.take().ok_or(DiscoError::Running)?;
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = self.serve(publisher) => ended,
        };
        self.stop().await;
        ended
    }

    async fn serve(&self, publisher: Publisher) -> Result<(), DiscoError> {
        let formation = self.formation().await?;
        let voters: Vec<Member> = formation.members.iter().map(member).collect();
        let start = self.decide(&voters).await?;
        let machine = RegistryMachine::new(publisher, self.shared.leases.clone());
        let group = self
            .shared
            .host
            .start_group(DISCO_GROUP, NAMESPACE, machine)
            .await
            .map_err(DiscoError::StartGroup)?;
        let was_blank = group.is_blank();
        if start == Start::Form {
            group.initialize(&voters).await.map_err(DiscoError::Initialize)?;
        }
        let shared = &self.shared;
        let (board, leases) = (shared.board.clone(), shared.leases.clone());
        let reports = shared.reports.clone();
        let formed = Formed {
            group: group.clone(),
            proposals: Proposals::new(group.clone(), board.clone()),
            renewals: Renewals::new(shared.host.clone(), group, board, leases, reports),
            servers: Servers::new(shared.host.clone()),
        };
        let formed = shared.formed.get_or_init(|| formed).clone();
        self.supervise(formed, was_blank).await
    }

    /// Decides from the disk and the other members whether and how this server takes part in its
    /// group. This comes before the group runs, since the server votes as soon as it runs.
    async fn decide(&self, voters: &[Member]) -> Result<Start, DiscoError> {
        let host = &self.shared.host;
        let is_blank = host.stored_replica(DISCO_GROUP)?.is_none_or(|stored| stored.is_blank);
        let disk = if is_blank { Disk::Blank } else { Disk::Holding };
        let others = voters.iter().map(|voter| voter.node_id);
        let (disk, membership) = host.compare(DISCO_GROUP, NAMESPACE, disk, others).await?;
        // The formation names the first voters; it does not say whether the group was formed since.
        match decide(disk, Record::FirstVoter { formed: false }, membership) {
            Start::Refuse(refusal) => Err(DiscoError::Unfit(refusal)),
            start @ (Start::Form | Start::Resume | Start::AwaitLeader | Start::Leave) => Ok(start),
        }
    }

    /// Runs the parts until one ends, which none should.
    async fn supervise(&self, formed: Formed, was_blank: bool) -> Result<(), DiscoError> {
        let Shared { board, leases, stopping, config, .. } = &*self.shared;
        let group = formed.group.clone();
        let mut parts = JoinSet::new();
        let keeper = LeaseKeeper::new(group.clone(), board.clone(), leases.clone());
        parts.spawn(part("lease keeper", keeper.run(stopping.clone())));
        let placer = Placer::new(group.clone(), board.clone(), config.data_voters_wanted);
        parts.spawn(part("placer", placer.run(stopping.clone())));
        let renewals = formed.renewals.clone();
        parts.spawn(part("renewals", renewals.run(stopping.clone())));
        let servers = formed.servers.clone();
        parts.spawn(part("servers", servers.run(group.clone(), stopping.clone())));
        let (watched, in_group) = (Arc::clone(&self.shared), formed.clone());
        let watch = async move { ads::watch_other_servers(&watched, &in_group).await };
        parts.spawn(part("watch over other servers", watch));
        let watched = Arc::clone(&self.shared);
        let watch = async move { ads::watch_readers(&watched).await };
        parts.spawn(part("watch over readers", watch));
        let shared = Arc::clone(&self.shared);
        parts.spawn(async move { own_record::run(&shared, &formed).await.map(|()| "own record") });
        let disco = self.clone();
        parts.spawn(part("readiness", async move { disco.watch(group, was_blank).await }));
        match parts.join_next().await {
            Some(Ok(Ok(name))) => Err(DiscoError::Task(name)),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(DiscoError::Panic(error)),
            None => Ok(()),
        }
    }

    async fn formation(&self) -> Result<Formation, DiscoError> {
        let host = &self.shared.host;
        if self.shared.config.single {
            return host.mesh().form_alone().map_err(DiscoError::FormAlone);
        }
        let mut formation = host.mesh().formation();
        let (mut mesh, mut met) = (host.mesh().watch_id(), host.mesh().met_mesh());
        let mut told = None;
        loop {
            if let Some(formation) = formation.borrow_and_update().clone() {
                return Ok(formation);
            }
            // The data service of this process may have joined a mesh, or other DISCO servers may
            // have named one.
            let joined = mesh.borrow_and_update().clone();
            let known = joined.or_else(|| met.borrow_and_update().clone());
            tokio::select! {
                () = sleep(COMMIT_WITHIN), if known != told => {
                    if let Some(mesh) = &known {
                        tracing::warn!(%mesh, "this server is not among those that formed the mesh");
                        self.readiness.send_replace(Readiness::not_a_member(mesh));
                    }
                    told = known;
                }
                changed = formation.changed() => changed.map_err(|_| DiscoError::FormationLost)?,
                changed = mesh.changed() => changed.map_err(|_| DiscoError::FormationLost)?,
                changed = met.changed() => changed.map_err(|_| DiscoError::FormationLost)?,
            }
        }
    }

    /// Keeps the readiness up to date: when the server begins to answer and to serve, and whether
    /// there is a quorum.
    ///
    /// A server that was blank does not answer before it has caught up: it has nothing to answer
    /// from, and an empty answer would be wrong.
    async fn watch(&self, group: Group, was_blank: bool) {
        let mut status = group.watch_status();
        let mut caught_up = Box::pin(catch_up(&self.shared, &group));
        let mut patience = Box::pin(sleep(CATCH_UP_PATIENCE));
        let mut probe = Box::pin(probe_quorum(&self.shared, &group));
        let mut looks = interval(PROBE_EVERY);
        let (mut answering, mut serving) = (false, false);
        loop {
            status.mark_unchanged();
            let now = group.status();
            let lacks = self.shared.lacks(&now);
            self.readiness.send_if_modified(|it| {
                let next = Readiness::of_group(answering, serving, lacks, now.doubt);
                let changed = *it != next;
                *it = next;
                changed
            });
            tokio::select! {
                // A doubt of the replica is not announced by the status watch.
                _ = looks.tick() => {}
                () = &mut caught_up, if !serving => (answering, serving) = (true, true),
                () = &mut patience, if !answering && !was_blank => {
                    let revision = self.shared.board.revision();
                    tracing::warn!(revision, "no quorum: answering from what was known at the stop");
                    answering = true;
                }
                () = &mut probe, if serving => probe.set(probe_quorum(&self.shared, &group)),
                changed = status.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn stop(&self) {
        let Shared { stopping, tasks, formed, .. } = &*self.shared;
        stopping.cancel();
        self.shared.board.call_all();
        tasks.close();
        if timeout(STOP_PATIENCE, tasks.wait()).await.is_err() {
            tracing::debug!(streams = tasks.len(), "not every stream ended in time");
        }
        if let Some(formed) = formed.get() {
            formed.group.hand_over(STOP_PATIENCE, |_| true).await;
        }
    }
}

/// Waits until this server has everything from before its start, however long that takes.
///
/// Otherwise a server that was away, or that replays a long log, would take its clients back to an
/// earlier state.
async fn catch_up(shared: &Shared, group: &Group) {
    while !ask_quorum(shared, group, CATCH_UP_PATIENCE).await {
        sleep(PROBE_RETRY).await;
    }
}

/// Asks whether there is a quorum until there is one. The first question comes after a while, or as
/// soon as a stream needs the answer.
async fn probe_quorum(shared: &Shared, group: &Group) {
    tokio::select! {
        () = sleep(PROBE_EVERY) => {}
        () = shared.quorum_wanted() => {}
    }
    while !ask_quorum(shared, group, PROBE_PATIENCE).await {
        sleep(PROBE_RETRY).await;
    }
}

/// Asks a quorum to confirm that this server has everything, and returns whether it does.
async fn ask_quorum(shared: &Shared, group: &Group, patience: Duration) -> bool {
    let asked = Instant::now();
    let index = match group.read_barrier(patience).await {
        Ok(index) => index,
        Err(error) => {
            tracing::trace!(%error, "no quorum");
            return false;
        }
    };
    let confirmed = shared.board.wait_applied(index, patience).await;
    if confirmed {
        shared.note_quorum(asked);
    }
    confirmed
}

async fn part(
    name: &'static str,
    run: impl Future<Output = ()>,
) -> Result<&'static str, DiscoError> {
    run.await;
    Ok(name)
}

fn member(member: &proto::quorate::v1::FormationMember) -> Member {
    Member { node_id: member.node_id, store_id: member.store_id }
}

impl fmt::Debug for Disco {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disco")
            .field("readiness", &*self.readiness.borrow())
            .finish_non_exhaustive()
    }
}
