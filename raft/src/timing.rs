//! The heartbeat and election times of groups, and how much log they keep.

use std::time::Duration;

use mesh::GroupId;
use openraft::{Config, SnapshotPolicy};
use proto::millis;

/// Most entries in one message. Their bytes are bounded where they are read.
const ENTRIES_PER_MESSAGE: u64 = 1024;

/// The times of every group of a server, and the length of its logs. Equal on all servers.
///
/// A follower misses its leader after `election_max`, the lease that it grants the leader. It
/// stands for election after a further random time between `election_min` and `election_max`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Time between two heartbeats of a leader.
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// Entries after which the state is flushed and the log before it may be purged.
    pub snapshot_entries: u64,
    /// Bytes of commands after which the same happens.
    pub snapshot_bytes: u64,
    /// Entries kept before the purge point, so that a member that was briefly away needs no Raft
    /// snapshot.
    pub log_kept: u64,
}

impl Timing {
    /// For servers on separate machines with their own disks: a synced write may stall for hundreds
    /// of milliseconds without an election.
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
            // The least value that openraft allows: the lease of a lost leader and one election.
            quorum_loss_probe_interval: Some(2 * election_max),
            // A restarted leader must be elected like any other voter.
            enable_leader_restore: Some(false),
            // A replica whose log lost entries is refused at its own start. If one runs
            // nevertheless, the leader sends it what it lacks: a follower's report must not end its
            // leader.
            allow_log_reversion: Some(true),
            // Snapshots are triggered by `report_snapshots`.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.log_kept,
            purge_batch_size: (self.log_kept / 10).max(1),
            max_payload_entries: ENTRIES_PER_MESSAGE,
            ..Config::default()
        }
    }
}
