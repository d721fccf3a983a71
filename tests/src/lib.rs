//! Starts the real parts of a mesh for the end-to-end tests: the built binary as processes, Envoy,
//! etcdctl and containers, and ends them with the test that started them.
//!
//! Everything that is awaited has a deadline, and everything that goes wrong panics with what was
//! awaited; while a test panics, each [`Process`] shows the end of its output. Every server gets a
//! loopback address of its own, so that a restart with another address is a real one and no two
//! tests meet.

pub mod address;
pub mod ads;
pub mod app;
pub mod cli;
pub mod compose;
pub mod disk;
pub mod envoy;
pub mod etcd;
pub mod history;
pub mod http;
pub mod kv;
pub mod mesh;
pub mod process;
pub mod recorder;
pub mod registry;
pub mod server;
pub mod sidecar;
pub mod stats;
pub mod wait;

pub use mesh::Mesh;
pub use process::Process;
pub use server::Server;
pub use wait::{eventually, eventually_some};
