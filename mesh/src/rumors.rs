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
const WORDS: usize = 8;

/// What is to be looked into.
#[derive(Debug, Default)]
pub(crate) struct Rumors {
    shared: Mutex<Heard>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Heard {
    /// Servers to look for where they were last found.
    wanted: BTreeSet<NodeId>,
    /// Where servers are said to be now.
    claims: BTreeMap<NodeId, SocketAddr>,
    /// By server: what other starts of it say to it.
    words: BTreeMap<NodeId, Vec<pb::OtherStart>>,
}

impl Rumors {
    /// Something speaks for looking for a known server soon.
    pub(crate) fn want(&self, node_id: NodeId) {
        if self.lock().wanted.insert(node_id) {
            self.woken.notify_one();
        }
    }

    /// A known server is said to be at an address.
    pub(crate) fn claim(&self, node_id: NodeId, address: SocketAddr) {
        let mut heard = self.lock();
        let is_news = heard.claims.insert(node_id, address) != Some(address);
        if heard.wanted.insert(node_id) || is_news {
            self.woken.notify_one();
        }
    }

    /// Keeps what another start of a known server says to it, until it asks.
    pub(crate) fn pass_on(&self, node_id: NodeId, word: pb::OtherStart) {
        let mut heard = self.lock();
        let words = heard.words.entry(node_id).or_default();
        if !words.contains(&word) {
            words.insert(0, word);
            words.truncate(WORDS);
        }
    }

    /// What other starts say to the start of a server.
    pub(crate) fn words_for(&self, node_id: NodeId, start: u64) -> Vec<pb::OtherStart> {
        let heard = self.lock();
        let words = heard.words.get(&node_id).into_iter().flatten();
        words.filter(|word| word.start != start).cloned().collect()
    }

    /// Resolves when there is something to look into.
    pub(crate) async fn stirred(&self) {
        self.woken.notified().await;
    }

    /// Hands over what is to be looked into.
    pub(crate) fn take(&self) -> (BTreeSet<NodeId>, BTreeMap<NodeId, SocketAddr>) {
        let mut heard = self.lock();
        (std::mem::take(&mut heard.wanted), std::mem::take(&mut heard.claims))
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
