//! The exchange of Hello messages: this server reports its address, and learns the addresses of
//! other servers and which start of each counts.
//!
//! A server learns only from answers: of the configured seeds, and of servers at the addresses
//! where it last found them. It believes those. A call proves nothing, since anybody can call. If a
//! caller claims that a known server has moved or started again, this server asks at the claimed
//! address ([`Rumors`]), and believes the answer only if the server no longer answers at its old
//! address. Hints are exchanged only between servers of one mesh. A seed may be wrong, down, this
//! server itself, or of another mesh; a seed of another mesh is logged once and ignored.
//!
//! Another server may count another start of this server. Then this server runs on a copied or
//! restored disk and may have forgotten votes, so it must end. The other copy must end too: before
//! this server ends it notifies the copy, directly and through other servers ([`crate::proof`]).
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

/// Pause between rounds while a seed has not answered, or this server has no mesh.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(500);
/// Pause between rounds otherwise.
const SETTLED_PAUSE: Duration = Duration::from_secs(5);
/// Least pause between rounds, however many lookups are requested.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// How long one exchange may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(1);
/// Exchanges under way at once.
const PARALLEL: usize = 16;
/// Most servers asked in one round, beside the seeds. In a larger mesh they take turns.
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
    /// If another start of this server counts in the mesh. The process must end too.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Overtaken> {
        let hello = HelloTask::new(self.clone(), self.inner.config.seeds.clone());
        let overtaken = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            overtaken = hello.run() => overtaken,
            () = self.inner.copy_proven.cancelled() => {
                Overtaken::Copy { epoch: self.inner.identity.boot_epoch }
            }
        };
        // Noted before the process ends, so that the copies cannot run in turn.
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
    /// It is a configured seed.
    Seed,
    /// The server was last found there.
    Known(NodeId),
    /// A caller claimed that the server is there.
    Claimed(NodeId),
}

/// The task that exchanges hints, round after round.
struct HelloTask {
    mesh: Mesh,
    seeds: Vec<SocketAddr>,
    answered: BTreeSet<SocketAddr>,
    /// Addresses that answered for another mesh and were logged.
    foreign: BTreeSet<SocketAddr>,
    /// Addresses that answered with a mesh while this server belongs to none.
    met: BTreeMap<SocketAddr, MeshId>,
    /// Connections of earlier rounds, to be reused.
    channels: BTreeMap<SocketAddr, Channel>,
    round: usize,
    /// Set once another start of this server is known: the proof that this start sends to it.
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

    /// Runs until another start of this server counts.
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
                // The other servers wait for one that has just become a member.
                Ok(()) = joined.changed() => true,
                () = mesh.inner.rumors.changed() => false,
            };
        }
    }

    /// The addresses to ask: of servers with rumors, both where they were found and where they are
    /// claimed to be; and if `everybody` is set, the seeds and some of the known servers, by turns.
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
        // Servers that answered where they were found. Claims of other addresses for them are not
        // believed.
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

    /// Handles the reply from a seed, or from an address where a server was found before.
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

    /// Compares the start of this server that another server counts with the current one.
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

    /// Prepares the proof for the other start, which must end too.
    fn found_copy(&mut self, other: u64) -> Overtaken {
        let own = self.mesh.inner.identity.start();
        self.proof = Some(proof::make(self.mesh.lock_dir().secret(), own.number, other));
        Overtaken::Copy { epoch: own.epoch }
    }

    /// Checks the reply from a claimed address. The claim is believed if the server did not answer
    /// where it was found before.
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

    /// Whether one of these proves that another start of this directory, or of a copy, runs.
    fn proves_copy(&self, proofs: &[pb::OtherStart]) -> bool {
        let start = self.mesh.inner.identity.start;
        let dir = self.mesh.lock_dir();
        proofs.iter().any(|proof| proof::verify(dir.secret(), proof, start))
    }

    /// Whether a server belongs to another mesh. Logs it once.
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

    /// Handles a reply while this server belongs to no mesh.
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
        // A server that was wiped no longer reports a mesh.
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

    /// Notifies the other copy, directly and through other servers, so that it ends too. This
    /// server ends even if no server answers.
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

#[cfg(test)]
mod tests;
