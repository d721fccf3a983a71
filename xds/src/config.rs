//! What a DISCO server is configured with.

use std::time::Duration;

/// How a DISCO server is to be.
#[derive(Clone, Debug)]
pub struct DiscoConfig {
    /// What people call the server.
    pub name: String,
    pub region: String,
    pub zone: String,
    pub version: String,
    /// Voters that a data group should have, and the number of nodes that its decision waits for.
    pub data_voters_wanted: usize,
    /// Whether the server forms a mesh alone, if it belongs to none.
    pub single: bool,
    /// How long an owner that fell silent together with many others is waited for.
    pub latch_patience: Duration,
    /// How long the server may be without a quorum before streams of discovery are ended whose
    /// clients may find one elsewhere. Zero: they are never ended for that.
    pub stale_streams_after: Duration,
}
