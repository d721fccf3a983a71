//! The `quorate` binary: the only place that reads flags, environment and files, and the only one
//! that knows every shell.

mod cli;
mod config;
mod failure;
mod listener;
mod machine;
mod open_files;
mod output;
mod server;
mod telemetry;
mod values;

use std::{ffi::OsString, process::ExitCode, time::Duration};

use crate::{
    cli::{Invocation, Run},
    failure::{Code, Failure},
};

/// Decision 23 has the figures.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long blocking work may hold up the end of the process.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let format = cli::format_of(&arguments, &environment);
    let outcome = match cli::parse(&arguments, &environment) {
        Ok(Invocation::Run(run)) => execute(*run),
        Ok(Invocation::Tell(text)) => {
            output::line(text.trim_end());
            Ok(0)
        }
        Ok(Invocation::Teach(text)) => {
            output::progress(text.trim_end());
            Ok(Code::Usage as u8)
        }
        Err(failure) => Err((failure, format)),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err((failure, format)) => {
            output::failure(&failure, format);
            ExitCode::from(failure.code as u8)
        }
    }
}

fn execute(run: Run) -> Result<u8, (Failure, output::Format)> {
    let format = run.format();
    if let Some(args) = run.telemetry() {
        telemetry::start(args).map_err(|failure| (failure, format))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| (Failure::other("cannot start the runtime", &error), format))?;
    let outcome = runtime.block_on(run.run());
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    outcome.map_err(|failure| (failure, format))
}
