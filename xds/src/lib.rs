//! The `disco` service: the shell around `discovery`.
//!
//! A [`Disco`] is a replica of the registry with three roles. It is the state machine of its Raft
//! group, an xDS server for Envoys and gRPC clients, and a registry that instances, data nodes and
//! operators read and write.
//!
//! ```text
//!              RegistryMachine ──────► Board ──────► ADS streams    (snapshot)
//!  raft group ─►  apply, publish         │ └───────► sessions       (servers, nodes, groups)
//!       ▲                                └─────────► registry reads
//!       │
//!       └── Proposals ◄── registry writes, sessions, lease keeper, placer, own record
//! ```
//!
//! Every replica answers reads, sessions and open streams from what it has applied, with or without
//! a quorum, and passes writes and renewals on to the leader. A client that already holds resources
//! is served once a quorum has confirmed that this server knows everything; without a quorum,
//! clients are sent to other servers (see `ads`). Only the leader counts leases and places groups,
//! and a quorum must confirm it before it ends a lease or places a group. Nothing here decides what
//! a record means: the rules are in `discovery`, and this crate moves bytes, waits, and reads the
//! clock.

mod ads;
mod clients;
mod config;
mod disco;
mod error;
mod leader;
mod publish;
mod ready;
mod registry;
mod shared;

pub use discovery::registry::{MAX_TTL, MIN_TTL, name};

pub use self::{
    clients::RejectedResource,
    config::{DiscoConfig, StreamDeadlines},
    disco::{Disco, Figures},
    error::DiscoError,
    ready::Readiness,
};

/// The largest message received or sent. A client that reconnects names every resource it has,
/// which can be more than gRPC's default of 4 MiB.
const MESSAGE_LIMIT: usize = 64 << 20;
