//! What a stream is told of snapshots, and what it wants to be told.

use crate::resource::{Name, ResourceType};
use crate::snapshot::Snapshot;

/// The latest snapshot, as one stream is told of it.
#[derive(Clone, Debug)]
pub struct Latest {
    pub snapshot: Snapshot,
    /// The snapshot before the first change that concerns the client and that the stream was not
    /// told of. None if there is no such change: the client wants nothing that has changed.
    pub since: Option<Snapshot>,
}

/// A change of what a client wants to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Name(ResourceType, Name),
    NoName(ResourceType, Name),
    /// Everything of a type that is in the wildcard.
    All(ResourceType),
    NotAll(ResourceType),
}

/// The way of a client from one snapshot to the next.
#[derive(Debug)]
pub(super) struct Between {
    /// The snapshot that the client is sent.
    pub(super) seen: Snapshot,
    /// The one that comes next, and the source of fresh types.
    pub(super) latest: Snapshot,
}

impl Between {
    pub(super) fn of(&self, kind: ResourceType) -> &Snapshot {
        if kind.is_fresh() { &self.latest } else { &self.seen }
    }

    pub(super) fn is_behind(&self) -> bool {
        self.seen.revision() != self.latest.revision()
    }
}
