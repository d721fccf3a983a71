//! `quorate dev`: a whole mesh in one process, to try things on.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::serve::ServeArgs;
use crate::{
    config::Config,
    failure::Failure,
    machine::local_address_towards,
    server::{self, Announce},
    telemetry::TelemetryArgs,
    values::{Addresses, Losses, address},
};

/// Run everything in one process on loopback, and print what to try next.
#[derive(Args, Debug)]
#[command(long_about = "\
Run everything in one process on loopback, and print what to try next.

It is `quorate serve --services all` with its data in ./quorate-dev, which may be deleted when the
process has stopped.

  quorate dev
  quorate dev --data-dir /tmp/try --kv-listen 127.0.0.1:12379")]
pub(crate) struct DevArgs {
    /// Where the data is kept.
    #[arg(long, value_name = "DIR", default_value = "quorate-dev")]
    data_dir: PathBuf,
    /// Mesh port.
    #[arg(long, value_name = "IP:PORT", value_parser = address, default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// etcd v3 API.
    #[arg(long, value_name = "IP:PORT", value_parser = address, default_value = "127.0.0.1:2379")]
    kv_listen: SocketAddr,
    /// Admin HTTP.
    #[arg(long, value_name = "IP:PORT", value_parser = address, default_value = "127.0.0.1:7401")]
    admin_listen: SocketAddr,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

impl DevArgs {
    pub(crate) fn telemetry(&self) -> &TelemetryArgs {
        &self.telemetry
    }

    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let args = ServeArgs {
            services: Some("all".to_owned()),
            data_dir: self.data_dir,
            listen: self.listen,
            advertise: None,
            kv_listen: self.kv_listen,
            kv_advertise: None,
            admin_listen: self.admin_listen,
            peers: Addresses::default(),
            disco: Addresses::default(),
            region: None,
            zone: None,
            name: Some("dev".to_owned()),
            mesh: None,
            accept_loss: Losses::default(),
            replace_after: Duration::from_secs(600),
            latch_patience: Duration::from_secs(120),
            stale_streams_after: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(8),
            telemetry: self.telemetry,
        };
        let config = Config::check(&args, local_address_towards)?;
        server::run(config, Announce::Guide).await
    }
}
