//! The figures as people read them.

use super::{Changes, FirstSync, Report, Spread, Watch};

/// Where the second column begins.
const WIDTH: usize = 24;

/// Reasons that are shown; the first of them are the most frequent.
const REASONS: usize = 3;

/// One line a figure: what, and how much.
pub(in super::super) fn table(report: &Report) -> String {
    let mut lines = Lines::default();
    let Report { variant, clients, connections, clusters, .. } = report;
    lines.add("server", report.servers.join(","));
    let load = format!("{clients} clients ({variant}) on {connections} connections");
    lines.add("load", format!("{load}, {clusters} clusters"));
    if let Some(it) = &report.registration {
        let what = format!("{} services, {} instances", it.services, it.instances);
        let cpu = it.server_cpu_ms.map(|cpu| format!(", {cpu:.0} ms of the server's CPU"));
        lines.add(
            "registered",
            format!("{what} in {:.0} ms{}", it.took_ms, cpu.unwrap_or_default()),
        );
    }
    first_sync(&report.first_sync, &mut lines);
    if let Some(it) = &report.watch {
        watch(it, &mut lines);
    }
    if let Some(it) = &report.changes {
        changes(it, &mut lines);
    }
    lost(report, &mut lines);
    if let Some(it) = &report.bare_writes {
        let what = format!("{} of {} bytes", it.writes, it.bytes_a_write);
        lines.add(
            "bare writes",
            format!("{what}: {:.1} ms, {:.1} ms of CPU", it.took_ms, it.cpu_ms),
        );
    }
    lines.0.join("\n")
}

#[derive(Debug, Default)]
struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, what: &str, figure: String) {
        self.0.push(format!("{what:WIDTH$}{figure}"));
    }

    fn add_known(&mut self, what: &str, figure: Option<f64>, unit: &str) {
        if let Some(figure) = figure {
            self.add(what, format!("{figure:.1} {unit}"));
        }
    }
}

fn first_sync(it: &FirstSync, lines: &mut Lines) {
    let took = format!("{} clients in {:.0} ms", it.synced, it.took_ms);
    lines.add("first sync", format!("{took}; {} bytes a client", it.bytes_a_client));
    lines.add("  to a client", spread(&it.client_ms));
    lines.add_known("  server CPU", it.server_cpu_ms, "ms");
    lines.add_known("  server memory", it.server_kib_a_client, "KiB a client");
    lines.add("  clients' CPU", format!("{:.0} ms", it.bench_cpu_ms));
}

fn watch(it: &Watch, lines: &mut Lines) {
    let came = format!("{} responses, {} bytes", it.responses, it.bytes);
    lines.add("watched", format!("{:.0} s: {came}", it.took_ms / 1_000.0));
    lines.add_known("  server CPU", it.server_cpu_percent, "% of a core");
}

fn changes(it: &Changes, lines: &mut Lines) {
    let made = format!("{} made, {:.1} a second", it.made, it.made_a_second);
    lines.add("changes", format!("{made}; {} did not reach all in time", it.incomplete));
    if let Some(reason) = &it.first_failure {
        lines.add("  failed", format!("{}, the first: {reason}", it.failed));
    }
    lines.add("  to the last client", spread(&it.to_last_client_ms));
    lines.add("  to a client", format!("{}, of {}", spread(&it.to_a_client_ms), it.arrivals));
    lines.add("  bytes", format!("{:.0} a client and change", it.bytes_a_client_and_change));
    if let (Some(cpu), Some(percent)) = (it.server_cpu_ms_a_change, it.server_cpu_percent) {
        lines.add("  server CPU", format!("{cpu:.2} ms a change, {percent:.1} % of a core"));
    }
    lines.add("  clients' CPU", format!("{:.2} ms a change", it.bench_cpu_ms_a_change));
}

fn lost(report: &Report, lines: &mut Lines) {
    let it = &report.lost;
    let counted = format!("{} streams, {} connections", it.streams, it.connections);
    lines.add("lost", format!("{counted}; {} clients not synced in time", it.late));
    let mut reasons: Vec<_> = it.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (reason, count) in reasons.into_iter().take(REASONS) {
        lines.add("  why", format!("{count} × {reason}"));
    }
}

fn spread(it: &Spread) -> String {
    format!("p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", it.p50, it.p99, it.max)
}
