//! Whether a group has a quorum, judged by the time since one was last heard.
//!
//! A known leader does not imply a quorum: a server keeps naming the last leader, and a leader that
//! is cut off keeps leading. What counts is when a majority of the voters was last known to follow
//! a leader. A leader learns it from the answers of the others and sends it with every message; a
//! follower or learner adds the time since that message. So all of them use the same figure, the
//! *age of the last quorum*.
//!
//! ```text
//!   age   0 ───── patience ──────────────── longest ─────►
//!         Held    │ Electing, if a majority │ Lost
//!                 │ of the voters is heard; │
//!                 │ else Lost               │
//! ```
//!
//! An ordinary election ends within the patience: first the lease of the lost leader runs out, then
//! a candidate is elected. A split vote takes longer; meanwhile the voters hear each other.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh::{NodeId, node_hex};
use tokio::time::Instant;

use crate::timing::Timing;

/// Least time that a request waits when there is no quorum: long enough to hear of a quorum that
/// has just returned.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Whether a group has a quorum, as far as this server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quorum {
    /// It was last heard within the time that an ordinary election takes.
    Held,
    /// Not heard for longer, but enough voters are heard to elect a leader: requests wait.
    Electing,
    /// Not heard for longer, and not enough voters are heard: requests fail.
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
    /// An ordinary election ends within this time.
    patience: Duration,
    /// Any election with enough voters ends within this time.
    longest: Duration,
}

impl Bounds {
    pub(crate) fn of(timing: &Timing) -> Self {
        let lease = timing.election_max;
        Self { patience: lease * 5 / 2, longest: lease * 8 }
    }

    /// Judges a group by the age of its last quorum and by how many of its `voters` were heard
    /// lately, this server included.
    pub(crate) fn judge(self, age: Duration, voters: usize, heard: usize) -> Quorum {
        if age <= self.patience {
            Quorum::Held
        } else if heard > voters / 2 && age <= self.longest {
            Quorum::Electing
        } else {
            Quorum::Lost
        }
    }

    /// Whether a member that has been silent for this long still counts as heard.
    pub(crate) fn is_there(self, silent_for: Duration) -> bool {
        silent_for <= self.patience
    }
}

/// The times at which a quorum, and each other member, were last heard.
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

    /// Records a quorum at that time, unless a later one is known.
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

/// What one server has heard from the members of a group. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Contacts {
    heard: Arc<Mutex<ContactTimes>>,
    pub(crate) bounds: Bounds,
}

/// The times since the last contacts, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContactAges {
    /// Time since the last quorum; none if none was heard since the start.
    pub(crate) age: Option<Duration>,
    /// Time since the last quorum, or else since the start.
    pub(crate) without: Duration,
    /// Time since each other member was last heard.
    pub(crate) members: BTreeMap<NodeId, Duration>,
}

impl Contacts {
    pub(crate) fn new(timing: &Timing) -> Self {
        let heard = Arc::new(Mutex::new(ContactTimes::new(Instant::now())));
        Self { heard, bounds: Bounds::of(timing) }
    }

    /// Records a message or an answer from a member.
    pub(crate) fn record_contact(&self, member: NodeId) {
        self.lock().note_member(member, Instant::now());
    }

    /// Records the level that a member has announced.
    pub(crate) fn record_level(&self, member: NodeId, level: u32) {
        self.lock().levels.insert(member, level);
    }

    pub(crate) fn levels(&self) -> BTreeMap<NodeId, u32> {
        self.lock().levels.clone()
    }

    /// Records a quorum at that time.
    pub(crate) fn record_quorum(&self, at: Instant) {
        self.lock().note_quorum(at);
    }

    /// Records the age of the last quorum as a leader reports it.
    pub(crate) fn record_reported_quorum(&self, age: Duration) {
        // A quorum from before the clock began cannot be represented and is ignored.
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
    /// Time since the last quorum, or else since the start of the group on this server.
    pub without: Duration,
    pub voters: Vec<VoterHeard>,
}

/// A voter, and when this server last heard it.
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
