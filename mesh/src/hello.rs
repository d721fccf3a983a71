//! Telling other servers where this one is, and learning where they are.
//!
//! Hints travel only between servers of one mesh. A seed may be wrong, down, this server itself, or
//! of another mesh: then it is named once and left alone.
//!
//! A server of our own mesh that was asked, at an address where we looked for it, may know of a later
//! start of this very server. Then this one runs on a disk that was copied or restored, has
//! forgotten votes that it gave, and must not go on. Of those who ask us we believe no such thing:
//! anybody can ask.

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

use crate::{
    book::Hint,
    ids::node_hex,
    part::Mesh,
    peers::{MESSAGE_BYTES, channel_to},
};

/// Time between rounds while a seed has not answered, or this server has no mesh.
const EAGER: Duration = Duration::from_millis(500);
/// Time between rounds otherwise.
const CALM: Duration = Duration::from_secs(5);
/// How long one exchange may take.
const LIMIT: Duration = Duration::from_secs(1);
/// Exchanges under way at once.
const PARALLEL: usize = 16;
/// Servers spoken to in one round, beside the seeds; larger meshes take turns.
const PER_ROUND: usize = 64;

/// Another server knows of a later start of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the mesh knows of start number {seen} of this server, and this is number {ours}: its disk was \
     copied or restored, or it runs elsewhere too"
)]
pub struct Superseded {
    pub ours: u64,
    pub seen: u64,
}

impl Mesh {
    /// Exchanges address hints until `shutdown`.
    ///
    /// # Errors
    ///
    /// Ends by itself if the mesh knows of a later start of this server: the process must end too.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Superseded> {
        let greeter = Greeter::new(self.clone(), self.inner.config.seeds.clone());
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            seen = greeter.run() => Err(seen),
        }
    }
}

/// Exchanges hints, round after round.
struct Greeter {
    mesh: Mesh,
    seeds: Vec<SocketAddr>,
    answered: BTreeSet<SocketAddr>,
    /// Addresses that answered for another mesh, already named.
    foreign: BTreeSet<SocketAddr>,
    /// Connections of the last round, used again.
    channels: BTreeMap<SocketAddr, Channel>,
    round: usize,
}

impl Greeter {
    fn new(mesh: Mesh, seeds: Vec<SocketAddr>) -> Self {
        Self {
            mesh,
            seeds,
            answered: BTreeSet::new(),
            foreign: BTreeSet::new(),
            channels: BTreeMap::new(),
            round: 0,
        }
    }

    /// Goes on until a server of the same mesh knows of a later start of this one.
    async fn run(mut self) -> Superseded {
        let mut joined = self.mesh.watch_id();
        loop {
            if let Some(seen) = self.greet_all().await {
                return seen;
            }
            let settled = self.mesh.id().is_some()
                && self.seeds.iter().all(|seed| self.answered.contains(seed));
            let pause = if settled { CALM } else { EAGER };
            tokio::select! {
                () = time::sleep(pause) => {}
                // A server that has just become a member is awaited by the others.
                Ok(()) = joined.changed() => {}
            }
        }
    }

    async fn greet_all(&mut self) -> Option<Superseded> {
        let targets = self.targets();
        self.channels.retain(|address, _| targets.contains(address));
        for address in targets {
            self.channels.entry(address).or_insert_with(|| channel_to(address));
        }
        let request = self.request();
        let replies: Vec<_> = stream::iter(self.channels.clone())
            .map(|(address, channel)| {
                let request = request.clone();
                async move { (address, greet(channel, request).await) }
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        for (address, reply) in replies {
            match reply {
                Ok(reply) => {
                    let seen = self.take_in(address, reply).await;
                    if seen.is_some() {
                        return seen;
                    }
                }
                Err(status) => {
                    tracing::debug!(%address, message = status.message(), "no answer to hello");
                }
            }
        }
        None
    }

    fn targets(&mut self) -> BTreeSet<SocketAddr> {
        let ours = self.mesh.advertise();
        let known: Vec<SocketAddr> =
            self.mesh.book().hints().into_iter().map(|hint| hint.address).collect();
        let skip = (self.round * PER_ROUND).checked_rem(known.len()).unwrap_or(0);
        self.round = self.round.wrapping_add(1);
        let turn = known.iter().cycle().skip(skip).take(known.len().min(PER_ROUND));
        self.seeds.iter().chain(turn).copied().filter(|address| *address != ours).collect()
    }

    fn request(&self) -> pb::HelloRequest {
        let mesh = self.mesh.id();
        let known = if mesh.is_some() { self.mesh.book().hints() } else { Vec::new() };
        pb::HelloRequest {
            mesh_id: mesh.map(|mesh| mesh.to_string()).unwrap_or_default(),
            sender: Some(to_proto(&self.mesh.own_hint())),
            known: known.iter().map(to_proto).collect(),
        }
    }

    async fn take_in(&mut self, address: SocketAddr, reply: pb::HelloReply) -> Option<Superseded> {
        let server = reply.server?;
        self.answered.insert(address);
        let ours = self.mesh.id().map(|mesh| mesh.to_string()).unwrap_or_default();
        if server.node_id == self.mesh.identity().node_id {
            return None;
        }
        if !ours.is_empty() && !server.mesh_id.is_empty() && server.mesh_id != ours {
            if self.foreign.insert(address) {
                tracing::warn!(
                    %address, node = node_hex(server.node_id), theirs = server.mesh_id, ours,
                    "this address answers for another mesh; it is left alone"
                );
            }
            return None;
        }
        self.foreign.remove(&address);
        if ours.is_empty() {
            if let Some(formation) = reply.formation
                && formation.mesh_id == server.mesh_id
            {
                self.adopt(formation).await;
            } else if let Ok(theirs) = server.mesh_id.parse() {
                self.mesh.meet(theirs);
            }
            return None;
        }
        if server.mesh_id != ours {
            return None;
        }
        let seen = seen_later(&self.mesh, &reply.known);
        learn(&self.mesh, reply.known);
        seen
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
}

/// Answers a Hello.
pub(crate) fn answer(mesh: &Mesh, request: pb::HelloRequest) -> pb::HelloReply {
    let server = mesh.server_identity();
    let same_mesh = !server.mesh_id.is_empty() && server.mesh_id == request.mesh_id;
    let mut known = Vec::new();
    if same_mesh {
        learn(mesh, request.sender.clone().into_iter().chain(request.known).collect());
        known = mesh.book().hints().iter().map(to_proto).collect();
        known.push(to_proto(&mesh.own_hint()));
    }
    let formation = mesh.formation().borrow().clone().filter(|formation| {
        let sender = request.sender.as_ref().map(|sender| sender.node_id);
        request.mesh_id.is_empty()
            && formation.members.iter().any(|member| Some(member.node_id) == sender)
    });
    pb::HelloReply { server: Some(server), known, formation }
}

async fn greet(channel: Channel, request: pb::HelloRequest) -> Result<pb::HelloReply, Status> {
    let mut client = MeshClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    time::timeout(LIMIT, client.hello(Request::new(request)))
        .await
        .map_err(|_| Status::deadline_exceeded("no answer in time"))?
        .map(tonic::Response::into_inner)
}

fn seen_later(mesh: &Mesh, hints: &[pb::AddressHint]) -> Option<Superseded> {
    let own = mesh.own_hint();
    let of_own = hints.iter().filter(|hint| hint.node_id == own.node_id);
    let seen = of_own.map(|hint| hint.boot_epoch).max()?;
    let ours = own.boot_epoch;
    (seen > ours).then_some(Superseded { ours, seen })
}

fn learn(mesh: &Mesh, hints: Vec<pb::AddressHint>) {
    let ours = mesh.identity().node_id;
    for hint in hints {
        let Ok(address) = hint.address.parse() else { continue };
        if hint.node_id == ours {
            continue;
        }
        mesh.book().learn(Hint {
            node_id: hint.node_id,
            boot_epoch: hint.boot_epoch,
            address,
            services: hint.services,
        });
    }
}

fn to_proto(hint: &Hint) -> pb::AddressHint {
    pb::AddressHint {
        node_id: hint.node_id,
        boot_epoch: hint.boot_epoch,
        address: hint.address.to_string(),
        services: hint.services.clone(),
    }
}
