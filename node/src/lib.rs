//! The `data` service: replicated key-value groups that speak the etcd v3 API.
//!
//! ```text
//!   DISCO ◄──reports── session ──orders──► data ──start──► one raft::Group per namespace
//!                                           │  ▲                 ▲        ▲
//!                            groups.json ◄──┘  └── start matrix  │        │ commands, reads
//!                                                                │        │
//!                                       reconcile (on leaders) ──┘   etcd ◄── clients
//! ```
//!
//! [`data`] runs the service: it learns which groups to host, from DISCO by way of [`session`], from
//! the formation where there is no DISCO, or from what its disk remembers; asks [`raft::start`] whether
//! and how this disk may take part; and hosts the groups. `reconcile` keeps each group's
//! membership as advised, on its leader. [`kv`] is what a group replicates, [`etcd`] how clients
//! reach it, [`namespaces`] which groups are here.
//!
//! The rules are pure: `kv`, and the decisions of `reconcile` and `session`.

pub mod data;
pub mod etcd;
pub mod kv;
pub mod namespaces;
mod reconcile;
pub mod session;

pub use crate::data::{Data, DataConfig, DataError, Ready};

/// An error with its causes, for tracing and for gRPC messages: `Display` leaves the causes out.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
