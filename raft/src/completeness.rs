//! Whether a replica's log may lead, and whether a leader's log may be followed.
//!
//! Raft guarantees leader completeness (Raft §5.4): an elected leader holds every committed entry.
//! The guarantee assumes that no voter forgets what it stored. A quorum of disks that were restored
//! from a backup has forgotten entries; it would elect a leader and serve old data. Two rules
//! prevent this. Neither needs to know which disk was restored:
//!
//! - A replica does not stand for election while another server knows of committed entries beyond
//!   the end of its log ([`shortfall`]).
//! - A replica does not follow a leader that would replace an entry that the replica knows to be
//!   committed ([`contradiction`]).
//!
//! In a group that keeps Raft's rules neither case occurs, whatever messages were lost.

use std::fmt;

use mesh::{NodeId, node_hex};

use crate::types::LogId;

/// The committed index of a group as another server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) source: Source,
    pub(crate) committed: u64,
}

/// Who makes a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A member of the group that runs and has the entries.
    Member(NodeId),
    /// A server that only remembers the index: DISCO for a data group, a data node for the DISCO
    /// group.
    Memory,
}

/// Why a replica does not stand for election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    last_index: u64,
    claim: Claim,
}

/// A leader's entry that differs from the committed one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contradiction {
    theirs: LogId,
    /// The last entry that is known to be committed here.
    committed: LogId,
}

/// Why a running replica does not lead or does not follow. The text says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It does not stand for election.
    Incomplete(Shortfall),
    /// It does not follow the leader.
    Contradicted(Contradiction),
}

/// The highest claim beyond a log that ends at `last_index`, if there is one.
///
/// `accepted` says that an operator accepts the loss of entries that are only remembered. It does
/// not cover entries that a member has: that member can lead, and then nothing is lost.
pub(crate) fn shortfall(last_index: u64, accepted: bool, claims: &[Claim]) -> Option<Shortfall> {
    claims
        .iter()
        .filter(|claim| claim.committed > last_index)
        .filter(|claim| !accepted || claim.source != Source::Memory)
        .max_by_key(|claim| claim.committed)
        .map(|claim| Shortfall { last_index, claim: *claim })
}

/// The entry of a leader's message to compare with the log here: the last one at or below
/// `committed`. If it is equal, all entries before it are equal (Raft §5.3, log matching).
pub(crate) fn compared<'a>(
    prev: Option<&'a LogId>,
    entries: impl DoubleEndedIterator<Item = &'a LogId>,
    committed: LogId,
) -> Option<LogId> {
    let mut known = entries.rev().chain(prev).filter(|id| id.index <= committed.index);
    known.next().copied()
}

/// Compares a leader's entry with `ours`, the entry at the same index in the log here. `ours` is
/// none if that entry was purged.
pub(crate) fn contradiction(
    theirs: LogId,
    ours: Option<LogId>,
    committed: LogId,
) -> Option<Contradiction> {
    let differs = match ours {
        Some(ours) => ours != theirs,
        // Terms never decrease along a log, so an entry before the committed one cannot have a
        // later term.
        None => theirs.leader_id.term > committed.leader_id.term,
    };
    differs.then_some(Contradiction { theirs, committed })
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { last_index, claim: Claim { source, committed } } = self;
        match source {
            Source::Member(id) => write!(
                f,
                "does not stand for election: member {} has acknowledged entries up to {committed}, \
                 and the last one here is {last_index}; that member can lead once enough others \
                 run, and then nothing is lost",
                node_hex(*id)
            ),
            Source::Memory => write!(
                f,
                "does not stand for election: the mesh remembers acknowledged entries up to \
                 {committed}, and the last one here is {last_index}, so the disks of most replicas \
                 went back; start a replica whose disk has them, or lose what came after with \
                 --accept-loss NAMESPACE@{last_index}"
            ),
        }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "does not follow the leader: its entry {theirs} would replace one that was acknowledged \
             and is on this disk, up to entry {committed}. The disks of the other replicas went \
             back: keep this server and stop those, or start it with an empty data directory to \
             follow them",
            theirs = self.theirs.index,
            committed = self.committed.index
        )
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Incomplete(shortfall) => shortfall.fmt(f),
            Self::Contradicted(contradiction) => contradiction.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
