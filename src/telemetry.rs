//! What the process tells while it runs: tracing, on standard error.

use std::io::{self, IsTerminal, Write};

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

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

pub(crate) fn start(args: &TelemetryArgs) -> Result<(), Failure> {
    let filter = filter(&args.log)?;
    let colors = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lossy(io::stderr()))
        .log_internal_errors(false)
        .with_ansi(colors);
    match args.log_format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    Ok(())
}

/// A bare word that is no level would be a target that nothing has, and a server without a log.
fn filter(text: &str) -> Result<EnvFilter, Failure> {
    const HINT: &str =
        "use a level (error, warn, info, debug, trace, off) or targets, as in info,raft=debug";
    let refused =
        |why: String| Failure::usage(format!("--log: `{text}` is no filter: {why}")).hint(HINT);
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    for part in parts.iter().filter(|part| !part.contains(['=', '['])) {
        if !LEVELS.contains(&part.to_lowercase().as_str()) {
            return Err(refused(format!("`{part}` is no level")));
        }
    }
    EnvFilter::try_new(parts.join(",")).map_err(|error| refused(error.to_string()))
}

/// Standard error whose reader may go away, as when journald restarts: what nobody reads is lost,
/// and the server goes on.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Ok(()),
            flushed => flushed,
        }
    }
}

#[cfg(test)]
mod tests;
