//! What the process tells while it runs: tracing, on standard error.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;

#[derive(Args, Debug)]
pub(crate) struct TelemetryArgs {
    /// What to log: a level, or targets with levels, as in info,raft=debug.
    #[arg(long, value_name = "FILTER", default_value = "info,openraft=error")]
    log: String,
    /// How to log.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    #[default]
    Text,
    Json,
}

pub(crate) fn start(args: &TelemetryArgs) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&args.log).map_err(|error| {
        Failure::usage(format!("--log: `{}` is no filter: {error}", args.log))
            .hint("use a level (error, warn, info, debug, trace) or targets, as in info,raft=debug")
    })?;
    let colors = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colors);
    match args.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}
