//! Makes the changes: each after the one before has arrived, or so many a second.

use std::{process::Stdio, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    process::Command,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use super::{board::Board, progress::Progress, registrar::Registrar};
use crate::failure::{Code, Failure, chain};

/// Which change it is, for the command that makes it.
const NUMBER: &str = "BENCH_CHANGE";

/// Changes under way at once: what takes a registry 25 ms can be done 10,000 times a second.
const MOST_WORKERS: u32 = 256;

/// How often it is looked whether the last of many changes have arrived, and progress is told.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Who makes the changes.
#[derive(Debug)]
pub(super) enum Source {
    Registry(Box<Registrar>),
    Command(String),
}

/// When they are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// A second; without it each waits for the one before.
    pub(super) rate: Option<u32>,
    pub(super) pause: Duration,
    /// How long one may take to arrive everywhere.
    pub(super) timeout: Duration,
}

/// How it went, at the source.
#[derive(Debug, Default)]
pub(super) struct Made {
    pub(super) made: u32,
    pub(super) failed: u32,
    pub(super) first_failure: Option<String>,
    /// From the first to the last of them.
    pub(super) took: Duration,
}

impl Made {
    fn note(&mut self, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => self.made += 1,
            Err(failure) => {
                self.failed += 1;
                self.first_failure.get_or_insert(failure.message);
            }
        }
    }
}

impl Source {
    async fn make(&self, change: u32, board: &Board, stamp: u32) -> Result<(), Failure> {
        match self {
            Self::Registry(registrar) => {
                registrar.change(change % board.ledger.names(), stamp).await
            }
            Self::Command(command) => run(command, change + 1).await,
        }
    }
}

/// Makes all changes that the board has room for.
pub(super) async fn make(
    source: &Source,
    pace: Pace,
    board: &Board,
    progress: &mut Progress,
) -> Made {
    match pace.rate {
        None => one_by_one(source, pace, board, progress).await,
        Some(rate) => paced(source, rate, pace, board, progress).await,
    }
}

async fn one_by_one(source: &Source, pace: Pace, board: &Board, progress: &mut Progress) -> Made {
    let (begun, mut made) = (Instant::now(), Made::default());
    let all = board.ledger.changes();
    for change in 0..all {
        progress.show(&format!("change {} of {all}", change + 1));
        let deadline = Instant::now() + pace.timeout;
        let stamp = board.ledger.begin(change, board.now());
        let outcome = timeout_at(deadline, source.make(change, board, stamp)).await;
        let is_made = matches!(outcome, Ok(Ok(())));
        made.note(outcome.unwrap_or_else(|_| Err(too_slow(pace.timeout))));
        if is_made {
            board.until(deadline, |board| board.ledger.reached(change), |_| {}).await;
        }
        sleep(pace.pause).await;
    }
    made.took = begun.elapsed();
    made
}

/// A change counts from the moment at which it is due, so that a slow registry shows.
async fn paced(
    source: &Source,
    rate: u32,
    pace: Pace,
    board: &Board,
    progress: &mut Progress,
) -> Made {
    let begun = Instant::now();
    let ledger = &board.ledger;
    let all = ledger.changes();
    // Changes of one name belong to one worker, which makes them in their order.
    let workers = MOST_WORKERS.min(ledger.names());
    let work = |worker: u32| async move {
        let mut made = Made::default();
        for change in (0..all).filter(|change| change % ledger.names() % workers == worker) {
            let due = begun + Duration::from_secs_f64(f64::from(change) / f64::from(rate));
            sleep_until(due).await;
            let stamp = ledger.begin(change, board.at(due));
            made.note(source.make(change, board, stamp).await);
        }
        made.took = begun.elapsed();
        made
    };
    let mut working: FuturesUnordered<_> = (0..workers).map(work).collect();
    let mut sum = Made::default();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            worked = working.next() => match worked {
                Some(worked) => sum.add(worked),
                None => break,
            },
            _ = look.tick() => {
                let due = (begun.elapsed().as_secs_f64() * f64::from(rate)).min(f64::from(all));
                progress.show(&format!("change {due:.0} of {all}"));
            }
        }
    }
    let deadline = Instant::now() + pace.timeout;
    while ledger.open() > 0 && Instant::now() < deadline {
        progress.show(&format!("{} of {all} changes have not arrived everywhere", ledger.open()));
        look.tick().await;
    }
    sum
}

impl Made {
    fn add(&mut self, other: Self) {
        self.made += other.made;
        self.failed += other.failed;
        self.took = self.took.max(other.took);
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}

async fn run(command: &str, number: u32) -> Result<(), Failure> {
    let output = Command::new("sh")
        .args(["-c", command])
        .env(NUMBER, number.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output
        .map_err(|error| Failure::new(Code::Other, format!("cannot run sh: {}", chain(&error))))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    Err(Failure::new(Code::Other, format!("`{command}` ended with {}: {last}", output.status)))
}

fn too_slow(timeout: Duration) -> Failure {
    Failure::new(Code::Timeout, format!("a change was not made within {} s", timeout.as_secs()))
}
