//! What the clients tell of themselves, counted where all of them and the command can see it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::ledger::{Ledger, Seen};

/// Different reasons that are kept; further ones are counted together.
const MOST_REASONS: usize = 16;

/// How often the command looks when nothing wakes it.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Board {
    pub(super) ledger: Ledger,
    begun: Instant,
    clients: u32,
    synced: AtomicU32,
    /// When each client was synced, in microseconds since the start.
    syncs: Mutex<Vec<u32>>,
    lost_streams: AtomicU32,
    /// Of the lost streams, those that had not got everything yet.
    never_synced: AtomicU32,
    lost_connections: AtomicU32,
    reasons: Mutex<BTreeMap<String, u32>>,
    responses: AtomicU64,
    bytes: AtomicU64,
    /// The command ends the streams by itself from here on.
    closing: AtomicBool,
    moved: Notify,
}

/// What has come over all streams so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) responses: u64,
    /// Of messages, without the frames around them.
    pub(super) bytes: u64,
}

impl Traffic {
    pub(super) const fn since(self, before: Self) -> Self {
        Self { responses: self.responses - before.responses, bytes: self.bytes - before.bytes }
    }
}

/// Streams and connections that were refused or cut.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    pub(super) streams: u32,
    pub(super) connections: u32,
    pub(super) reasons: BTreeMap<String, u32>,
}

impl Board {
    pub(super) fn new(clients: u32, ledger: Ledger) -> Self {
        Self {
            ledger,
            begun: Instant::now(),
            clients,
            synced: AtomicU32::default(),
            syncs: Mutex::default(),
            lost_streams: AtomicU32::default(),
            never_synced: AtomicU32::default(),
            lost_connections: AtomicU32::default(),
            reasons: Mutex::default(),
            responses: AtomicU64::default(),
            bytes: AtomicU64::default(),
            closing: AtomicBool::default(),
            moved: Notify::new(),
        }
    }

    /// Microseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    pub(super) fn at(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.begun);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    // === What clients say ===

    pub(super) fn response(&self, bytes: usize) {
        self.responses.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A client has everything, and wants these of the names that change.
    pub(super) fn synced(&self, changing: &[u32]) {
        self.ledger.watch(changing);
        let now = u32::try_from(self.now()).unwrap_or(u32::MAX);
        self.syncs.lock().unwrap_or_else(PoisonError::into_inner).push(now);
        self.synced.fetch_add(1, Ordering::Relaxed);
        if self.settled() {
            self.moved.notify_one();
        }
    }

    pub(super) fn arrived(&self, name: u32, stamp: u32, seen: &mut Seen) {
        if self.ledger.arrive(name, stamp, seen, self.now()) {
            self.moved.notify_one();
        }
    }

    /// A client is gone that wanted these; before it was synced it is not counted among who wants them.
    pub(super) fn lost(&self, changing: &[u32], was_synced: bool, reason: &str) {
        if self.closing.load(Ordering::Relaxed) {
            return;
        }
        if was_synced {
            self.ledger.leave(changing);
        } else {
            self.never_synced.fetch_add(1, Ordering::Relaxed);
        }
        self.lost_streams.fetch_add(1, Ordering::Relaxed);
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let known = reasons.contains_key(reason) || reasons.len() < MOST_REASONS;
        let reason = if known { reason } else { "other reasons" };
        *reasons.entry(reason.to_owned()).or_default() += 1;
        drop(reasons);
        self.moved.notify_one();
    }

    /// A connection was not made, or has ended; its streams tell of themselves.
    pub(super) fn lost_connection(&self) {
        if !self.closing.load(Ordering::Relaxed) {
            self.lost_connections.fetch_add(1, Ordering::Relaxed);
        }
    }

    // === What the command asks ===

    /// Awaits a condition that clients bring about; false if it does not come in time.
    pub(super) async fn until(
        &self,
        deadline: Instant,
        condition: impl Fn(&Self) -> bool,
        mut look: impl FnMut(&Self),
    ) -> bool {
        loop {
            if condition(self) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            look(self);
            // A time-out is the next look.
            let _ = timeout(LOOK_EVERY, self.moved.notified()).await;
        }
    }

    /// Whether every client has either synced or gone.
    pub(super) fn settled(&self) -> bool {
        self.waiting() == 0
    }

    /// Clients that are there, and have not got everything.
    pub(super) fn waiting(&self) -> u32 {
        let gone = self.never_synced.load(Ordering::Relaxed);
        self.clients.saturating_sub(self.synced_clients() + gone)
    }

    pub(super) fn synced_clients(&self) -> u32 {
        self.synced.load(Ordering::Relaxed)
    }

    /// How long each client took to sync, from the start.
    pub(super) fn syncs(&self) -> Vec<Duration> {
        let syncs = self.syncs.lock().unwrap_or_else(PoisonError::into_inner);
        syncs.iter().map(|it| Duration::from_micros(u64::from(*it))).collect()
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            responses: self.responses.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    pub(super) fn losses(&self) -> Losses {
        Losses {
            streams: self.lost_streams.load(Ordering::Relaxed),
            connections: self.lost_connections.load(Ordering::Relaxed),
            reasons: self.reasons.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// What ends from here on is no loss.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}
