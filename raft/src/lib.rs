//! Replicated groups: openraft on RocksDB, generic over a state machine.
//!
//! A server opens its data directory ([`identity::DataDir`]), then a [`Host`] on it. The host keeps
//! the addresses of other servers ([`book::Book`]), answers the gRPC services `Raft` and `Mesh`, and
//! runs any number of [`Group`]s over one connection per peer and one log-writer thread. A group
//! applies committed commands to a [`StateMachine`], whose rows live in RocksDB.
//!
//! ```text
//!  Group::write ─► openraft ─► LogStore ─► log-writer thread ─► raft/  (RocksDB, WAL on)
//!                     │            ▲ entries of every group, votes: one queue, one synced write
//!                     ▼            │
//!                  Network ─────► peers (one HTTP/2 connection each)
//!                     │
//!                     ▼ committed
//!                   State ─► rows + applied log id in one batch ─► data/ (RocksDB, WAL off)
//! ```
//!
//! The order is everywhere: persist, publish, answer. Membership holds ids, never addresses; an id
//! is resolved at every dial. This is the only crate that names openraft or rocksdb.

pub mod book;
mod codec;
mod db;
pub mod dial;
mod envelope;
mod formation;
mod group;
mod hello;
pub mod host;
pub mod identity;
mod ids;
mod log_store;
mod mesh_service;
mod network;
mod peers;
mod raft_service;
pub mod rows;
mod state;
#[cfg(test)]
mod testing;
mod types;
mod view;

pub use crate::{
    book::{Book, Hint},
    group::{
        Applied, ChangeError, Group, InitializeError, MemberStatus, ReadError, Role, Status,
        WriteError,
    },
    host::{
        AdoptError, FormAloneError, Host, HostConfig, HostError, MeshMismatch, OpenError,
        StartGroupError, StoredReplica, Timing,
    },
    identity::{Claim, DataDir, DataDirError, Identity},
    ids::{GroupId, Member, MeshId, NodeId, node_hex},
    rows::{EntryMeta, MemoryRows, StateMachine, StorageError},
    view::View,
};
