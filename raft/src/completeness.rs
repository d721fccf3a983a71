//! Whether a replica's log may lead, and whether a leader's log may be followed.
//!
//! Raft promises leader completeness (Raft §5.4): whoever is elected holds every committed entry. The
//! promise counts on no voter forgetting what it stored. A quorum of disks that were restored from a
//! backup has forgotten; by its own light it elects a leader and serves the past. Two rules hold
//! against it, and neither needs anybody to know that a disk went back:
//!
//! - A replica does not stand for election while a member, or whoever remembers, knows of committed
//!   entries beyond the end of its log ([`shortfall`]).
//! - A replica does not follow a leader that would replace an entry which it knows to be committed
//!   ([`contradiction`]).
//!
//! Both are contradictions that no healthy group produces, whatever was lost in between.

use std::fmt;

use mesh::{NodeId, node_hex};

use crate::types::LogId;

/// What somebody knows to be committed in a group.
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
    /// Who was told of them: DISCO of a data group, a data node of the DISCO group.
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

/// What keeps a replica from its part although it runs, in words that say what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It does not stand for election.
    Incomplete(Shortfall),
    /// It does not follow the leader.
    Contradicted(Contradiction),
}

/// The claim that goes furthest beyond a log which ends at `last_index`, if one does.
///
/// `accepted` is an operator's word that what only memory knows of is lost. It does not stand against
/// a member that has the entries: that one can lead, and then nothing is lost.
pub(crate) fn shortfall(last_index: u64, accepted: bool, claims: &[Claim]) -> Option<Shortfall> {
    claims
        .iter()
        .filter(|claim| claim.committed > last_index)
        .filter(|claim| !accepted || claim.source != Source::Memory)
        .max_by_key(|claim| claim.committed)
        .map(|claim| Shortfall { last_index, claim: *claim })
}

/// Of a leader's message, the entry to compare with the log here: the last one at or below
/// `committed`. If that is equal then so are all before it (Raft §5.3, log matching).
pub(crate) fn compared<'a>(
    prev: Option<&'a LogId>,
    entries: impl DoubleEndedIterator<Item = &'a LogId>,
    committed: LogId,
) -> Option<LogId> {
    let mut known = entries.rev().chain(prev).filter(|id| id.index <= committed.index);
    known.next().copied()
}

/// Compares a leader's entry with the log here, of which `ours` is the entry at the same index if it
/// is still there.
pub(crate) fn contradiction(
    theirs: LogId,
    ours: Option<LogId>,
    committed: LogId,
) -> Option<Contradiction> {
    let differs = match ours {
        Some(ours) => ours != theirs,
        // Terms never fall along a log, so an entry of a later term cannot stand before this one.
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
