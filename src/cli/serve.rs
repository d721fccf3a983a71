//! `quorate serve`: runs the services of one server.

mod check;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    config::Config,
    failure::Failure,
    machine::local_address_towards,
    server::{self, Announce},
    telemetry::TelemetryArgs,
    values::{Addresses, Losses, address, addresses, duration, losses, name},
};

/// Run a server: DISCO, a data node, or both.
#[derive(Args, Debug)]
#[command(long_about = "\
Run a server: DISCO, a data node, or both.

The services must be named; without them the server does not start. On its first start a server
says what it did: `NEW mesh <id>`, `JOINED mesh <id> as <node>`, or `REFUSED: …`.

Single mode, everything in one process, formed at once:
  quorate serve --services all --data-dir /var/lib/quorate

Three DISCO servers; the same command on each, then `quorate init` once:
  quorate serve --services disco --listen 10.0.0.1:7400 \\
    --peers 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400

Any number of data nodes, given only where DISCO is:
  quorate serve --services data --listen 0.0.0.0:7400 --kv-listen 0.0.0.0:2379 \\
    --disco 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400 --zone a

Three servers with all services, or data servers without DISCO: name each other with --peers, then
run `quorate init` once.

SIGTERM is a stop, not a leave: the server keeps its place in the mesh. A second signal ends it at
once.")]
pub(crate) struct ServeArgs {
    /// Services to run: disco, data, or all.
    #[arg(long, value_name = "SERVICE,…")]
    pub(crate) services: Option<String>,
    /// Where the server keeps its identity and its data; made at the first start.
    #[arg(long, value_name = "DIR", default_value = "quorate-data")]
    pub(crate) data_dir: PathBuf,
    /// Mesh port: xDS, registry, and Raft between servers.
    #[arg(long, value_name = "IP:PORT", value_parser = address, default_value = "127.0.0.1:7400")]
    pub(crate) listen: SocketAddr,
    /// Where others reach the mesh port; by default the listen address, or, when that is 0.0.0.0,
    /// the address from which the peers are reached.
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    pub(crate) advertise: Option<SocketAddr>,
    /// etcd v3 API, on data nodes.
    #[arg(long, value_name = "IP:PORT", value_parser = address, default_value = "127.0.0.1:2379")]
    pub(crate) kv_listen: SocketAddr,
    /// Where others reach the etcd v3 API.
    #[arg(long, value_name = "IP:PORT", value_parser = address)]
    pub(crate) kv_advertise: Option<SocketAddr>,
    /// Admin HTTP: /healthz, /ready, /metrics, /v1/status.
    #[arg(long, value_name = "IP:PORT", value_parser = address, default_value = "127.0.0.1:7401")]
    pub(crate) admin_listen: SocketAddr,
    /// The servers that form this one's group, as IP:PORT; may include this one.
    #[arg(long, value_name = "IP:PORT,…", value_parser = addresses, default_value = "", hide_default_value = true)]
    pub(crate) peers: Addresses,
    /// DISCO servers to join, as IP:PORT.
    #[arg(long, value_name = "IP:PORT,…", value_parser = addresses, default_value = "", hide_default_value = true)]
    pub(crate) disco: Addresses,
    /// Region that this server is in, told to clients for routing.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) region: Option<String>,
    /// Zone that this server is in.
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub(crate) zone: Option<String>,
    /// What people call this server; the host's name unless given. Not an identity.
    #[arg(long, value_parser = name)]
    pub(crate) name: Option<String>,
    /// Refuse to start in any mesh but this one.
    #[arg(long, value_name = "ID")]
    pub(crate) mesh: Option<String>,
    /// Start with a disk that was restored and knows less than was acknowledged, for good: the loss of
    /// what came after this entry of this namespace. Only as a refusal says, and only once.
    #[arg(long, value_name = "NAMESPACE@INDEX,…", value_parser = losses, default_value = "", hide_default_value = true)]
    pub(crate) accept_loss: Losses,
    /// How long a voter of a data group may be down before another node takes its seat.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    pub(crate) replace_after: Duration,
    /// How long instances are kept that fell silent together with many others.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2m")]
    pub(crate) latch_patience: Duration,
    /// How long a DISCO server may be without a quorum before it ends the xDS streams of clients that
    /// may find one elsewhere; 0s: never.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub(crate) stale_streams_after: Duration,
    /// How long a stop may take.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "8s")]
    pub(crate) shutdown_grace: Duration,
    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

impl ServeArgs {
    pub(crate) fn telemetry(&self) -> &TelemetryArgs {
        &self.telemetry
    }

    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let config = Config::check(&self, local_address_towards)?;
        server::run(config, Announce::FirstStart).await
    }
}
