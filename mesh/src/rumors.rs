//! Claims of callers that are not checked yet. They prove nothing, since anybody can call.
//!
//! A claim makes this server ask for itself, at the address where a server was last found and at
//! the claimed one. Only known servers are looked up, so that a stranger cannot cause dials to any
//! address. One address is kept per server, so that callers cannot fill the memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::quorate::v1 as pb;
use tokio::sync::Notify;

use crate::ids::NodeId;

/// Proofs of other starts that are kept for one server. Some may be a stranger's and prove nothing.
const MAX_PROOFS: usize = 8;

/// The claims to be checked.
#[derive(Debug, Default)]
pub(crate) struct Rumors {
    shared: Mutex<Unverified>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Unverified {
    /// Servers to ask at the address where they were last found.
    wanted: BTreeSet<NodeId>,
    /// The addresses where callers claim that servers are.
    claims: BTreeMap<NodeId, SocketAddr>,
    /// By server: the proofs that other starts of it sent for it.
    proofs: BTreeMap<NodeId, Vec<pb::OtherStart>>,
}

impl Rumors {
    /// Requests that a known server be asked soon.
    pub(crate) fn request_lookup(&self, node_id: NodeId) {
        if self.lock().wanted.insert(node_id) {
            self.woken.notify_one();
        }
    }

    /// Notes the claim that a known server is at an address.
    pub(crate) fn claim(&self, node_id: NodeId, address: SocketAddr) {
        let mut unverified = self.lock();
        let is_new = unverified.claims.insert(node_id, address) != Some(address);
        if unverified.wanted.insert(node_id) || is_new {
            self.woken.notify_one();
        }
    }

    /// Keeps a proof that another start of a known server sent for it, until it calls.
    pub(crate) fn keep_proof(&self, node_id: NodeId, proof: pb::OtherStart) {
        let mut unverified = self.lock();
        let proofs = unverified.proofs.entry(node_id).or_default();
        if !proofs.contains(&proof) {
            proofs.insert(0, proof);
            proofs.truncate(MAX_PROOFS);
        }
    }

    /// The proofs of other starts for this start of a server.
    pub(crate) fn proofs_for(&self, node_id: NodeId, start: u64) -> Vec<pb::OtherStart> {
        let unverified = self.lock();
        let proofs = unverified.proofs.get(&node_id).into_iter().flatten();
        proofs.filter(|proof| proof.start != start).cloned().collect()
    }

    /// Resolves when there are claims to check.
    pub(crate) async fn changed(&self) {
        self.woken.notified().await;
    }

    /// Takes the servers to ask and the claimed addresses.
    pub(crate) fn take(&self) -> (BTreeSet<NodeId>, BTreeMap<NodeId, SocketAddr>) {
        let mut unverified = self.lock();
        (std::mem::take(&mut unverified.wanted), std::mem::take(&mut unverified.claims))
    }

    fn lock(&self) -> MutexGuard<'_, Unverified> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
