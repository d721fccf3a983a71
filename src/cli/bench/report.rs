//! The figures: for people in two columns, for programs in JSON with the units in the names.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::{
    bare_writes,
    board::{Losses, Traffic},
    changes::Made,
    ledger::Outcome,
    usage::Usage,
};

mod table;
#[cfg(test)]
mod tests;

pub(super) use self::table::table;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) variant: &'static str,
    pub(super) servers: Vec<String>,
    pub(super) clients: u32,
    pub(super) connections: u32,
    /// With endpoints by EDS, at the server.
    pub(super) clusters: u32,
    pub(super) registration: Option<Registration>,
    pub(super) first_sync: FirstSync,
    pub(super) watch: Option<Watch>,
    pub(super) changes: Option<Changes>,
    pub(super) lost: Lost,
    pub(super) bare_writes: Option<BareWrites>,
}

#[derive(Debug, Serialize)]
pub(super) struct Registration {
    pub(super) services: u32,
    pub(super) instances: u32,
    pub(super) took_ms: f64,
    pub(super) server_cpu_ms: Option<f64>,
}

/// From the first connection to the last client that has everything.
#[derive(Debug, Serialize)]
pub(super) struct FirstSync {
    pub(super) synced: u32,
    pub(super) took_ms: f64,
    pub(super) client_ms: Spread,
    pub(super) responses: u64,
    pub(super) bytes_a_client: u64,
    pub(super) server_cpu_ms: Option<f64>,
    /// What the server's memory grew by.
    pub(super) server_kib_a_client: Option<f64>,
    pub(super) server_resident_kib: Option<u64>,
    pub(super) bench_cpu_ms: f64,
}

/// What happened while nothing was asked for.
#[derive(Debug, Serialize)]
pub(super) struct Watch {
    pub(super) took_ms: f64,
    pub(super) responses: u64,
    pub(super) bytes: u64,
    pub(super) server_cpu_ms: Option<f64>,
    /// Of one core.
    pub(super) server_cpu_percent: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Changes {
    pub(super) made: u32,
    pub(super) failed: u32,
    pub(super) first_failure: Option<String>,
    /// Changes that did not reach everybody in time.
    pub(super) incomplete: u32,
    pub(super) made_a_second: f64,
    /// Of each change, until the last client had it.
    pub(super) to_last_client_ms: Spread,
    /// Of each change and client.
    pub(super) to_a_client_ms: Spread,
    /// Changes that clients were told of, overtaken ones included.
    pub(super) arrivals: usize,
    pub(super) responses: u64,
    pub(super) bytes_a_client_and_change: f64,
    pub(super) server_cpu_ms_a_change: Option<f64>,
    /// Of one core.
    pub(super) server_cpu_percent: Option<f64>,
    pub(super) bench_cpu_ms_a_change: f64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Lost {
    pub(super) streams: u32,
    pub(super) connections: u32,
    /// Clients that were there, and had not got everything in time.
    pub(super) late: u32,
    pub(super) reasons: BTreeMap<String, u32>,
}

/// What as many writes of the size of a change cost without a server.
#[derive(Debug, Serialize)]
pub(super) struct BareWrites {
    pub(super) writes: usize,
    pub(super) bytes_a_write: usize,
    pub(super) took_ms: f64,
    pub(super) cpu_ms: f64,
}

/// How durations are spread; all of them are zero if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    pub(super) fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let at = |percent: usize| {
            // The smallest that is not exceeded by so many percent of all.
            let rank = (durations.len() * percent).div_ceil(100).max(1);
            durations.get(rank - 1).copied().map(millis).unwrap_or_default()
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// A phase of the measurement, from its begin to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) took: Duration,
    pub(super) traffic: Traffic,
    /// Of the server, before and after; none if its process is not known.
    pub(super) server: Option<(Usage, Usage)>,
    pub(super) bench_cpu: Duration,
}

impl Phase {
    pub(super) fn server_cpu(&self) -> Option<Duration> {
        self.server.map(|(before, after)| after.cpu.saturating_sub(before.cpu))
    }

    fn server_cpu_ms(&self) -> Option<f64> {
        self.server_cpu().map(millis)
    }

    fn server_cpu_percent(&self) -> Option<f64> {
        let took = self.took.as_secs_f64();
        let cpu = self.server_cpu()?.as_secs_f64();
        (took > 0.0).then(|| rounded(cpu / took * 100.0))
    }
}

impl FirstSync {
    pub(super) fn of(phase: &Phase, syncs: Vec<Duration>, clients: u32) -> Self {
        let grown = phase.server.map(|(before, after)| {
            after.resident_kib.saturating_sub(before.resident_kib) as f64 / f64::from(clients)
        });
        Self {
            synced: u32::try_from(syncs.len()).unwrap_or(u32::MAX),
            took_ms: syncs.iter().max().copied().map(millis).unwrap_or_default(),
            client_ms: Spread::of(syncs),
            responses: phase.traffic.responses,
            bytes_a_client: phase.traffic.bytes / u64::from(clients),
            server_cpu_ms: phase.server_cpu_ms(),
            server_kib_a_client: grown.map(rounded),
            server_resident_kib: phase.server.map(|(_, after)| after.resident_kib),
            bench_cpu_ms: millis(phase.bench_cpu),
        }
    }
}

impl Watch {
    pub(super) fn of(phase: &Phase) -> Self {
        Self {
            took_ms: millis(phase.took),
            responses: phase.traffic.responses,
            bytes: phase.traffic.bytes,
            server_cpu_ms: phase.server_cpu_ms(),
            server_cpu_percent: phase.server_cpu_percent(),
        }
    }
}

impl Changes {
    pub(super) fn of(phase: &Phase, made: Made, outcome: Outcome) -> Self {
        let a_change = |total: f64| rounded(total / f64::from(made.made.max(1)));
        let arrivals = outcome.arrivals.len();
        Self {
            made_a_second: rounded(f64::from(made.made) / made.took.as_secs_f64().max(1e-9)),
            to_last_client_ms: Spread::of(outcome.to_last),
            to_a_client_ms: Spread::of(outcome.arrivals),
            incomplete: outcome.incomplete,
            arrivals,
            responses: phase.traffic.responses,
            bytes_a_client_and_change: rounded(phase.traffic.bytes as f64 / arrivals.max(1) as f64),
            server_cpu_ms_a_change: phase.server_cpu_ms().map(a_change),
            server_cpu_percent: phase.server_cpu_percent(),
            bench_cpu_ms_a_change: a_change(millis(phase.bench_cpu)),
            made: made.made,
            failed: made.failed,
            first_failure: made.first_failure,
        }
    }
}

impl Lost {
    pub(super) fn of(losses: Losses, late: u32) -> Self {
        let Losses { streams, connections, reasons } = losses;
        Self { streams, connections, late, reasons }
    }
}

impl BareWrites {
    pub(super) fn of(bytes_a_write: usize, cost: bare_writes::Cost) -> Self {
        Self {
            writes: bare_writes::WRITES,
            bytes_a_write,
            took_ms: millis(cost.took),
            cpu_ms: millis(cost.cpu),
        }
    }
}

impl Report {
    /// Whether every client was served with everything.
    pub(super) fn is_whole(&self) -> bool {
        let changes = self.changes.as_ref();
        let missed = changes.is_some_and(|it| it.failed > 0 || it.incomplete > 0);
        self.lost.streams == 0 && self.lost.connections == 0 && self.lost.late == 0 && !missed
    }
}

pub(super) fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1_000.0)
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
