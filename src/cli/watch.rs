//! `--watch`: the same question again and again, for commands that list.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use clap::Args;
use tokio::time::sleep;

use crate::{
    failure::Failure,
    output::{self, Format},
    values::duration,
};

/// Clears a terminal and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Flags of the commands that list.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct WatchArgs {
    /// List again after each pause, until Ctrl-C; every 2s unless told otherwise.
    #[arg(long, value_name = "DURATION", value_parser = duration, num_args = 0..=1,
        require_equals = true, default_missing_value = "2s")]
    watch: Option<Duration>,
}

impl WatchArgs {
    /// Runs `list` once, or again and again. A failure is shown and passes, since what is watched
    /// may come back.
    pub(super) async fn run(
        self,
        format: Format,
        list: impl AsyncFn() -> Result<u8, Failure>,
    ) -> Result<u8, Failure> {
        let Some(pause) = self.watch else { return list().await };
        if pause.is_zero() {
            return Err(Failure::usage("--watch has no pause").hint("give it like --watch=2s"));
        }
        loop {
            if format == Format::Table && io::stdout().is_terminal() {
                output::part(CLEAR);
            }
            if let Err(failure) = list().await {
                output::failure(&failure, format);
            }
            sleep(pause).await;
        }
    }
}
