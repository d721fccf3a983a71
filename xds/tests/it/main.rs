//! The disco service over real sockets and disks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ads;
mod harness;
mod mesh;
mod registry;
mod session;
mod silence;
