//! What is published after every batch of applied commands: the registry and the snapshot for
//! readers, and the changes to the leader's table of leases.

mod audience;
mod board;
mod leases;
mod levels;
mod machine;

pub(crate) use self::{
    audience::Seat,
    board::{Board, Publisher},
    leases::{Leases, Renewed},
    levels::CONFIGURED,
    machine::RegistryMachine,
};
