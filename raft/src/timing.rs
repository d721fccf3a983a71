//! How fast groups beat and elect, and how much log they keep.

use std::time::Duration;

use mesh::GroupId;
use openraft::{Config, SnapshotPolicy};

/// Entries sent in one message at most; bytes are bounded where they are read.
const ENTRIES_PER_MESSAGE: u64 = 1024;

/// The clocks of every group of a server, and the length of its logs. Equal on all servers.
///
/// A leader is missed after `election_max`, the lease that every follower grants it, and another
/// one stands after a further random time between `election_min` and `election_max`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader tells that it is there.
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// Entries after which the state is flushed and the log before it may go.
    pub snapshot_entries: u64,
    /// Bytes of commands after which the same happens.
    pub snapshot_bytes: u64,
    /// Entries kept before that point, so that a member that was briefly away needs no Raft
    /// snapshot.
    pub log_kept: u64,
}

impl Timing {
    /// For servers on one network of machines, disks included: a synced write may stall for
    /// hundreds of milliseconds without costing a leader its place.
    pub fn production() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(600),
            election_max: Duration::from_millis(1200),
            snapshot_entries: 20_000,
            snapshot_bytes: 64 << 20,
            log_kept: 10_000,
        }
    }

    /// For servers within one process or machine, as in tests.
    pub fn quick() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            ..Self::production()
        }
    }

    pub(crate) fn raft_config(&self, group: GroupId) -> Config {
        let election_max = millis(self.election_max);
        Config {
            cluster_name: format!("group-{group}"),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: election_max,
            enable_pre_vote: Some(true),
            // The least that openraft allows: the lease of a lost leader and one election.
            quorum_loss_probe_interval: Some(2 * election_max),
            // A restarted leader is elected like everybody else.
            enable_leader_restore: Some(false),
            // A follower whose log went back is refused at its own start. If one runs all the same,
            // it is sent what it lacks: what a follower reports must not end its leader.
            allow_log_reversion: Some(true),
            // Reported by our own rule, after a flush.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.log_kept,
            purge_batch_size: (self.log_kept / 10).max(1),
            max_payload_entries: ENTRIES_PER_MESSAGE,
            ..Config::default()
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
