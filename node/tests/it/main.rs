//! Tests of the node's machines through what they offer to others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod disco;
mod kv;
mod kv_compared;
mod kv_etcd;
mod server;
mod session;
mod without_disco;
