//! `/metrics` in Prometheus' text format: the process, its Raft groups, and whether it is ready.

use std::{
    fmt::{self, Write},
    fs,
    time::UNIX_EPOCH,
};

use raft::{Group, Role};
use xds::{Figures, RejectedResource};

use super::Server;
use crate::{listener::Limit, open_files::Limits};

#[cfg(test)]
mod tests;

/// Linux counts process time in hundredths of a second on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Rejected resources that are shown by name. How many there are is counted beside them.
const REJECTED_SHOWN: usize = 100;

pub(super) fn render(server: &Server, ready: bool) -> String {
    let mut text = Text::default();
    text.gauge("quorate_build_info", "Version of this binary.");
    text.sample("quorate_build_info", &[("version", env!("QUORATE_VERSION"))], 1);
    text.gauge("quorate_ready", "Whether this server can do its work.");
    text.sample("quorate_ready", &[], u8::from(ready));
    process(&mut text);
    connections(&mut text, &server.limits);
    let started = server.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    text.gauge("process_start_time_seconds", "When the process started, in Unix time.");
    text.sample("process_start_time_seconds", &[], started.as_secs_f64());
    let groups = server.host.groups();
    raft(&mut text, &groups);
    if let Some(disco) = &server.disco {
        let figures = disco.figures();
        discovery(&mut text, figures);
        clients(&mut text, figures, &disco.rejected_resources(REJECTED_SHOWN));
    }
    text.0
}

fn process(text: &mut Text) {
    if let Some(usage) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(usage) {
        text.counter("process_cpu_seconds_total", "Time on a processor.");
        text.sample("process_cpu_seconds_total", &[], usage.cpu_seconds);
        text.gauge("process_threads", "Threads.");
        text.sample("process_threads", &[], usage.threads);
    }
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident)
    {
        text.gauge("process_resident_memory_bytes", "Memory in use.");
        text.sample("process_resident_memory_bytes", &[], bytes);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        text.gauge("process_open_fds", "Open files and sockets.");
        text.sample("process_open_fds", &[], files.count());
    }
}

fn connections(text: &mut Text, limits: &Limits) {
    type Value = fn(&Limit) -> u64;
    let values: [(&str, &str, Value); 2] = [
        ("quorate_connections", "Open connections of the port.", |limit| limit.open() as u64),
        ("quorate_connections_limit", "Connections that it may have.", |limit| limit.most() as u64),
    ];
    let ports = [("mesh", &limits.mesh), ("kv", &limits.kv), ("admin", &limits.admin)];
    for (name, help, value) in values {
        text.gauge(name, help);
        for (port, limit) in ports {
            text.sample(name, &[("port", port)], value(limit));
        }
    }
    let name = "quorate_connections_turned_away_total";
    text.counter(name, "Callers that came when all connections of the port were open.");
    for (port, limit) in ports {
        text.sample(name, &[("port", port)], limit.turned_away());
    }
}

fn raft(text: &mut Text, groups: &[Group]) {
    type Value = fn(&raft::Status) -> u64;
    let values: [(&str, &str, Value); 6] = [
        ("quorate_raft_is_leader", "Whether this server leads the group.", |status| {
            u64::from(status.role == Role::Leader)
        }),
        (
            "quorate_raft_has_leader",
            "Whether this server knows a leader of the group with a quorum behind it.",
            |status| u64::from(status.is_led()),
        ),
        ("quorate_raft_term", "Term of the group.", |status| status.term),
        ("quorate_raft_last_index", "Last index in the log.", |status| status.last_index),
        ("quorate_raft_committed_index", "Last committed index.", |status| status.committed),
        ("quorate_raft_applied_index", "Last applied index.", |status| status.applied),
    ];
    for (name, help, value) in values {
        text.gauge(name, help);
        for group in groups {
            text.sample(name, &[("namespace", group.namespace())], value(&group.status()));
        }
    }
    text.gauge(
        "quorate_raft_quorum_age_seconds",
        "Time since a majority was last known to stand behind a leader, or since the start.",
    );
    for group in groups {
        let age = group.status().without_quorum.as_secs_f64();
        let labels = [("namespace", group.namespace())];
        text.sample("quorate_raft_quorum_age_seconds", &labels, age);
    }
    text.gauge("quorate_raft_member_lag", "Entries that a member has not acknowledged to us.");
    for group in groups {
        for member in group.status().members {
            if let Some(lag) = member.lag {
                let node = crate::output::node_id(member.node_id);
                let labels = [("namespace", group.namespace()), ("node", &node)];
                text.sample("quorate_raft_member_lag", &labels, lag);
            }
        }
    }
}

fn discovery(text: &mut Text, figures: Figures) {
    let Figures { streams, revision, services, instances, healthy, silent, held_leases, .. } =
        figures;
    let values: [(&str, &str, u64); 7] = [
        ("quorate_disco_revision", "Log index that the registry is at.", revision),
        ("quorate_disco_services", "Services ever registered.", wide(services)),
        ("quorate_disco_instances", "Instances of all services.", wide(instances)),
        ("quorate_disco_instances_healthy", "Instances that are healthy.", wide(healthy)),
        (
            "quorate_disco_instances_silent",
            "Instances whose owners are silent, kept as a last resort.",
            wide(silent),
        ),
        ("quorate_disco_streams", "Open xDS streams and node sessions.", wide(streams)),
        (
            "quorate_disco_leases_held",
            "Leases kept although nobody renews them, since too many fell silent at once.",
            wide(held_leases),
        ),
    ];
    for (name, help, value) in values {
        text.gauge(name, help);
        text.sample(name, &[], value);
    }
}

/// The clients of xDS: how they answer, and what they do not take.
fn clients(text: &mut Text, figures: Figures, rejected: &[RejectedResource]) {
    let values: [(&str, &str, f64); 4] = [
        ("quorate_xds_streams", "Open xDS streams.", count(figures.xds_streams)),
        (
            "quorate_xds_streams_unanswered",
            "xDS streams whose client has not answered a response for ten seconds.",
            count(figures.xds_unanswered),
        ),
        (
            "quorate_xds_oldest_unanswered_seconds",
            "How long the response has waited that a client has left unanswered the longest.",
            figures.xds_oldest_unanswered.as_secs_f64(),
        ),
        (
            "quorate_xds_resources_rejected",
            "Resources that clients do not take, counted for each client.",
            count(figures.xds_rejected),
        ),
    ];
    for (name, help, value) in values {
        text.gauge(name, help);
        text.sample(name, &[], value);
    }
    text.counter("quorate_xds_rejections_total", "Responses that clients have rejected.");
    text.sample("quorate_xds_rejections_total", &[], figures.xds_rejections);
    text.gauge("quorate_xds_resource_rejected", "A resource that a client does not take.");
    for RejectedResource { client, kind, name, reason } in rejected {
        let kind = kind.to_string();
        let labels =
            [("client", &**client), ("type", &*kind), ("resource", &**name), ("reason", &**reason)];
        text.sample("quorate_xds_resource_rejected", &labels, 1);
    }
}

fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).unwrap_or(u32::MAX))
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    threads: u64,
}

/// proc(5), `/proc/PID/stat`: the fields after the command's name, which may hold anything.
fn usage(stat: &str) -> Option<Usage> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |position: usize| fields.get(position)?.parse::<f64>().ok();
    let cpu_seconds = (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
    Some(Usage { cpu_seconds, threads: fields.get(17)?.parse().ok()? })
}

/// proc(5), `/proc/PID/status`: VmRSS, in KiB.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Lines of the exposition format.
#[derive(Default)]
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str) {
        self.head(name, help, "gauge");
    }

    fn counter(&mut self, name: &str, help: &str) {
        self.head(name, help, "counter");
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to a string cannot fail");
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
