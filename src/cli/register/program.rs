//! The program that `quorate register` runs as its instance, and the signals meant for it.

use std::{ffi::OsString, io, os::unix::process::ExitStatusExt, process::Stdio};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
};

use crate::failure::{Code, Failure};

#[cfg(test)]
mod tests;

/// What shells add to a signal's number when it ended a program.
const ENDED_BY_SIGNAL: i32 = 128;

/// A running program with everything that it has started: its process group. None of it outlives
/// this value.
pub(super) struct Program {
    child: Child,
    group: Pid,
}

impl Program {
    /// Starts the program in a process group of its own, so that a Ctrl-C on the terminal reaches
    /// this process only, which drains before it stops the program.
    pub(super) fn start(command: &[OsString]) -> Result<Self, Failure> {
        let Some((name, arguments)) = command.split_first() else {
            return Err(Failure::usage("no program is given"));
        };
        let child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| {
                Failure::usage(format!("cannot run {}: {error}", name.to_string_lossy()))
                    .hint("give the path of a program after `--`")
            })?;
        // A child that was not awaited has its id, and that is its group's too.
        let group = child.id().and_then(|id| i32::try_from(id).ok());
        let group = group.ok_or_else(|| Failure::new(Code::Other, "the program has no id"))?;
        Ok(Self { child, group: Pid::from_raw(group) })
    }

    pub(super) fn forward(&self, signal: Received) {
        self.send(signal.0);
    }

    /// Asks the program to stop and waits for it. Another signal ends it at once. What it leaves
    /// behind is ended with it.
    pub(super) async fn stop(mut self, signals: &mut Signals) -> Result<u8, Failure> {
        self.send(Signal::SIGTERM);
        loop {
            tokio::select! {
                status = self.child.wait() => return exit_code(status),
                signal = signals.next() => {
                    self.send(if signal.asks_to_stop() { Signal::SIGKILL } else { signal.0 });
                }
            }
        }
    }

    /// Completes with the exit code when the program ends, and never without a program.
    pub(super) async fn ended(program: &mut Option<Self>) -> Result<u8, Failure> {
        match program {
            Some(program) => exit_code(program.child.wait().await),
            None => std::future::pending().await,
        }
    }

    fn send(&self, signal: Signal) {
        match killpg(self.group, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(%signal, %error, "cannot signal the program"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.send(Signal::SIGKILL);
    }
}

fn exit_code(status: io::Result<std::process::ExitStatus>) -> Result<u8, Failure> {
    let status = status.map_err(|error| Failure::other("cannot wait for the program", &error))?;
    let code = status.code().or_else(|| status.signal().map(|it| ENDED_BY_SIGNAL + it));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// A signal that this process was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received(Signal);

impl Received {
    pub(super) fn asks_to_stop(self) -> bool {
        matches!(self.0, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT)
    }
}

/// The signals that end an instance, and those that are passed on to a program.
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    pub(super) fn install(has_program: bool) -> io::Result<Self> {
        let mut kinds = vec![Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];
        if has_program {
            kinds.extend([Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2]);
        }
        Self::watch(&kinds)
    }

    pub(super) fn watch(signals: &[Signal]) -> io::Result<Self> {
        let watch = |signal| Ok((signal, unix::signal(SignalKind::from_raw(signal as i32))?));
        signals.iter().copied().map(watch).collect::<io::Result<_>>().map(Self)
    }

    pub(super) async fn next(&mut self) -> Received {
        let waiting = self.0.iter_mut().map(|(signal, received)| {
            let signal = *signal;
            Box::pin(async move {
                received.recv().await;
                Received(signal)
            })
        });
        futures::future::select_all(waiting).await.0
    }
}
