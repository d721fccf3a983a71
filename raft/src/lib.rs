//! Replicated groups: openraft on RocksDB, generic over a state machine.
//!
//! A server opens its [`mesh::Mesh`], then a [`Host`] in its data directory. The host answers the
//! gRPC service `Raft` and runs any number of [`Group`]s over one connection per peer and one
//! log-writer thread. A group applies committed commands to a [`StateMachine`], whose rows live in
//! RocksDB.
//!
//! ```text
//!  Group::write ─► openraft ─► LogStore ─► log-writer thread ─► raft/  (RocksDB, WAL on)
//!                     │            ▲ entries of every group, votes: one queue, one synced write
//!                     ▼            │
//!                  Network ─────► peers (one HTTP/2 connection each)
//!                     │
//!                     ▼ committed
//!                   GroupState ─► rows + applied log id in one batch ─► data/ (RocksDB, WAL off)
//! ```
//!
//! The order is always: persist, publish, answer. Membership holds ids, never addresses; an id is
//! resolved at every dial. This is the only crate that names openraft or rocksdb.

mod check;
mod codec;
mod completeness;
mod completeness_guard;
mod damage;
mod db;
mod group;
mod host;
mod hosted;
mod level;
mod log_store;
mod network;
#[cfg(test)]
mod power_cuts;
mod quorum;
mod raft_service;
mod reach;
mod read_view;
mod recall;
pub mod rows;
pub mod start;
mod state;
#[cfg(test)]
mod testing;
mod timing;
mod types;

pub use crate::{
    check::{Checked, OpenError, Reason, check},
    completeness::{Contradiction, Doubt, Shortfall},
    group::{
        Applied, CAUGHT_UP_LAG, ChangeError, Group, InitializeError, MemberStatus, ReadError, Role,
        Status, WriteError,
    },
    host::{Host, HostError, StartGroupError},
    level::Commands,
    quorum::{NoQuorum, Quorum, VoterContact, VoterHeard},
    read_view::ReadView,
    rows::{EntryMeta, MemoryRows, StateMachine, StorageError},
    start::StoredReplica,
    timing::Timing,
};
