//! What a measurement comes to.

use std::{fmt, time::Duration};

/// Durations, in the order of their length.
#[derive(Debug)]
pub struct Durations(Vec<Duration>);

impl Durations {
    pub fn new(mut durations: Vec<Duration>) -> Self {
        assert!(!durations.is_empty(), "nothing was measured");
        durations.sort();
        Self(durations)
    }

    /// The smallest duration that is not exceeded by `percent` of all.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }
}

impl fmt::Display for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {} ms, p99 {} ms, longest {} ms, of {}",
            self.percentile(50).as_millis(),
            self.percentile(99).as_millis(),
            self.percentile(100).as_millis(),
            self.0.len()
        )
    }
}

/// What one process uses, as the kernel counts it.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_kib: u64,
}

/// Ticks per second of the times in /proc: a constant of the Linux ABI.
const TICKS: u64 = 100;

impl Usage {
    pub fn of(process: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
        // The second field is the program's name, in parentheses, and may hold spaces.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .expect("stat names the program");
        let ticks = |field: usize| fields[field].parse::<u64>().expect("a count of ticks");
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        let resident_kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse().ok())
            .expect("a process has resident memory");
        let cpu = Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS);
        Self { cpu, resident_kib }
    }
}
