//! What follows every command that the group has applied: the registry and the snapshot that others
//! read, and the leader's table of leases.

mod board;
mod leases;
mod machine;

pub(crate) use self::{
    board::{Board, Publisher},
    leases::{Leases, Renewed},
    machine::RegistryMachine,
};
