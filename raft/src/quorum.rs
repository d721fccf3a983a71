//! Whether a group has a quorum, judged by when one was last heard.
//!
//! That a leader is known says nothing: a server goes on naming the last one, and a leader that is
//! cut off goes on leading. What counts is when a majority of the voters was last known to stand
//! behind a leader. A leader learns it from the answers of the others and tells it with every
//! message; whoever follows adds the time since that message. So leaders, followers and learners go
//! by the same figure, the *age of the last quorum*.
//!
//! ```text
//!   age   0 ───── patience ──────────────── longest ─────►
//!         Held    │ Electing, if a majority │ Lost
//!                 │ of the voters is heard; │
//!                 │ else Lost               │
//! ```
//!
//! Within the patience an ordinary election comes to its end: the lease of a lost leader, then a
//! candidate's time. A split vote takes longer, which shows in that the voters hear each other.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh::{NodeId, node_hex};
use tokio::time::Instant;

use crate::timing::Timing;

/// How long a request without a quorum is kept waiting at least: long enough for one that is back to
/// be heard.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Whether a group has a quorum, as far as this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// It was heard a moment ago, or not longer ago than an election takes.
    Held,
    /// Not heard for longer, but enough voters are there to elect: requests wait.
    Electing,
    /// Not heard, and not enough voters are there: requests fail.
    Lost,
}

impl Quorum {
    /// The name that operators read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Electing => "electing",
            Self::Lost => "lost",
        }
    }
}

/// How long a group may go without a quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Within this an ordinary election ends.
    patience: Duration,
    /// Within this any election ends for which there are enough voters.
    longest: Duration,
}

impl Bounds {
    pub(crate) fn of(timing: &Timing) -> Self {
        let lease = timing.election_max;
        Self { patience: lease * 5 / 2, longest: lease * 8 }
    }

    /// Judges a group whose last quorum is that old, and `heard` of whose `voters` were heard
    /// lately, this server counted in.
    pub(crate) fn judge(self, age: Duration, voters: usize, heard: usize) -> Quorum {
        if age <= self.patience {
            Quorum::Held
        } else if heard > voters / 2 && age <= self.longest {
            Quorum::Electing
        } else {
            Quorum::Lost
        }
    }

    /// Whether a member that was heard that long ago counts as there.
    pub(crate) fn is_there(self, silent_for: Duration) -> bool {
        silent_for <= self.patience
    }
}

/// When a quorum, and each other member, was last heard.
#[derive(Debug, Clone)]
struct ContactTimes {
    started: Instant,
    quorum: Option<Instant>,
    members: BTreeMap<NodeId, Instant>,
    /// The levels that members have announced.
    levels: BTreeMap<NodeId, u32>,
}

impl ContactTimes {
    fn new(now: Instant) -> Self {
        Self { started: now, quorum: None, members: BTreeMap::new(), levels: BTreeMap::new() }
    }

    /// A quorum stood at that time. What is older than what is known counts for nothing.
    fn note_quorum(&mut self, at: Instant) {
        self.quorum = self.quorum.max(Some(at));
    }

    fn note_member(&mut self, member: NodeId, at: Instant) {
        self.members.insert(member, at);
    }

    fn ages(&self, now: Instant) -> ContactAges {
        let since = |at: Instant| now.saturating_duration_since(at);
        let age = self.quorum.map(since);
        ContactAges {
            age,
            without: age.unwrap_or_else(|| since(self.started)),
            members: self.members.iter().map(|(id, at)| (*id, since(*at))).collect(),
        }
    }
}

/// What one server has heard of a group. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Contacts {
    heard: Arc<Mutex<ContactTimes>>,
    pub(crate) bounds: Bounds,
}

/// A look at what was heard, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContactAges {
    /// Since the last quorum; none if none was heard since the start.
    pub(crate) age: Option<Duration>,
    /// The same, or else the time since the start.
    pub(crate) without: Duration,
    /// Since each other member was last heard.
    pub(crate) members: BTreeMap<NodeId, Duration>,
}

impl Contacts {
    pub(crate) fn new(timing: &Timing) -> Self {
        let heard = Arc::new(Mutex::new(ContactTimes::new(Instant::now())));
        Self { heard, bounds: Bounds::of(timing) }
    }

    /// Takes note of a message or an answer from a member.
    pub(crate) fn record_contact(&self, member: NodeId) {
        self.lock().note_member(member, Instant::now());
    }

    /// Takes note of the level of commands that a member knows.
    pub(crate) fn record_level(&self, member: NodeId, level: u32) {
        self.lock().levels.insert(member, level);
    }

    pub(crate) fn levels(&self) -> BTreeMap<NodeId, u32> {
        self.lock().levels.clone()
    }

    /// Takes note that a quorum stood at that time.
    pub(crate) fn record_quorum(&self, at: Instant) {
        self.lock().note_quorum(at);
    }

    /// Takes note of what a leader says of its last quorum.
    pub(crate) fn record_reported_quorum(&self, age: Duration) {
        // One from before the clock began is as good as none.
        if let Some(at) = Instant::now().checked_sub(age) {
            self.record_quorum(at);
        }
    }

    /// How long ago a quorum was last heard.
    pub(crate) fn quorum_age(&self) -> Option<Duration> {
        let heard = self.lock().quorum?;
        Some(Instant::now().saturating_duration_since(heard))
    }

    pub(crate) fn ages(&self) -> ContactAges {
        self.lock().ages(Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, ContactTimes> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request found no quorum: how old the last one is, and which voters are silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoQuorum {
    /// None if no quorum was heard since this server started.
    pub age: Option<Duration>,
    /// Since the start of the group on this server.
    pub without: Duration,
    pub voters: Vec<VoterHeard>,
}

/// A voter, and how long ago this server heard it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoterHeard {
    pub node_id: NodeId,
    pub heard: VoterContact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoterContact {
    /// It is this server.
    Own,
    Ago(Duration),
    Never,
}

impl fmt::Display for NoQuorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.without.as_secs();
        match self.age {
            Some(_) => write!(f, "no quorum: last heard from a majority {seconds} s ago")?,
            None => write!(f, "no quorum: heard from no majority since the start {seconds} s ago")?,
        }
        for (position, VoterHeard { node_id, heard }) in self.voters.iter().enumerate() {
            let before = if position == 0 { "; voters: " } else { ", " };
            write!(f, "{before}{} ", node_hex(*node_id))?;
            match heard {
                VoterContact::Own => write!(f, "(this server)")?,
                VoterContact::Ago(ago) => write!(f, "(heard {} s ago)", ago.as_secs())?,
                VoterContact::Never => write!(f, "(not heard)")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
