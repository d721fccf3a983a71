//! Servers of this crate in one process, over real sockets and real stores.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod copies;
mod fleet;
mod forming;
mod groups;
mod history;
mod levels;
mod membership;
mod refusals;
mod restarts;
