//! What is measured, and how much of it: the flags, checked together.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, value_parser};

use super::{
    load::{Layout, Nodes},
    wire::Variant,
};
use crate::{
    failure::Failure,
    values::{Addresses, addresses, duration},
};

/// Measure any xDS v3 server with many clients.
#[derive(Args, Clone, Debug)]
#[command(long_about = "\
Measure any xDS v3 server with many clients, over ADS in plain HTTP/2.

The clients subscribe as Envoy does, to every cluster and then to their load assignments, and answer at
once. Told are how long their first sync takes and what it costs the server; then, for changes of one
endpoint at a time, how long until a client and until the last client has each, and what one costs.

A server of its own, with 1,000 services of 5 instances:
  quorate bench xds --self --clients 1000 --clusters 1000
  quorate bench xds --self --clients 1000 --clusters 1000 --variant sotw

The same for servers that run already; the services of the measurement are removed afterwards:
  quorate bench xds --registry 10.0.0.1:7400 --server 10.0.0.1:7400,10.0.0.2:7400 --clients 1000

Another control plane, which COMMAND changes each time; $BENCH_CHANGE counts from 1:
  quorate bench xds --server 127.0.0.1:18000 --pid 4711 --node-id test --change-command './change.sh'

Only 10 of 10,000 clients have what changes; 50,000 streams on 500 connections; 10,000 changes a second
of which each has 10 clients; 8,000 clients at once; what clients cost that get nothing:
  quorate bench xds --self --clients 10000 --clusters 1000 --subscribe 10 --interested 10
  quorate bench xds --self --clients 50000 --connections 500 --subscribe 1 --ramp 30s
  quorate bench xds --self --clients 1000 --clusters 1000 --subscribe 10 --rate 10000 --changes 300000
  quorate bench xds --self --clients 8000 --clusters 100 --changes 0
  quorate bench xds --self --clients 1000 --clusters 1000 --changes 0 --watch 30s

Exits with 0 if every client was served; 5 if some were lost or did not get everything in time, after
the figures; 4 if the server cannot be reached.")]
pub(crate) struct XdsArgs {
    /// Start a server to measure, on this machine, in a directory for temporary files (TMPDIR).
    #[arg(long = "self")]
    pub(super) own: bool,
    /// Registry of running DISCO servers, for services to measure and their changes.
    #[arg(long, value_name = "IP:PORT,…", value_parser = addresses, default_value = "", hide_default_value = true)]
    pub(super) registry: Addresses,
    /// Servers to measure; the clients are spread over them. With --registry the same by default.
    #[arg(long, value_name = "IP:PORT,…", value_parser = addresses, default_value = "", hide_default_value = true)]
    server: Addresses,
    /// Processes of these servers on this machine, whose CPU and memory is told.
    #[arg(long, value_name = "PID,…", value_delimiter = ',')]
    pub(super) pid: Vec<u32>,
    /// How the clients ask.
    #[arg(long, value_enum, default_value = "delta")]
    pub(super) variant: Variant,
    /// How many clients there are, each with a stream.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value = "100")]
    pub(super) clients: u32,
    /// On how many connections they are; each has its own unless given.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    connections: Option<u32>,
    /// Over how long they come; by default all at once.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub(super) ramp: Duration,
    /// Node id of every client, for servers that go by it; each has its own, bench-N, unless given.
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
    /// Node cluster of every client.
    #[arg(long, value_name = "NAME", default_value = "bench")]
    node_cluster: String,
    /// Services to register, with --self or --registry.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value = "100")]
    pub(super) clusters: u32,
    /// Instances of each.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value = "5")]
    pub(super) endpoints: u32,
    /// Name only so many clusters a client, spread evenly, as gRPC clients do; by default it gets all.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(super) subscribe: Option<u32>,
    /// Only so many of the clients have what changes; by default whoever the other flags give it to.
    #[arg(long, value_name = "N")]
    pub(super) interested: Option<u32>,
    /// How many changes are made.
    #[arg(long, value_name = "N", default_value = "20")]
    pub(super) changes: u32,
    /// How many clusters change, in turn; one by default, with --rate all.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    changing: Option<u32>,
    /// Make so many changes a second, whether or not the ones before have arrived. By default each
    /// waits for the one before.
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(super) rate: Option<u32>,
    /// How long to wait between two changes, without --rate.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "50ms")]
    pub(super) pause: Duration,
    /// What makes a change, for servers with another registry; run by `sh -c`.
    #[arg(long, value_name = "COMMAND")]
    pub(super) change_command: Option<String>,
    /// The load assignments that COMMAND changes; by default whatever comes counts as the change.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(super) change_names: Vec<String>,
    /// Between the first sync and the changes, only look on for so long.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    pub(super) watch: Duration,
    /// How long the first sync may take, and each change.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub(super) timeout: Duration,
}

impl XdsArgs {
    /// Checks the flags together.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let has_registry = self.has_registry();
        let commanded = self.change_command.is_some();
        let excluded = [
            (self.own && !self.registry.0.is_empty(), "--self and --registry"),
            (self.own && !self.server.0.is_empty(), "--self and --server"),
            (self.own && !self.pid.is_empty(), "--self and --pid"),
            (has_registry && commanded, "--self or --registry, and --change-command,"),
            (commanded && self.rate.is_some(), "--change-command and --rate"),
        ];
        let conflict = excluded.into_iter().find_map(|(given, flags)| given.then_some(flags));
        if let Some(flags) = conflict {
            return Err(Failure::usage(format!("{flags} exclude each other"))
                .hint("see `quorate bench xds -h`"));
        }
        if !has_registry && self.server.0.is_empty() {
            return Err(Failure::usage("nothing to measure is named")
                .hint("--self starts a server; --server or --registry name what runs already"));
        }
        if has_registry && self.interested.is_some() && self.changing() >= self.clusters {
            return Err(Failure::usage(
                "every cluster changes, so that all clients have some of them",
            )
            .hint("give fewer to --changing, or more to --clusters"));
        }
        if !has_registry && self.interested.is_some() && self.change_names.is_empty() {
            return Err(Failure::usage("--interested needs to know what changes")
                .hint("name the load assignments that COMMAND changes with --change-names"));
        }
        Ok(())
    }

    /// Whether the command has services of its own in a registry.
    pub(super) fn has_registry(&self) -> bool {
        self.own || !self.registry.0.is_empty()
    }

    /// Of the services of the command, how many change.
    pub(super) fn changing(&self) -> u32 {
        let unless_given = if self.rate.is_some() { self.clusters } else { 1 };
        self.changing.unwrap_or(unless_given).min(self.clusters)
    }

    /// How many changes there will be, if anything makes them.
    pub(super) fn changes_to_make(&self) -> u32 {
        let made = self.has_registry() || self.change_command.is_some();
        if made { self.changes } else { 0 }
    }

    pub(super) fn connections(&self) -> u32 {
        self.connections.unwrap_or(self.clients).min(self.clients)
    }

    /// The servers that clients go to, unless the command starts its own.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        let named = if self.server.0.is_empty() { &self.registry } else { &self.server };
        named.0.clone()
    }

    pub(super) fn layout(&self, servers: Vec<SocketAddr>) -> Layout {
        Layout { servers, connections: self.connections() as usize, ramp: self.ramp }
    }

    pub(super) fn nodes(&self) -> Nodes {
        Nodes { id: self.node_id.clone(), cluster: self.node_cluster.clone() }
    }
}
