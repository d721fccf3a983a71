//! A registration with its tasks, until the instance ends: by a signal, with its program, or
//! because a task has failed.
//!
//! However it ends, the same follows: no check speaks any more, the program is stopped, and the
//! instance is deregistered. DISCO's part in that has one deadline, since whoever asked this
//! process to stop will not wait for a DISCO that is away.

use std::time::Duration;

use proto::quorate::v1::Health;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    health_check::Check,
    program::{Program, Signals},
    registration::{Condition, Registration},
};
use crate::failure::{Code, Failure};

#[cfg(test)]
mod tests;

/// How long DISCO's answers may take while the instance ends, all together. Time to drain comes on
/// top, if it is of use.
const ANSWERS: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Keeping {
    health: watch::Sender<Condition>,
    told: watch::Receiver<Option<Health>>,
    shutdown: CancellationToken,
    checks: JoinSet<()>,
    keeper: JoinSet<(Registration, Result<(), Failure>)>,
    /// What the keeper has left, if it ended before it was asked to.
    left: Option<Registration>,
}

/// Why an instance ends.
enum End {
    Signal,
    Program(Result<u8, Failure>),
    Task(Failure),
}

impl Keeping {
    /// Keeps the instance registered, with the health `first` until a check says otherwise.
    pub(super) fn start(
        mut registration: Registration,
        first: Condition,
        check: Option<(Check, Duration)>,
    ) -> Self {
        let (health, health_rx) = watch::channel(first);
        let (told_tx, told) = watch::channel(registration.told());
        let shutdown = CancellationToken::new();
        let mut checks = JoinSet::new();
        if let (Some((check, every)), Some(address)) = (check, registration.address()) {
            checks.spawn(check.watch(address, every, health.clone()));
        }
        let mut keeper = JoinSet::new();
        let until = shutdown.clone();
        keeper.spawn(async move {
            let outcome = registration.keep(health_rx, told_tx, until).await;
            (registration, outcome)
        });
        Self { health, told, shutdown, checks, keeper, left: None }
    }

    /// Returns the exit code: the program's own, if there is one.
    pub(super) async fn until_the_end(
        mut self,
        mut program: Option<Program>,
        mut signals: Signals,
        drain: Duration,
    ) -> Result<u8, Failure> {
        let end = self.first_end(&mut program, &mut signals).await;
        self.end(end, program, signals, drain).await
    }

    async fn end(
        mut self,
        end: End,
        mut program: Option<Program>,
        mut signals: Signals,
        drain: Duration,
    ) -> Result<u8, Failure> {
        let mut deadline = Instant::now() + ANSWERS;
        // A check under way would otherwise have the last word, after `draining`.
        self.checks.shutdown().await;
        let outcome = match end {
            End::Signal => {
                deadline += self.drain(&mut signals, drain).await;
                Ok(0)
            }
            End::Program(outcome) => {
                program = None;
                outcome
            }
            End::Task(failure) => Err(failure),
        };
        let stopped = async {
            match program {
                Some(program) => program.stop(&mut signals).await.map(Some),
                None => Ok(None),
            }
        };
        // At once: a program may take its time to end, and nothing is sent to it any more.
        let (stopped, _) = tokio::join!(stopped, timeout_at(deadline, self.deregister()));
        let code = outcome?;
        Ok(stopped?.unwrap_or(code))
    }

    /// Passes signals on until there is a reason to end.
    async fn first_end(&mut self, program: &mut Option<Program>, signals: &mut Signals) -> End {
        loop {
            tokio::select! {
                signal = signals.next() => match &*program {
                    Some(program) if !signal.asks_to_stop() => program.forward(signal),
                    _ => return End::Signal,
                },
                code = Program::ended(program) => return End::Program(code),
                Some(ended) = self.keeper.join_next() => {
                    return End::Task(self.keeper_ended(ended));
                }
                Some(ended) = self.checks.join_next() => {
                    return End::Task(ended_early("the health check", ended.err()));
                }
            }
        }
    }

    fn keeper_ended(
        &mut self,
        ended: Result<(Registration, Result<(), Failure>), JoinError>,
    ) -> Failure {
        let what = "the task that keeps the instance registered";
        match ended {
            Ok((registration, outcome)) => {
                self.left = Some(registration);
                outcome.err().unwrap_or_else(|| ended_early(what, None))
            }
            Err(error) => ended_early(what, Some(error)),
        }
    }

    /// Sets the instance to draining, and gives the proxies time to follow. Another signal cuts
    /// this short, and so does a DISCO that does not answer: the proxies would not hear of it.
    ///
    /// Returns the time that was to be given.
    async fn drain(&mut self, signals: &mut Signals, drain: Duration) -> Duration {
        if self.told.borrow().is_none() {
            tracing::info!("not registered, so there is nothing to drain");
            return Duration::ZERO;
        }
        tracing::info!(?drain, "draining");
        self.health.send_replace(Condition::new(Health::Draining, ""));
        let drained = async {
            // Not held any more, there is nothing to drain.
            let told = self.told.wait_for(|told| told.is_none_or(|it| it == Health::Draining));
            let told = timeout(ANSWERS / 2, told).await.map(|told| told.map(|told| *told));
            if let Ok(Ok(told)) = told {
                let given = told.map_or(Duration::ZERO, |_| drain);
                sleep(given).await;
                given
            } else {
                tracing::warn!("DISCO does not answer; stopping without time to drain");
                Duration::ZERO
            }
        };
        tokio::select! {
            given = drained => given,
            _ = signals.next() => drain,
        }
    }

    /// Ends the keeper, and with it the instance's registration.
    async fn deregister(&mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.keeper.join_next().await {
            self.left = ended.ok().map(|(registration, _)| registration);
        }
        if let Some(registration) = &self.left {
            registration.deregister().await;
        }
    }
}

fn ended_early(what: &str, error: Option<JoinError>) -> Failure {
    match error {
        Some(error) => Failure::other(&format!("{what} failed"), &error),
        None => Failure::new(Code::Other, format!("{what} ended too early")),
    }
}
