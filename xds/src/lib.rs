//! The `disco` service: the shell around `discovery`.
//!
//! A [`Disco`] is a replica of the registry with three faces. To its Raft group it is a state
//! machine; to Envoys and gRPC clients an xDS server; to instances, data nodes and operators a
//! registry that can be asked and written.
//!
//! ```text
//!              RegistryMachine ──────► Board ──────► ADS streams    (snapshot)
//!  raft group ─►  apply, publish         │ └───────► sessions       (servers, nodes, groups)
//!       ▲                                └─────────► registry reads
//!       │
//!       └── Proposals ◄── registry writes, sessions, lease keeper, placer, own record
//! ```
//!
//! Every replica answers reads, sessions and the streams that it has from what it has applied, quorum
//! or not, and passes writes and renewals on to the leader. A client that brings resources along waits
//! until a quorum has confirmed that this server knows as much; without a quorum, clients are sent to
//! other servers (see `ads`). Only the leader counts leases and places
//! groups, and it acts on neither before a quorum has confirmed it. Nothing here decides what a record
//! means: the rules are in `discovery`, this crate moves bytes, waits, and reads the clock.

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
    ads::AdsServer,
    clients::RejectedResource,
    config::DiscoConfig,
    disco::{Disco, Figures},
    error::DiscoError,
    ready::Readiness,
};

/// Largest message taken or sent. A client that reconnects names every resource it has, which can
/// be more than gRPC's default of 4 MiB.
const MESSAGE_LIMIT: usize = 64 << 20;
