//! What was said by those who call, which proves nothing: anybody can call.
//!
//! It makes this server look for itself: at the address where a server was last found, or where it
//! is said to be. Only servers that are known are looked for, so that a stranger cannot have
//! anything dialed, and one address a server is kept, so that nobody fills the memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use proto::quorate::v1 as pb;
use tokio::sync::Notify;

use crate::ids::NodeId;

/// Words of other starts that are kept for one server. A stranger may send some that prove nothing.
const MAX_PROOFS: usize = 8;

/// What is to be looked into.
#[derive(Debug, Default)]
pub(crate) struct Rumors {
    shared: Mutex<Unverified>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Unverified {
    /// Servers to look for where they were last found.
    wanted: BTreeSet<NodeId>,
    /// Where servers are said to be now.
    claims: BTreeMap<NodeId, SocketAddr>,
    /// By server: what other starts of it say to it.
    proofs: BTreeMap<NodeId, Vec<pb::OtherStart>>,
}

impl Rumors {
    /// Something speaks for looking for a known server soon.
    pub(crate) fn request_lookup(&self, node_id: NodeId) {
        if self.lock().wanted.insert(node_id) {
            self.woken.notify_one();
        }
    }

    /// A known server is said to be at an address.
    pub(crate) fn claim(&self, node_id: NodeId, address: SocketAddr) {
        let mut unverified = self.lock();
        let is_new = unverified.claims.insert(node_id, address) != Some(address);
        if unverified.wanted.insert(node_id) || is_new {
            self.woken.notify_one();
        }
    }

    /// Keeps what another start of a known server says to it, until it asks.
    pub(crate) fn keep_proof(&self, node_id: NodeId, proof: pb::OtherStart) {
        let mut unverified = self.lock();
        let proofs = unverified.proofs.entry(node_id).or_default();
        if !proofs.contains(&proof) {
            proofs.insert(0, proof);
            proofs.truncate(MAX_PROOFS);
        }
    }

    /// What other starts say to the start of a server.
    pub(crate) fn proofs_for(&self, node_id: NodeId, start: u64) -> Vec<pb::OtherStart> {
        let unverified = self.lock();
        let proofs = unverified.proofs.get(&node_id).into_iter().flatten();
        proofs.filter(|proof| proof.start != start).cloned().collect()
    }

    /// Resolves when there is something to look into.
    pub(crate) async fn changed(&self) {
        self.woken.notified().await;
    }

    /// Hands over what is to be looked into.
    pub(crate) fn take(&self) -> (BTreeSet<NodeId>, BTreeMap<NodeId, SocketAddr>) {
        let mut unverified = self.lock();
        (std::mem::take(&mut unverified.wanted), std::mem::take(&mut unverified.claims))
    }

    fn lock(&self) -> MutexGuard<'_, Unverified> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
