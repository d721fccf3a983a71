//! May this server take part in this group, with this disk?
//!
//! Asked once per group, of the DISCO group as of data groups, before the group's replica is started,
//! since a replica votes from the moment it runs. The answer compares three facts that can disagree (a lost disk, a copied disk, a
//! restored disk, a server wired to another mesh):
//!
//! 1. [`Disk`]: what the data directory holds of the group, and whether it is ours at all;
//! 2. [`Record`]: what DISCO decided about the group, or the formation where there is no DISCO;
//! 3. [`Membership`]: what the group itself says, as its other members tell.
//!
//! The rules, from the strongest down:
//!
//! - A directory that is not ours takes no part in anything.
//! - A replica whose store is gone never votes again under the same id. Raft counts on every vote
//!   and every acknowledgment being remembered, and openraft cannot detect that one was not.
//! - Nor does a replica whose store went back: it has forgotten votes or entries that count.
//! - A replica that has its store goes on. No word of DISCO's stops a voter: the group's own log is
//!   the authority on who votes. Nobody has to answer: a group that restarts as a whole goes on.
//! - A blank replica forms the group only as one of the first voters in DISCO's latched record, and
//!   only while nobody knows the group to be formed. Otherwise it waits for the leader.
//!
//! A first voter that was absent while the others formed the group is blank, is a voter by the
//! group's own membership, and has never voted: it may come late. What tells it from one that lost
//! its store is the note in the data directory ([`Disk::Lost`]) and whether a leader remembers it
//! to have acknowledged entries, or a member its vote.
//!
//! That a store went back is known by the starts that the mesh has counted ([`Disk::RolledBack`]),
//! and by what others remember of the replica ([`Disk::Reverted`]): the leader what it has
//! acknowledged, for as long as it leads; every member whom its own last vote was for; and DISCO what
//! leaders reported (`recall`). A copy that starts where nobody remembers is not told from the disk it
//! was made of; then it does not lead (`completeness`).
//!
//! Where most disks of a group went back, refusing them all would end the group. An operator may
//! accept the loss, and then such a replica goes on as [`Disk::Holding`].

#[cfg(test)]
mod tests;

use std::fmt;

use thiserror::Error;

/// The part of a replica that Raft counts on being remembered, as it is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredReplica {
    /// The latest term that it voted in, or followed a leader of; zero if there is none.
    pub term: u64,
    /// The last entry, in the log or in the state; zero if there is none.
    pub last_index: u64,
    /// Whether it has a vote, an entry or a state at all.
    pub is_blank: bool,
}

/// What the data directory holds of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Nothing, and nobody knows of it ever having held any.
    Blank,
    /// Log, vote or state of the group.
    Holding,
    /// Nothing, although the directory notes, or a member knows, that it held the group.
    Lost,
    /// Less than others know it to have held: the disk was restored or copied.
    Reverted(LostProgress),
    /// The directory belongs to another mesh than the one that was reached.
    AnotherMesh,
    /// The mesh has seen a later start of this node than this one: the disk was restored or copied.
    RolledBack,
}

/// What others know of a replica that the replica's disk does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostProgress {
    /// The leader has its acknowledgment of entries up to a later one than the last one here.
    Entries { acknowledged: u64, last_index: u64 },
    /// DISCO remembers that it acknowledged committed entries up to a later one.
    Committed { acknowledged: u64, last_index: u64 },
    /// It voted in a later term than it remembers here, or followed that term's leader.
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
    /// Not this node's business: start nothing, keep what is there.
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
    /// The last entry on the disk that went back.
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
    // Only both together end a stay: DISCO's word alone may be that of a restored registry, and a
    // membership without us may be followed by the leader adding us, if DISCO still asks for it.
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
            // A voter that was not among the first was promoted, and only with a copy of the log.
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
