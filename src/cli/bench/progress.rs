//! What the command is doing, on standard error: one line that changes on a terminal, and a line now
//! and then in a log.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use crate::output;

/// How often a log is told.
const LOG_EVERY: Duration = Duration::from_secs(5);

/// Back to the begin of the line, and clear it.
const AGAIN: &str = "\r\x1b[K";

#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    told: Instant,
    /// Whether a line stands on the terminal that is not ended.
    open: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), told: Instant::now(), open: false }
    }

    /// Tells how far something is.
    pub(super) fn show(&mut self, text: &str) {
        if self.terminal {
            output::progress_part(&format!("{AGAIN}{text}"));
            self.open = true;
        } else if self.told.elapsed() >= LOG_EVERY {
            self.told = Instant::now();
            output::progress(text);
        }
    }

    /// Tells what has begun or ended; it stays.
    pub(super) fn tell(&mut self, text: &str) {
        self.clear();
        self.told = Instant::now();
        output::progress(text);
    }

    /// Leaves nothing half written, for what comes next.
    pub(super) fn clear(&mut self) {
        if self.open {
            output::progress_part(AGAIN);
            self.open = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
