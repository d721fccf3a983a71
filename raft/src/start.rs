//! Decides whether this server may take part in a group, with the disk that it has.
//!
//! The decision is made once per start and group, for the DISCO group and for data groups alike. It
//! is made before the replica starts, because a running replica votes. It compares three facts,
//! which disagree after a disk was lost, copied or restored, or if the server reaches another mesh:
//!
//! 1. [`Disk`]: what the data directory holds of the group, and whether it belongs to this mesh and
//!    node;
//! 2. [`Record`]: what DISCO has decided about the group; without DISCO, the formation;
//! 3. [`Membership`]: what the other members of the group say.
//!
//! The rules, from the strongest down:
//!
//! - A directory of another mesh or node takes no part in anything.
//! - A replica whose store is gone never votes again under the same id. Raft requires that every
//!   vote and every acknowledgment is remembered, and openraft cannot detect that one was
//!   forgotten.
//! - A replica whose disk was restored to an earlier state does not vote either: it has forgotten
//!   votes or entries.
//! - A replica that has its store resumes. DISCO alone cannot stop a voter: the group's own log
//!   decides who votes. No answer from others is required, so a group that restarts as a whole
//!   resumes.
//! - A blank replica forms the group only if DISCO's record, which never changes, names it as a
//!   first voter, and only while no server knows the group to be formed. Otherwise it waits for the
//!   leader.
//!
//! A first voter that was absent while the others formed the group is blank, is a voter in the
//! group's membership, and has never voted: it may join late. Two things distinguish it from a
//! voter that lost its store: the note in the data directory ([`Disk::Lost`]), and whether a leader
//! remembers its acknowledgments or a member its vote.
//!
//! A restored disk is detected by the starts that the mesh has counted ([`Disk::RolledBack`]), and
//! by what others remember of the replica ([`Disk::Reverted`]): a leader remembers the
//! acknowledgments that it received, for as long as it leads; every member remembers whom it last
//! voted for; DISCO remembers what leaders reported (`recall`). If no server that remembers is
//! reached, a restored disk is not detected here; then its replica does not lead (`completeness`).
//!
//! If most disks of a group were restored, refusing all of them would end the group. An operator
//! may accept the loss. Then such a replica counts as [`Disk::Holding`].

#[cfg(test)]
mod tests;

use std::fmt;

use thiserror::Error;

/// The part of a replica that Raft requires to be remembered, as it is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredReplica {
    /// The latest term that it voted in, or followed a leader of; zero if there is none.
    pub term: u64,
    /// The last entry, in the log or in the state; zero if there is none.
    pub last_index: u64,
    /// Whether it has neither a vote, nor an entry, nor a state.
    pub is_blank: bool,
}

/// What the data directory holds of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Nothing, and no server remembers that it ever held anything.
    Blank,
    /// Log, vote or state of the group.
    Holding,
    /// Nothing, although the directory notes, or a member remembers, that it held the group.
    Lost,
    /// Less than others remember: the disk was restored or copied.
    Reverted(LostProgress),
    /// The directory belongs to another mesh than the one that was reached.
    AnotherMesh,
    /// The mesh has seen a later start of this node: the disk was restored or copied.
    RolledBack,
}

/// Progress of a replica that others remember and its disk has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostProgress {
    /// The leader has its acknowledgment of entries beyond the last one on disk.
    Entries { acknowledged: u64, last_index: u64 },
    /// DISCO remembers its acknowledgment of committed entries beyond the last one on disk.
    Committed { acknowledged: u64, last_index: u64 },
    /// It voted in a later term than the one on disk, or followed the leader of a later term.
    Term { voted: u64, remembered: u64, last_index: u64 },
}

/// What DISCO's committed record of the group says about this node. Without DISCO, the formation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// There is no record: DISCO was not reached, and none is cached.
    Unknown,
    /// The record does not name this node.
    Absent,
    /// One of the first voters. `formed` if a leader of the group was ever reported.
    FirstVoter { formed: bool },
    /// Assigned a replica after the group was decided.
    Replica,
    /// The record names this node's id with another store.
    AnotherStore,
}

/// What the group's other members say about this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// None of them answered.
    Unknown,
    /// Some answered, and none of them knows of a membership yet.
    Unformed,
    /// The group is formed without this node.
    Outside,
    /// A voter. `acknowledged` if the leader remembers it to have stored entries.
    Voter { acknowledged: bool },
    /// A learner, likewise.
    Learner { acknowledged: bool },
}

/// What to do about the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Start the replica and initialize the group with the first voters of the record.
    Form,
    /// Start the replica from what it has.
    Resume,
    /// Start the replica blank, and wait for the leader to send the log.
    AwaitLeader,
    /// The group does not concern this node: start nothing, keep what is on disk.
    Leave,
    /// Start nothing, and say why.
    Refuse(StartRefusal),
}

/// Why a node may not take part, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StartRefusal {
    #[error(
        "the data directory belongs to another mesh; start with the directory of this mesh, or \
         with an empty one"
    )]
    AnotherMesh,
    #[error(
        "the mesh has seen a later start of this node: the disk was restored or copied; wipe the data \
         directory to come back as a new node, or, if this copy is kept and no other one ever runs \
         again: quorate reclaim"
    )]
    RolledBack,
    #[error(
        "{0}: the disk was restored or copied, and could vote twice or lose acknowledged writes; \
         start with an empty data directory to come back as a new server. If that leaves the group \
         without a quorum: --accept-loss NAMESPACE@{last} starts this disk as it is, and what only \
         disks like it held after entry {last} is lost",
        last = .0.last_index()
    )]
    Reverted(LostProgress),
    #[error(
        "the mesh knows this node with another store: the disk was swapped; put the right disk \
         back, or wipe the data directory to come back as a new node"
    )]
    AnotherStore,
    #[error(
        "this node held the group and its store has nothing of it: the votes and entries that it \
         acknowledged are lost, so it must not vote again under this node id; wipe the data \
         directory to come back as a new node"
    )]
    StoreLost,
}

impl fmt::Display for LostProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries { acknowledged, last_index } => write!(
                f,
                "the group's leader has this node's acknowledgment of entries up to \
                 {acknowledged}, and the last entry on its disk is {last_index}"
            ),
            Self::Committed { acknowledged, last_index } => write!(
                f,
                "DISCO remembers that this node acknowledged entries up to {acknowledged}, and the \
                 last entry on its disk is {last_index}"
            ),
            Self::Term { voted, remembered, last_index } => write!(
                f,
                "this node voted in term {voted} of the group, and its disk, with a last entry \
                 {last_index}, remembers term {remembered}"
            ),
        }
    }
}

impl LostProgress {
    /// The last entry on the restored disk.
    pub const fn last_index(&self) -> u64 {
        match self {
            Self::Entries { last_index, .. }
            | Self::Committed { last_index, .. }
            | Self::Term { last_index, .. } => *last_index,
        }
    }
}

/// Decides whether and how this node takes part in a group.
pub fn decide(disk: Disk, record: Record, membership: Membership) -> Start {
    match disk {
        Disk::AnotherMesh => Start::Refuse(StartRefusal::AnotherMesh),
        Disk::RolledBack => Start::Refuse(StartRefusal::RolledBack),
        Disk::Reverted(later) => Start::Refuse(StartRefusal::Reverted(later)),
        Disk::Blank | Disk::Holding | Disk::Lost if record == Record::AnotherStore => {
            Start::Refuse(StartRefusal::AnotherStore)
        }
        Disk::Lost => Start::Refuse(StartRefusal::StoreLost),
        Disk::Holding => resume(record, membership),
        Disk::Blank => start_blank(record, membership),
    }
}

fn resume(record: Record, membership: Membership) -> Start {
    // A replica is given up only if DISCO and the group agree. DISCO's registry may have been
    // restored, and a group without this node may still add it, if DISCO asks for it.
    if record == Record::Absent && membership == Membership::Outside {
        Start::Leave
    } else {
        Start::Resume
    }
}

fn start_blank(record: Record, membership: Membership) -> Start {
    let named = matches!(record, Record::FirstVoter { .. } | Record::Replica);
    match membership {
        Membership::Voter { acknowledged: true } | Membership::Learner { acknowledged: true } => {
            Start::Refuse(StartRefusal::StoreLost)
        }
        Membership::Voter { acknowledged: false } => match record {
            Record::FirstVoter { .. } => Start::AwaitLeader,
            // A voter that was not a first voter was promoted, and had a copy of the log then.
            Record::Unknown | Record::Absent | Record::Replica | Record::AnotherStore => {
                Start::Refuse(StartRefusal::StoreLost)
            }
        },
        Membership::Learner { acknowledged: false } => Start::AwaitLeader,
        Membership::Outside if named => Start::AwaitLeader,
        Membership::Outside => Start::Leave,
        Membership::Unknown | Membership::Unformed => match record {
            Record::FirstVoter { formed: false } => Start::Form,
            Record::FirstVoter { formed: true } | Record::Replica => Start::AwaitLeader,
            Record::Unknown | Record::Absent | Record::AnotherStore => Start::Leave,
        },
    }
}
