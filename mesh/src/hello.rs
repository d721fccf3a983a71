//! Telling other servers where this one is, and learning where they are and which start of each
//! counts.
//!
//! A server learns by asking only: at the seeds that it was given, and where it last found a server.
//! Those answers it believes. Who calls proves nothing, and is at most looked for ([`Rumors`]): a
//! known server that is said to have moved or to have started again, where it is said to be, and
//! only if it does not answer any more where it was. Hints travel only between servers of one mesh.
//! A seed may be wrong, down, this server itself, or of another mesh: then it is named once and left
//! alone.
//!
//! Another server may count another start of this very server. Then this one runs on a disk that was
//! copied or restored, has forgotten votes that it gave, and must not go on. The other copy must not
//! either: this one tells it before it ends, by itself and through others ([`crate::proof`]).
//!
//! [`Rumors`]: crate::rumors::Rumors

mod answer;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use futures::{StreamExt, stream};
use proto::quorate::v1::{self as pb, mesh_client::MeshClient};
use tokio::{task, time};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, transport::Channel};

pub(crate) use self::answer::answer;
use crate::{
    book::Hint,
    ids::{MeshId, NodeId, node_hex},
    part::Mesh,
    peers::{MESSAGE_BYTES, channel_to},
    proof,
    starts::{Start, StartOrder, compare},
};

/// Time between rounds while a seed has not answered, or this server has no mesh.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(500);
/// Time between rounds otherwise.
const SETTLED_PAUSE: Duration = Duration::from_secs(5);
/// Least time between rounds, however much there is to look into.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// How long one exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(1);
/// Exchanges under way at once.
const PARALLEL: usize = 16;
/// Servers spoken to in one round, beside the seeds; larger meshes take turns.
const PER_ROUND: usize = 64;

/// Another start of this server counts in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overtaken {
    #[error(
        "the mesh knows of start number {seen} of this server, and this is number {ours}: its disk \
         was copied or restored, or it runs elsewhere too"
    )]
    Later { ours: u64, seen: u64 },
    #[error(
        "start number {epoch} of this server took place twice: its data directory was copied, and two \
         copies were started"
    )]
    Copy { epoch: u64 },
}

impl Mesh {
    /// Exchanges address hints until `shutdown`.
    ///
    /// # Errors
    ///
    /// Ends by itself if another start of this server counts in the mesh: the process must end too.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Overtaken> {
        let hello = HelloTask::new(self.clone(), self.inner.config.seeds.clone());
        let overtaken = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            overtaken = hello.run() => overtaken,
            () = self.inner.copy_proven.cancelled() => {
                Overtaken::Copy { epoch: self.inner.identity.boot_epoch }
            }
        };
        // Before anybody starts it again: copies must not take turns.
        let mesh = self.clone();
        match task::spawn_blocking(move || mesh.set_overtaken()).await {
            Ok(Ok(())) => {}
            failed => tracing::error!(?failed, "cannot note that this server was overtaken"),
        }
        Err(overtaken)
    }
}

/// Why an address is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// It was given to this server.
    Seed,
    /// The server was last found there.
    Known(NodeId),
    /// Somebody said that the server is there.
    Claimed(NodeId),
}

/// Exchanges hints, round after round.
struct HelloTask {
    mesh: Mesh,
    seeds: Vec<SocketAddr>,
    answered: BTreeSet<SocketAddr>,
    /// Addresses that answered for another mesh, already named.
    foreign: BTreeSet<SocketAddr>,
    /// Addresses that answered for a mesh while this server belongs to none.
    met: BTreeMap<SocketAddr, MeshId>,
    /// Connections of the last round, used again.
    channels: BTreeMap<SocketAddr, Channel>,
    round: usize,
    /// Set once another start of this server is known of: what to say to it.
    proof: Option<pb::OtherStart>,
}

impl HelloTask {
    fn new(mesh: Mesh, seeds: Vec<SocketAddr>) -> Self {
        Self {
            mesh,
            seeds,
            answered: BTreeSet::new(),
            foreign: BTreeSet::new(),
            met: BTreeMap::new(),
            channels: BTreeMap::new(),
            round: 0,
            proof: None,
        }
    }

    /// Goes on until another start of this server counts.
    async fn run(mut self) -> Overtaken {
        let mesh = self.mesh.clone();
        let mut joined = mesh.watch_id();
        let mut everybody = true;
        loop {
            let targets = self.targets(everybody);
            if let Some(overtaken) = self.exchange_with(targets).await {
                self.notify_other_start(overtaken).await;
                return overtaken;
            }
            self.mesh.set_greeted();
            time::sleep(LEAST_PAUSE).await;
            let settled = self.mesh.id().is_some()
                && self.seeds.iter().all(|seed| self.answered.contains(seed));
            let pause = if settled { SETTLED_PAUSE } else { UNSETTLED_PAUSE };
            everybody = tokio::select! {
                () = time::sleep(pause) => true,
                // A server that has just become a member is awaited by the others.
                Ok(()) = joined.changed() => true,
                () = mesh.inner.rumors.changed() => false,
            };
        }
    }

    /// Whom to ask: those that there are rumors of, where they were found and where they are said to
    /// be; and, for everybody, the seeds and known servers by turns.
    fn targets(&mut self, everybody: bool) -> BTreeMap<SocketAddr, Target> {
        let (wanted, claims) = self.mesh.inner.rumors.take();
        let hints = self.mesh.book().hints();
        let known = |hint: &Hint| (hint.address, Target::Known(hint.node_id));
        let mut targets: BTreeMap<_, _> =
            claims.into_iter().map(|(id, address)| (address, Target::Claimed(id))).collect();
        targets.extend(hints.iter().filter(|hint| wanted.contains(&hint.node_id)).map(known));
        if everybody {
            let skip = (self.round * PER_ROUND).checked_rem(hints.len()).unwrap_or(0);
            self.round = self.round.wrapping_add(1);
            let turn = hints.iter().cycle().skip(skip).take(hints.len().min(PER_ROUND));
            targets.extend(turn.map(known));
            targets.extend(self.seeds.iter().map(|seed| (*seed, Target::Seed)));
            self.channels.retain(|address, _| targets.contains_key(address));
        }
        targets.remove(&self.mesh.advertise());
        targets
    }

    async fn exchange_with(&mut self, targets: BTreeMap<SocketAddr, Target>) -> Option<Overtaken> {
        let replies = self.ask(&targets).await;
        // Servers that answered where they were found: they are nowhere else.
        let mut present = BTreeMap::new();
        let (claimed, known): (Vec<_>, Vec<_>) = replies
            .into_iter()
            .filter_map(|(address, reply)| Some((address, *targets.get(&address)?, reply)))
            .partition(|(_, target, _)| matches!(target, Target::Claimed(_)));
        for (address, target, reply) in known {
            if let Some(server) = &reply.server {
                present.insert(server.node_id, server.start);
            }
            let overtaken = self.handle_reply(address, target, reply).await;
            if overtaken.is_some() {
                return overtaken;
            }
        }
        for (address, target, reply) in claimed {
            self.check_claim(address, target, reply, &present);
        }
        None
    }

    async fn ask(
        &mut self,
        targets: &BTreeMap<SocketAddr, Target>,
    ) -> Vec<(SocketAddr, pb::HelloReply)> {
        let request = self.request();
        let lines: Vec<_> = targets
            .keys()
            .map(|address| {
                let line = self.channels.entry(*address).or_insert_with(|| channel_to(*address));
                (*address, line.clone())
            })
            .collect();
        let asked = stream::iter(lines).map(|(address, channel)| {
            let request = request.clone();
            async move { (address, exchange(channel, request).await) }
        });
        let replies: Vec<_> = asked.buffer_unordered(PARALLEL).collect().await;
        let replies = replies.into_iter().filter_map(|(address, reply)| match reply {
            Ok(reply) => Some((address, reply)),
            Err(status) => {
                tracing::debug!(%address, message = status.message(), "no answer to hello");
                None
            }
        });
        replies.collect()
    }

    fn request(&self) -> pb::HelloRequest {
        let mesh = self.mesh.id();
        let known = if mesh.is_some() { self.mesh.book().hints() } else { Vec::new() };
        pb::HelloRequest {
            mesh_id: mesh.map(|mesh| mesh.to_string()).unwrap_or_default(),
            sender: Some(to_proto(&self.mesh.own_hint())),
            known: known.iter().map(to_proto).collect(),
            other_start: self.proof.clone(),
        }
    }

    /// Takes in what a server said that was asked where it was looked for.
    async fn handle_reply(
        &mut self,
        address: SocketAddr,
        target: Target,
        reply: pb::HelloReply,
    ) -> Option<Overtaken> {
        let server = reply.server.as_ref()?;
        self.answered.insert(address);
        let own = self.mesh.inner.identity.start();
        if server.node_id == self.mesh.inner.identity.node_id {
            let proven = self.proves_copy(&reply.other_starts);
            return proven.then(|| self.found_copy(server.start));
        }
        if self.is_foreign(address, server) {
            return None;
        }
        let Some(ours) = self.mesh.id() else {
            self.handle_reply_without_mesh(address, server.mesh_id.clone(), reply.formation).await;
            return None;
        };
        let is_stranger = target != Target::Seed && self.mesh.book().hint(server.node_id).is_none();
        if server.mesh_id != ours.as_str() || is_stranger {
            return None;
        }
        if self.proves_copy(&reply.other_starts) {
            return Some(Overtaken::Copy { epoch: own.epoch });
        }
        let node_id = server.node_id;
        let direct = hint_of(server);
        self.learn(direct.into_iter().chain(reply.known.iter().filter_map(from_proto)));
        let counted =
            reply.known.iter().filter(|hint| hint.node_id == self.mesh.inner.identity.node_id);
        let counted = counted.map(|hint| Start { epoch: hint.boot_epoch, number: hint.start });
        self.check_counted_start(node_id, counted.max_by_key(|start| start.epoch)?)
    }

    /// What it means that a server counts a start of this one.
    fn check_counted_start(&mut self, by: NodeId, counted: Start) -> Option<Overtaken> {
        let own = self.mesh.inner.identity.start();
        match compare(Some(own), counted) {
            StartOrder::Counted if counted.number == own.number => {
                self.mesh.inner.counted_by.send_if_modified(|known| known.insert(by));
                None
            }
            StartOrder::Later => Some(Overtaken::Later { ours: own.epoch, seen: counted.epoch }),
            StartOrder::Copy => Some(self.found_copy(counted.number)),
            StartOrder::Counted | StartOrder::Earlier | StartOrder::Implausible => None,
        }
    }

    /// The other start must be told: it may be in the same position.
    fn found_copy(&mut self, other: u64) -> Overtaken {
        let own = self.mesh.inner.identity.start();
        self.proof = Some(proof::make(self.mesh.lock_dir().secret(), own.number, other));
        Overtaken::Copy { epoch: own.epoch }
    }

    /// Looks into a claim: the server is believed to be there if it is not where it was found.
    fn check_claim(
        &self,
        address: SocketAddr,
        target: Target,
        reply: pb::HelloReply,
        present: &BTreeMap<NodeId, u64>,
    ) {
        let (Target::Claimed(node_id), Some(server)) = (target, reply.server) else { return };
        let ours = self.mesh.id().map(|mesh| mesh.to_string()).unwrap_or_default();
        if server.node_id != node_id || server.mesh_id != ours {
            return;
        }
        let Some(hint) = hint_of(&server) else { return };
        match present.get(&node_id) {
            Some(start) if *start != server.start => tracing::warn!(
                node = node_hex(node_id), %address,
                "a second server says that it is this node, and is not believed: the first answers \
                 where it was"
            ),
            Some(_) => {}
            None => self.learn([hint]),
        }
    }

    /// Whether another start of this directory, or of a copy, has said that it is there.
    fn proves_copy(&self, proofs: &[pb::OtherStart]) -> bool {
        let start = self.mesh.inner.identity.start;
        let dir = self.mesh.lock_dir();
        proofs.iter().any(|proof| proof::verify(dir.secret(), proof, start))
    }

    /// Whether a server is of another mesh, which is named once.
    fn is_foreign(&mut self, address: SocketAddr, server: &pb::ServerIdentity) -> bool {
        let ours = self.mesh.id().map(|mesh| mesh.to_string()).unwrap_or_default();
        if ours.is_empty() || server.mesh_id.is_empty() || server.mesh_id == ours {
            self.foreign.remove(&address);
            return false;
        }
        if self.foreign.insert(address) {
            tracing::warn!(
                %address, node = node_hex(server.node_id), theirs = server.mesh_id, ours,
                "this address answers for another mesh; it is left alone"
            );
        }
        true
    }

    /// What another server says, as long as this one belongs to no mesh.
    async fn handle_reply_without_mesh(
        &mut self,
        address: SocketAddr,
        mesh_id: String,
        formation: Option<pb::Formation>,
    ) {
        if let Some(formation) = formation
            && formation.mesh_id == mesh_id
        {
            self.adopt(formation).await;
            return;
        }
        // A server that is wiped and begins again has no mesh any more.
        match mesh_id.parse() {
            Ok(theirs) => self.met.insert(address, theirs),
            Err(_) => self.met.remove(&address),
        };
        self.mesh.set_met_mesh(self.met.values().next().cloned());
    }

    async fn adopt(&self, formation: pb::Formation) {
        let mesh = self.mesh.clone();
        let id = formation.mesh_id.clone();
        match task::spawn_blocking(move || mesh.adopt_formation(&formation)).await {
            Ok(Ok(())) => tracing::info!(mesh = id, "adopted the formation that a member told of"),
            Ok(Err(error)) => tracing::debug!(mesh = id, %error, "formation not adopted"),
            Err(error) => tracing::warn!(mesh = id, %error, "adopting a formation failed"),
        }
    }

    fn learn(&self, hints: impl IntoIterator<Item = Hint>) {
        let ours = self.mesh.inner.identity.node_id;
        for hint in hints.into_iter().filter(|hint| hint.node_id != ours) {
            self.mesh.book().learn(hint);
        }
    }

    /// Tells the other copy that this one is there, directly and through the others, so that it ends
    /// too. Nobody may answer, which is no reason to stay.
    async fn notify_other_start(&mut self, overtaken: Overtaken) {
        if matches!(overtaken, Overtaken::Copy { .. }) && self.proof.is_some() {
            let targets = self.targets(true);
            self.ask(&targets).await;
        }
    }
}

async fn exchange(channel: Channel, request: pb::HelloRequest) -> Result<pb::HelloReply, Status> {
    let mut client = MeshClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    time::timeout(EXCHANGE_TIMEOUT, client.hello(Request::new(request)))
        .await
        .map_err(|_| Status::deadline_exceeded("no answer in time"))?
        .map(tonic::Response::into_inner)
}

fn hint_of(server: &pb::ServerIdentity) -> Option<Hint> {
    Some(Hint {
        node_id: server.node_id,
        boot_epoch: server.boot_epoch,
        start: server.start,
        moves: server.moves,
        address: server.address.parse().ok()?,
        services: server.services.clone(),
    })
}

fn from_proto(hint: &pb::AddressHint) -> Option<Hint> {
    Some(Hint {
        node_id: hint.node_id,
        boot_epoch: hint.boot_epoch,
        start: hint.start,
        moves: hint.moves,
        address: hint.address.parse().ok()?,
        services: hint.services.clone(),
    })
}

fn to_proto(hint: &Hint) -> pb::AddressHint {
    pb::AddressHint {
        node_id: hint.node_id,
        boot_epoch: hint.boot_epoch,
        start: hint.start,
        moves: hint.moves,
        address: hint.address.to_string(),
        services: hint.services.clone(),
    }
}
