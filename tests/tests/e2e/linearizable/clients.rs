//! Clients that each talk to one server, work on the same few keys and never stop for an error.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use harness::{
    Server,
    history::{Action, Expected, Operation, Version},
    recorder::Recorder,
    wait::LATE,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Two for each of three servers.
pub(super) const CLIENTS: usize = 6;

/// Keys at a time.
const KEYS: u64 = 4;

/// Operations after which all clients go on to other keys, so that no key's history grows long.
const OPERATIONS_PER_KEYS: u64 = 8000;

/// A client's pause after an operation that came to nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// All clients, and how far each of them is.
#[derive(Debug)]
pub(super) struct Clients {
    tasks: JoinSet<Vec<Operation>>,
    stop: CancellationToken,
    shared: Arc<Shared>,
    servers: usize,
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    operations: AtomicU64,
    values: AtomicU64,
    progress: watch::Sender<Vec<Progress>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// When the latest operation was invoked.
    asked: Duration,
    /// When the latest write that was acknowledged had been invoked.
    wrote: Duration,
}

impl Clients {
    pub(super) fn start(servers: &[Server], seed: u64) -> Self {
        let shared = Arc::new(Shared {
            origin: Instant::now(),
            operations: AtomicU64::new(0),
            values: AtomicU64::new(0),
            progress: watch::Sender::new(vec![Progress::default(); CLIENTS]),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let address = servers[number % servers.len()].kv();
            let client = Client {
                number,
                recorder: Recorder::new(number, address, shared.origin),
                random: StdRng::seed_from_u64(seed.wrapping_add(1 + number as u64)),
                seen: HashMap::new(),
                shared: shared.clone(),
            };
            tasks.spawn(client.run(stop.clone()));
        }
        Self { tasks, stop, shared, servers: servers.len() }
    }

    /// What all times count from.
    pub(super) fn origin(&self) -> Instant {
        self.shared.origin
    }

    /// Waits until a write is acknowledged that is not asked for yet.
    pub(super) async fn written(&self) {
        let now = self.shared.origin.elapsed();
        let wrote = |all: &[Progress]| all.iter().any(|it| it.wrote > now);
        self.progress("a write is acknowledged", wrote).await;
    }

    /// Waits until every client of a server has asked it for something else than now.
    pub(super) async fn asked(&self, server: usize) {
        let now = self.shared.origin.elapsed();
        let asked = |all: &[Progress]| {
            all.iter().skip(server).step_by(self.servers).all(|it| it.asked > now)
        };
        self.progress("the clients of a server go on", asked).await;
    }

    /// Lets the clients finish what they are at, and returns all that they did.
    pub(super) async fn stop(self) -> Vec<Operation> {
        self.stop.cancel();
        self.tasks.join_all().await.concat()
    }

    async fn progress(&self, what: &str, condition: impl Fn(&[Progress]) -> bool) {
        let mut progress = self.shared.progress.subscribe();
        let reached = timeout(LATE, progress.wait_for(|all| condition(all))).await;
        assert!(reached.is_ok(), "not within {LATE:?}: {what}");
    }
}

struct Client {
    number: usize,
    recorder: Recorder,
    random: StdRng,
    /// What this client knows of each key.
    seen: HashMap<String, Version>,
    shared: Arc<Shared>,
}

impl Client {
    async fn run(mut self, stop: CancellationToken) -> Vec<Operation> {
        let mut operations = Vec::new();
        while !stop.is_cancelled() {
            let (key, action) = self.choose();
            self.note(|it, now| it.asked = now);
            let operation = self.recorder.perform(key, action).await;
            if let Some(version) = operation.seen() {
                self.seen.insert(operation.key.clone(), version);
            }
            if operation.is_acknowledged_write() {
                self.note(|it, _| it.wrote = operation.invoked);
            }
            if operation.returned().is_none() {
                sleep(PAUSE).await;
            }
            operations.push(operation);
        }
        operations
    }

    fn choose(&mut self) -> (String, Action) {
        let number = self.shared.operations.fetch_add(1, Ordering::Relaxed);
        let key = self.random.random_range(0..KEYS);
        let key = format!("key/{}/{key}", number / OPERATIONS_PER_KEYS);
        let action = match self.random.random_range(0..10) {
            0..4 => Action::Get,
            4..7 => Action::Put(self.value()),
            _ => Action::Swap { expected: self.expected(&key), value: self.value() },
        };
        (key, action)
    }

    fn value(&self) -> u64 {
        self.shared.values.fetch_add(1, Ordering::Relaxed)
    }

    /// A guess from what was seen last, which may be long gone.
    fn expected(&mut self, key: &str) -> Expected {
        match self.seen.get(key) {
            None => Expected::Revision(0),
            Some(version) if self.random.random() => Expected::Value(version.value),
            Some(version) => Expected::Revision(version.revision),
        }
    }

    fn note(&self, change: impl FnOnce(&mut Progress, Duration)) {
        let now = self.recorder.now();
        self.shared.progress.send_modify(|all| change(&mut all[self.number], now));
    }
}
