//! What a DISCO server is configured with.

use std::time::Duration;

/// The configuration of a DISCO server.
#[derive(Clone, Debug)]
pub struct DiscoConfig {
    /// A label for people.
    pub name: String,
    pub region: String,
    pub zone: String,
    pub version: String,
    /// How many voters a data group should have, and how many nodes must be up before its first
    /// voters are decided.
    pub data_voters_wanted: usize,
    /// Whether the server forms a mesh by itself, if it belongs to none.
    pub single: bool,
    /// How long a lease is kept whose owner fell silent together with many others.
    pub latch_patience: Duration,
    /// How long the server may be without a quorum before it ends streams of discovery whose
    /// clients may find a quorum at another server. Zero: it never ends them for that.
    pub stale_streams_after: Duration,
    /// How long a client of discovery may keep its stream waiting.
    pub stream_deadlines: StreamDeadlines,
}

/// How long a client of discovery may keep its stream waiting. After that the stream is ended, and
/// the client gets the latest state when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamDeadlines {
    /// How long the client may take to read a response. By default long enough for the largest
    /// response on a slow line.
    pub read: Duration,
    /// How long the client may leave a response unanswered that holds back others. After that the
    /// stream is of no use. By default much longer than an Envoy with thousands of clusters takes.
    pub answer: Duration,
}

impl Default for StreamDeadlines {
    fn default() -> Self {
        Self { read: Duration::from_secs(30), answer: Duration::from_secs(5 * 60) }
    }
}
