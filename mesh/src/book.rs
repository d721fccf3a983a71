//! The address book: hints of where servers are reached, by node id.
//!
//! A hint needs no quorum. It names a server, its start and an address; of two hints about one
//! server the later start wins, then the later move. The book is kept in the data directory, so
//! after a full restart a server finds its peers again and still counts the same start of each
//! ([`crate::starts`]).

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    file,
    ids::{NodeId, node_hex},
    starts::{Start, StartOrder, compare},
};

const FILE: &str = "book.json";
const DRAFT: &str = "book.json.new";
/// Most servers in the book. More would mean that a caller invents ids.
const CAPACITY: usize = 4096;

/// The address of a server, as reported by itself or by another server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    pub node_id: NodeId,
    pub boot_epoch: u64,
    /// The random number of that start; zero if it is not known.
    #[serde(default)]
    pub start: u64,
    /// Counts the addresses that the server has had since the start.
    #[serde(default)]
    pub moves: u64,
    pub address: SocketAddr,
    pub services: Vec<String>,
}

impl Hint {
    pub fn start(&self) -> Start {
        Start { epoch: self.boot_epoch, number: self.start }
    }
}

/// The address book of a server. Clones share it.
#[derive(Clone)]
pub struct Book {
    shared: Arc<Shared>,
}

struct Shared {
    hints: Mutex<BTreeMap<NodeId, Hint>>,
    /// None for a book that is not kept on disk.
    dir: Option<PathBuf>,
}

impl Book {
    /// A book that is not kept on disk.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self { shared: Arc::new(Shared { hints: Mutex::default(), dir: None }) }
    }

    /// Opens the book of a data directory. An unreadable file counts as an empty book.
    pub(crate) fn open(dir: &Path) -> Self {
        let hints = match fs::read(dir.join(FILE)) {
            Ok(bytes) => serde_json::from_slice::<Vec<Hint>>(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read the address book, starting with an empty one");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        let hints = hints.into_iter().map(|hint| (hint.node_id, hint)).collect();
        Self { shared: Arc::new(Shared { hints: Mutex::new(hints), dir: Some(dir.to_owned()) }) }
    }

    /// Stores a hint if it is newer than what is known. Returns whether it was stored.
    pub fn learn(&self, hint: Hint) -> bool {
        let mut hints = self.lock();
        if !is_newer(hints.get(&hint.node_id), &hint) {
            return false;
        }
        if hints.len() >= CAPACITY && !hints.contains_key(&hint.node_id) {
            tracing::warn!(node = node_hex(hint.node_id), "address book is full");
            return false;
        }
        tracing::debug!(node = node_hex(hint.node_id), address = %hint.address, "learned address");
        let node_id = hint.node_id;
        let before = hints.insert(node_id, hint);
        // A start that is not on disk must not count: after a restart this server might count
        // another one.
        if !self.save(&hints) {
            match before {
                Some(before) => hints.insert(node_id, before),
                None => hints.remove(&node_id),
            };
            return false;
        }
        true
    }

    /// Whether messages from and to this start of a server are accepted.
    pub fn counts(&self, node_id: NodeId, start: Start) -> bool {
        start.number != 0 && self.lock().get(&node_id).is_some_and(|hint| hint.start() == start)
    }

    /// The counted start of a server. Its number is zero if it is not known.
    pub fn counted_start(&self, node_id: NodeId) -> Start {
        self.lock().get(&node_id).map(Hint::start).unwrap_or_default()
    }

    pub fn address(&self, node_id: NodeId) -> Option<SocketAddr> {
        self.lock().get(&node_id).map(|hint| hint.address)
    }

    pub fn hint(&self, node_id: NodeId) -> Option<Hint> {
        self.lock().get(&node_id).cloned()
    }

    pub fn hints(&self) -> Vec<Hint> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Hint>> {
        self.shared.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the book to disk. Returns whether that succeeded.
    fn save(&self, hints: &BTreeMap<NodeId, Hint>) -> bool {
        let Some(dir) = &self.shared.dir else { return true };
        let hints: Vec<&Hint> = hints.values().collect();
        let kept = serde_json::to_vec_pretty(&hints)
            .map_err(std::io::Error::from)
            .and_then(|bytes| file::replace(dir, DRAFT, FILE, &bytes));
        if let Err(error) = kept {
            tracing::warn!(%error, "cannot keep the address book");
            return false;
        }
        true
    }
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.hints()).finish()
    }
}

/// Whether `told` is newer than what is known. Of two starts with one epoch the known one stays.
fn is_newer(known: Option<&Hint>, told: &Hint) -> bool {
    let usable =
        told.node_id != 0 && told.address.port() != 0 && !told.address.ip().is_unspecified();
    if !usable {
        return false;
    }
    match compare(known.map(Hint::start), told.start()) {
        StartOrder::Later => true,
        StartOrder::Counted => {
            known.is_some_and(|known| told.start != 0 && told.moves > known.moves)
        }
        StartOrder::Earlier | StartOrder::Copy | StartOrder::Implausible => false,
    }
}

#[cfg(test)]
mod tests;
