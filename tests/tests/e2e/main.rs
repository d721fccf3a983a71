//! The whole as its users run it: the built binary as processes and in containers, a real Envoy,
//! etcdctl, and a small application.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;
mod cli;
mod coming_back;
mod compose;
mod copies;
mod damage;
mod disco_down;
mod envoy;
mod failover;
mod grpc;
mod linearizable;
mod measure;
mod modes;
mod options;
mod process;
mod quorum;
mod register;
mod removal;
mod routing;
mod silence;
mod single;
mod stopping;
mod went_back;
