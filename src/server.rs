//! One server process: its ports, its data directory, its services, and their end.
//!
//! The order is the point. The data directory is looked at first and opened after the ports are
//! bound, so that neither a wrong directory nor a clash of ports leaves a trace; what a stop takes
//! away, it takes away in the order in which others depend on it:
//!
//! ```text
//! start  claim ─► ports ─► data directory ─► host ─► listeners serve ─► services
//! stop   not ready ─► services (tell DISCO, hand over leaderships) ─► KV port ─► other ports ─►
//!        host, disk
//! ```
//!
//! A call that is under way when the stop is asked for, or comes while it goes on, is answered: the
//! groups run on until the KV port has answered its last call, and forward to the next leader; and
//! the mesh port, on which this server hears of what is committed, outlives the KV port.
//!
//! Every task belongs to a set. A task that ends before the stop takes the process with it: half a
//! server is worse than none.

mod address;
mod admin;
mod announce;
mod kv_http;
mod metrics;
mod readiness;
mod services;
mod statuses;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use mesh::{ClaimedDir, DataDir, DataDirError, Mesh, MeshConfig};
use nix::sys::stat::{Mode, umask};
use raft::{Host, HostError, OpenError, Timing};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use xds::Disco;

pub(crate) use self::announce::Announce;
use self::{readiness::Readiness, services::Services};
use crate::{
    config::{Config, KvPort, Start},
    failure::{Code, Failure, chain},
    listener::{Limit, ListenError, Listener},
    open_files::{self, Limits},
    output,
};

#[cfg(test)]
mod tests;

/// Of the time for a stop, what is kept for the listeners and the disk.
const LAST_STEPS: Duration = Duration::from_millis(1500);

/// What to do about a disk that does not hold what the server left on it.
const DISK_FIX: &str = "check the disk, move this data directory away, and start with an empty one: \
    the server joins as a new one and gets its data from the others. A server that is the only one \
    needs the whole directory from a copy that was made while it was stopped";

/// How long after a task has ended by itself the reason may show in another one.
const REASON_WITHIN: Duration = Duration::from_secs(2);

/// How long calls of clients of the KV port may go on once it takes no new ones.
const OPEN_CALLS: Duration = Duration::from_secs(3);

/// How long open streams may go on once the other listeners close.
const OPEN_STREAMS: Duration = Duration::from_millis(500);

/// The outcome of a task, with the name of the task.
type Ended = (&'static str, anyhow::Result<()>);

/// What the process is made of, for those who tell of it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    config: Config,
    host: Host,
    disco: Option<Disco>,
    limits: Limits,
    started: SystemTime,
}

pub(crate) async fn run(config: Config, announce: Announce) -> Result<u8, Failure> {
    // What a server writes, RocksDB's files too, is for its own user.
    umask(Mode::from_bits_truncate(0o077));
    config.tell();
    let mut stop =
        Stop::install().map_err(|error| Failure::other("cannot watch signals", &error))?;
    let claim = DataDir::claim(&config.data_dir, &config.service_names(), config.mesh.as_ref())
        .map_err(dir_failure)?;
    let limits = connection_limits(config.kv.is_some())?;
    let ports = Ports::bind(&config, &limits)?;
    let config = ports.complete(config);
    let (host, had_mesh) = open_host(claim, &config)?;
    let services = Services::start(&config, &host)?;
    let readiness = services.readiness();
    let disco = services.disco().cloned();
    let server = Server { config, host, disco, limits, started: SystemTime::now() };

    let mut tasks = Tasks::default();
    ports.serve(&server, &services, &readiness, &mut tasks)?;
    let base = tasks.stage(Stage::Base);
    let (host, token) = (server.host.clone(), base.stop.clone());
    let mesh = host.mesh().clone();
    let mesh_token = token.clone();
    base.set.spawn(async move { ("mesh", mesh.run(mesh_token).await.map_err(Into::into)) });
    base.set.spawn(async move { ("host", host.run(token).await.map_err(Into::into)) });
    base.set.spawn(address::keep(server.config.clone(), base.stop.clone()));
    base.set.spawn(readiness.clone().keep(base.stop.clone()));
    base.set.spawn(announce.keep(server.clone(), had_mesh, readiness.clone(), base.stop.clone()));
    let stopped = tokio::select! {
        opened = await_counted(&server.host) => opened.map(|()| false)?,
        () = stop.asked() => true,
        ended = tasks.first_to_end() => {
            return Err(fatal(tasks.reason(ended).await, &server.host).await);
        }
    };
    if !stopped {
        services.run(tasks.stage(Stage::Services));
        tokio::select! {
            () = stop.asked() => {}
            ended = tasks.first_to_end() => {
                return Err(fatal(tasks.reason(ended).await, &server.host).await);
            }
        }
    }
    tracing::info!("stopping");
    readiness.stop();
    tokio::select! {
        () = tasks.shut_down(server.config.shutdown_grace) => Ok(0),
        () = stop.asked() => Err(end_at_once()),
    }
}

/// Waits until this server may take part in its groups: one on a copied data directory must be met by
/// the other voters first.
async fn await_counted(host: &Host) -> Result<(), Failure> {
    let voters = host
        .other_voters()
        .await
        .map_err(|error| Failure::other("cannot read the memberships of the groups", &error))?;
    let counted = host.mesh().await_counted(&voters).await;
    counted.map_err(|error| Failure::other("cannot write the identity file", &error))
}

/// Ends the process as a crash would, which loses nothing that was acknowledged. Returning instead
/// would close the databases while the process exits, and wait for what the signal is to cut short.
fn end_at_once() -> Failure {
    tracing::warn!("ended at once by a second signal");
    let ended = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    Failure::new(Code::Other, format!("a second signal came, but the process goes on: {ended:?}"))
}

/// The tasks of the process, in the order in which they stop.
#[derive(Default)]
struct Tasks([StageTasks; 4]);

#[derive(Clone, Copy)]
enum Stage {
    /// They tell others that they stop, which needs the listeners and the host.
    Services,
    /// The port whose clients are answered to the last.
    Kv,
    /// The other ports.
    Listeners,
    /// The host, which brings everything to disk, and what tells of the server.
    Base,
}

#[derive(Default)]
struct StageTasks {
    set: JoinSet<Ended>,
    stop: CancellationToken,
}

impl Tasks {
    fn stage(&mut self, stage: Stage) -> &mut StageTasks {
        &mut self.0[stage as usize]
    }

    async fn first_to_end(&mut self) -> Option<Result<Ended, JoinError>> {
        let [services, kv, listeners, base] = &mut self.0;
        // In this order, since what depends on the base may end with it and hide the reason.
        tokio::select! {
            biased;
            Some(ended) = base.set.join_next() => Some(ended),
            Some(ended) = services.set.join_next() => Some(ended),
            Some(ended) = kv.set.join_next() => Some(ended),
            Some(ended) = listeners.set.join_next() => Some(ended),
            else => None,
        }
    }

    /// Why the process ends although nobody asked for it. What stops a group stops what works on it
    /// too, so the first task to end need not be the one that knows why.
    async fn reason(
        &mut self,
        first: Option<Result<Ended, JoinError>>,
    ) -> Option<Result<Ended, JoinError>> {
        if first.as_ref().is_none_or(knows_why) {
            return first;
        }
        let deadline = Instant::now() + REASON_WITHIN;
        while let Ok(Some(next)) = timeout_at(deadline, self.first_to_end()).await {
            if knows_why(&next) {
                return Some(next);
            }
        }
        first
    }

    /// The stop, within `grace`.
    async fn shut_down(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        let services_by = deadline.checked_sub(LAST_STEPS).unwrap_or(deadline);
        self.stage(Stage::Services).shut_down("the services", services_by).await;
        let kv_by = services_by.min(Instant::now() + OPEN_CALLS).max(Instant::now() + OPEN_STREAMS);
        self.stage(Stage::Kv).shut_down("open calls", kv_by.min(deadline)).await;
        let listeners_by = deadline.min(Instant::now() + OPEN_STREAMS);
        self.stage(Stage::Listeners).shut_down("open streams", listeners_by).await;
        self.stage(Stage::Base).shut_down("the host", deadline).await;
        tracing::info!("stopped");
    }
}

impl StageTasks {
    async fn shut_down(&mut self, what: &str, deadline: Instant) {
        self.stop.cancel();
        if timeout_at(deadline, ended(&mut self.set)).await.is_err() {
            tracing::info!("{what} did not end in time");
        }
        self.set.shutdown().await;
    }
}

async fn ended(tasks: &mut JoinSet<Ended>) {
    while let Some(ended) = tasks.join_next().await {
        if let Ok((task, Err(error))) = ended {
            tracing::warn!(task, error = chain(error.as_ref()), "ended with an error");
        }
    }
}

/// Whether a task ended by a safety rule, which is the cause and not a consequence.
fn knows_why(ended: &Result<Ended, JoinError>) -> bool {
    matches!(ended, Ok((_, Err(error))) if is_refusal(error) || is_overtaken(error))
}

/// A task that ended although nobody asked it to.
async fn fatal(ended: Option<Result<Ended, JoinError>>, host: &Host) -> Failure {
    // Whichever task noticed it first.
    if let Some(found) = host.damage() {
        return refused(&HostError::Damaged(found), DISK_FIX);
    }
    match ended {
        Some(Ok((_, Err(error)))) if is_overtaken(&error) => {
            // Durable before the process ends: under a supervisor, copies would take turns.
            let mesh = host.mesh().clone();
            let noted = tokio::task::spawn_blocking(move || mesh.set_overtaken()).await;
            if !matches!(noted, Ok(Ok(()))) {
                tracing::error!(?noted, "cannot note that this server was overtaken");
            }
            let fix = "keep one of the copies of the data directory and remove the others; then, on \
                       the one that is kept, with its server stopped: quorate reclaim --data-dir DIR";
            refused(error.as_ref(), fix)
        }
        Some(Ok((task, Ok(())))) => Failure::new(Code::Other, format!("{task} ended by itself")),
        Some(Ok((_, Err(error)))) if is_outdated(&error) => refused(
            error.as_ref(),
            "install the version that the other servers run and start it again: nothing is lost",
        ),
        Some(Ok((_, Err(error)))) if is_refusal(&error) => refused(
            error.as_ref(),
            "this server and the mesh disagree on who it is: check --data-dir and --mesh; with an \
             empty data directory it is a new server",
        ),
        Some(Ok((task, Err(error)))) => Failure::other(&format!("{task} failed"), error.as_ref()),
        Some(Err(error)) => Failure::other("a task failed", &error),
        None => Failure::new(Code::Other, "there is nothing to run"),
    }
}

/// Whether a safety rule ended a task.
fn is_refusal(error: &anyhow::Error) -> bool {
    let data = error.downcast_ref::<node::DataError>().is_some_and(node::DataError::is_refusal);
    let disco = error.downcast_ref::<xds::DiscoError>().is_some_and(xds::DiscoError::is_refusal);
    let host = error.downcast_ref::<HostError>().is_some_and(HostError::is_refusal);
    data || disco || host
}

/// Whether another start of this server counts in the mesh.
fn is_overtaken(error: &anyhow::Error) -> bool {
    let data = error.downcast_ref::<node::DataError>();
    let disco = error.downcast_ref::<xds::DiscoError>();
    error.is::<mesh::Overtaken>()
        || data.is_some_and(node::DataError::is_overtaken)
        || matches!(disco, Some(xds::DiscoError::Refused(_)))
}

/// Whether this version is too old for what a group has come to.
fn is_outdated(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(HostError::Outdated { .. }))
            || matches!(cause.downcast_ref(), Some(raft::StartGroupError::Outdated(_)))
    })
}

/// The bound ports, before anything serves on them.
struct Ports {
    mesh: Listener,
    kv: Option<Listener>,
    admin: Listener,
}

impl Ports {
    fn bind(config: &Config, limits: &Limits) -> Result<Self, Failure> {
        let bind = |name, address, limit: &Limit| {
            Listener::bind(name, address, limit.clone()).map_err(port_failure)
        };
        let mesh = bind("mesh", config.listen, &limits.mesh)?;
        let kv = match config.kv {
            Some(kv) => Some(bind("kv", kv.listen, &limits.kv)?),
            None => None,
        };
        let admin = bind("admin", config.admin_listen, &limits.admin)?;
        Ok(Self { mesh, kv, admin })
    }

    /// Fills in the ports that the system chose.
    fn complete(&self, config: Config) -> Config {
        let bound = |address: SocketAddr, listener: &Listener| match address.port() {
            0 => SocketAddr::new(address.ip(), listener.address().port()),
            _ => address,
        };
        let kv = config.kv.zip(self.kv.as_ref()).map(|(kv, listener)| KvPort {
            listen: listener.address(),
            advertise: bound(kv.advertise, listener),
        });
        Config {
            listen: self.mesh.address(),
            advertise: bound(config.advertise, &self.mesh),
            admin_listen: self.admin.address(),
            kv,
            ..config
        }
    }

    fn serve(
        self,
        server: &Server,
        services: &Services,
        readiness: &Readiness,
        tasks: &mut Tasks,
    ) -> Result<(), Failure> {
        let mesh = services.mesh_routes(&server.host, readiness.mesh_health())?;
        let kv = services.kv_routes(readiness.kv_health(), readiness)?;
        let admin = admin::router(server.clone(), readiness.clone());
        let listeners = tasks.stage(Stage::Listeners);
        let (listener, stop) = (self.mesh, listeners.stop.clone());
        listeners.set.spawn(async {
            ("mesh listener", listener.serve_grpc(mesh, stop).await.map_err(Into::into))
        });
        let (listener, stop) = (self.admin, listeners.stop.clone());
        listeners.set.spawn(async {
            ("admin listener", listener.serve_http(admin, stop).await.map_err(Into::into))
        });
        if let Some((listener, routes)) = self.kv.zip(kv) {
            let kv = tasks.stage(Stage::Kv);
            let stop = kv.stop.clone();
            kv.set.spawn(async {
                ("kv listener", listener.serve_grpc(routes, stop).await.map_err(Into::into))
            });
        }
        Ok(())
    }
}

fn connection_limits(has_kv: bool) -> Result<Limits, Failure> {
    let open_files = open_files::raise_limit()
        .map_err(|error| Failure::other("cannot read the limit of open files", &error))?;
    let limits = Limits::of(open_files, has_kv);
    tracing::info!(open_files, connections_a_port = limits.mesh.most(), "limits");
    Ok(limits)
}

fn port_failure(error: ListenError) -> Failure {
    let hint = match error.kind() {
        Some(io::ErrorKind::AddrInUse) => {
            "is another server running on this port? --listen, --kv-listen and --admin-listen move it"
        }
        Some(io::ErrorKind::PermissionDenied) => {
            "this user may not open the port: take one above 1023, or grant CAP_NET_BIND_SERVICE"
        }
        Some(io::ErrorKind::AddrNotAvailable) => {
            "this machine has no such address: give one of its own, or 0.0.0.0 for all of them"
        }
        _ => "--listen, --kv-listen and --admin-listen say where the server listens",
    };
    Failure::new(Code::Other, chain(&error)).hint(hint)
}

fn dir_failure(error: DataDirError) -> Failure {
    match &error {
        DataDirError::Io { .. } => Failure::other("cannot start", &error),
        DataDirError::Overtaken(_) => {
            refused(&error, "docs/operating.md, Copies of a data directory, says how to choose")
        }
        DataDirError::Locked(_)
        | DataDirError::OtherServices { .. }
        | DataDirError::OtherMesh { .. }
        | DataDirError::NewerFormat { .. }
        | DataDirError::OlderFormat { .. }
        | DataDirError::Damaged { .. }
        | DataDirError::NotADataDir(_) => refused(
            &error,
            "check --data-dir, --services and --mesh; servers never share a directory",
        ),
    }
}

/// Opens the data directory and the host on it; tells also whether it belonged to a mesh before.
fn open_host(claim: ClaimedDir, config: &Config) -> Result<(Host, bool), Failure> {
    let looked = claim.stores().map(|(id, made)| raft::check(claim.path(), id, made));
    let looked = looked.transpose().map_err(store_failure)?;
    let dir = claim.open().map_err(dir_failure)?;
    let had_mesh = dir.identity().mesh_id.is_some();
    let mesh_config = MeshConfig {
        advertise: config.advertise,
        seeds: config.seeds.clone(),
        awaits_forming: config.start == Start::Formed,
        version: env!("QUORATE_VERSION").to_owned(),
    };
    let mesh = Mesh::open(dir, mesh_config);
    let host = match looked {
        Some(checked) => Host::open_checked(mesh, Timing::production(), &checked),
        None => Host::open(mesh, Timing::production()),
    };
    let host = host.map_err(store_failure)?;
    host.accept_losses(config.accept_losses.clone());
    Ok((host, had_mesh))
}

fn store_failure(error: OpenError) -> Failure {
    if error.is_refusal() {
        refused(&error, DISK_FIX)
    } else {
        Failure::other("cannot open the data", &error)
    }
}

/// What would do harm if it started: said loudly, with what to do.
fn refused(error: &(dyn std::error::Error + 'static), fix: &str) -> Failure {
    let failure = Failure::refused(chain(error)).hint(fix);
    output::line(&format!("REFUSED: {failure}; {fix}"));
    failure
}

/// SIGINT and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
