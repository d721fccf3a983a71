//! The servers of a mesh: their identities, and how to reach them.
//!
//! A server opens its data directory ([`identity::DataDir`]) and, with it, its [`Mesh`]. The mesh
//! keeps the addresses of other servers ([`Book`]), exchanges them by Hello messages, forms or
//! adopts a mesh id, answers the gRPC service `Mesh`, and holds the connections to other servers
//! ([`Peers`]). Every message between servers carries an envelope, which is checked here
//! ([`envelope`]).
//!
//! An id belongs to one data directory. An address is only a hint: it is looked up by id at every
//! dial.

mod book;
pub mod dial;
pub mod envelope;
pub mod file;
mod formation;
mod forming;
pub mod hangup;
mod hello;
pub mod identity;
mod ids;
mod mesh_service;
mod part;
mod peers;
mod place;
mod probe;
mod proof;
mod rumors;
mod starts;

pub use crate::{
    book::{Book, Hint},
    forming::{AdoptError, FormAloneError, MeshMismatch},
    hello::Overtaken,
    identity::{ClaimedDir, DataDir, DataDirError, DirLock, Identity},
    ids::{DISCO_GROUP, GroupId, Member, MeshId, NodeId, ParseMeshIdError, node_hex},
    part::{Mesh, MeshConfig},
    peers::{MESSAGE_BYTES, Peers, channel_to, surely_not_begun},
    starts::Start,
};
