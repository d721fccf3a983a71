//! `quorate bench`: what a server does for many clients, measured from outside.
//!
//! The clients share the machine with the server, as a rule, so they do as little as an xDS client can:
//! see [`wire`] for what they read, [`client`] for what they answer, [`connection`] for how they are
//! woken. What they tell is counted on the [`board`]; [`measure`] goes through the phases.

mod bare_writes;
mod board;
mod changes;
mod client;
mod connection;
mod interest;
mod ledger;
mod load;
mod measure;
mod options;
mod own_server;
mod progress;
mod registrar;
mod report;
mod scout;
mod under_test;
mod usage;
mod wire;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::options::XdsArgs;
use crate::{
    failure::{Code, Failure},
    output::{self, Format},
};

/// Measure a server under load.
#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    Xds(Box<XdsArgs>),
}

impl BenchArgs {
    pub(super) async fn run(self, format: Format) -> Result<u8, Failure> {
        match self.command {
            BenchCommand::Xds(args) => xds(&args, format).await,
        }
    }
}

async fn xds(args: &XdsArgs, format: Format) -> Result<u8, Failure> {
    args.check()?;
    let report = tokio::select! {
        report = measure::run(args) => report?,
        // What was started ends with the command, which a signal alone would not see to.
        stopped = stop_asked() => return Err(stopped),
    };
    match format {
        Format::Table => output::line(&report::table(&report)),
        Format::Json => {
            let text = serde_json::to_string(&report)
                .map_err(|error| Failure::other("cannot write the figures", &error))?;
            output::line(&text);
        }
    }
    Ok(if report.is_whole() { 0 } else { Code::Unhealthy as u8 })
}

/// Awaits Ctrl-C or SIGTERM.
async fn stop_asked() -> Failure {
    let watched = signal(SignalKind::interrupt()).and_then(|interrupt| {
        let terminate = signal(SignalKind::terminate())?;
        Ok((interrupt, terminate))
    });
    match watched {
        Ok((mut interrupt, mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            Failure::new(Code::Other, "stopped before everything was measured")
        }
        Err(error) => Failure::other("cannot watch signals", &error),
    }
}
