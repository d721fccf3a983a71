//! What clients of a store were told, and whether one order of their operations explains it.
//!
//! Each [`Operation`] works on one key and is recorded by the client that asked for it. A history
//! is *linearizable* if every operation that was answered can be given one instant between its
//! invocation and its return, so that all answers are those of a single register per key to which
//! the operations came in that order (Herlihy and Wing, "Linearizability"). An operation without
//! an answer may have its instant at any time after its invocation, or none.
//!
//! Keys are independent of each other (the same paper, on locality), so the search for an order
//! takes one key at a time. What the keys share is the sequence of revisions, which is held against
//! the clock.
//!
//! Two rules make this cheap, and whoever records a history keeps them: a value is written once,
//! and a swap expects only what an answer has shown. So a version that somebody has read tells
//! which operation wrote it and where that stands in the order.

mod revisions;
mod search;

use std::{collections::BTreeMap, fmt, time::Duration};

use revisions::Revisions;
use search::Stuck;

/// Operations that are shown before the point where no order goes on.
const SHOWN: usize = 4;

/// What a client asked for, when, and what became of it. Times count from the test's beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub client: usize,
    pub key: String,
    pub action: Action,
    pub invoked: Duration,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Get,
    /// Writes a value that nobody else writes.
    Put(u64),
    /// Writes such a value if the key is as expected, else reads it.
    Swap {
        expected: Expected,
        value: u64,
    },
}

/// What a swap compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Value(u64),
    /// The revision of the key's last change; zero of a key that is not there.
    Revision(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done {
        returned: Duration,
        /// The store's revision in the answer: of a write its own, otherwise the latest.
        revision: i64,
        answer: Answer,
    },
    /// It had no effect and never will.
    Failed,
    /// No answer came. It may have taken effect, or may yet, or never does.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A put, or a swap that found what it expected.
    Wrote,
    /// A get, or a swap that found something else.
    Found(Option<Version>),
}

/// A key's value, and the revision that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    pub value: u64,
    pub revision: i64,
}

/// A rule that a history breaks, and the operations that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub excerpt: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// No two writes have one revision, and no write has two.
    OneRevisionPerWrite,
    /// What was asked for after an answer does not come before it in the order of revisions.
    RevisionsFollowTime,
    /// Each key behaves as one register.
    Linearizable,
}

/// Checks everything that [`Rule`] names.
///
/// # Errors
///
/// The first violation that is found.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let revisions = Revisions::of(operations)?;
    revisions.follow_time(operations)?;
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    for (key, operations) in keys {
        search::linearize(&operations, &revisions)
            .map_err(|stuck| not_linearizable(key, &stuck))?;
    }
    Ok(())
}

impl Operation {
    /// When its answer came.
    pub fn returned(&self) -> Option<Duration> {
        match self.outcome {
            Outcome::Done { returned, .. } => Some(returned),
            Outcome::Failed | Outcome::Unknown => None,
        }
    }

    /// Whether it is a write that the store has confirmed.
    pub fn is_acknowledged_write(&self) -> bool {
        matches!(self.outcome, Outcome::Done { answer: Answer::Wrote, .. })
    }

    /// What the answer says about the key.
    pub fn seen(&self) -> Option<Version> {
        match self.outcome {
            Outcome::Done { revision, answer: Answer::Wrote, .. } => {
                self.action.value().map(|value| Version { value, revision })
            }
            Outcome::Done { answer: Answer::Found(found), .. } => found,
            Outcome::Failed | Outcome::Unknown => None,
        }
    }
}

impl Action {
    /// The value that it writes, if it writes.
    pub fn value(self) -> Option<u64> {
        match self {
            Self::Get => None,
            Self::Put(value) | Self::Swap { value, .. } => Some(value),
        }
    }
}

impl Expected {
    fn holds(self, state: Option<Version>) -> bool {
        match self {
            Self::Value(value) => state.is_some_and(|version| version.value == value),
            Self::Revision(revision) => state.map_or(0, |version| version.revision) == revision,
        }
    }
}

/// The end of the longest order, what could not follow, and who wrote what that speaks of.
fn not_linearizable(key: &str, stuck: &Stuck<'_>) -> Violation {
    let hidden = stuck.order.len().saturating_sub(SHOWN);
    let (earlier, last) = stuck.order.split_at(hidden);
    let named: Vec<u64> = stuck.pending.iter().flat_map(|operation| values(operation)).collect();
    let wrote_named = |operation: &&Operation| {
        operation.action.value().is_some_and(|value| {
            named.contains(&value)
                && !matches!(operation.outcome, Outcome::Done { answer: Answer::Found(_), .. })
        })
    };
    let mut excerpt =
        format!("{key}: at most {} operations have an order, ending with\n", stuck.order.len());
    for operation in earlier.iter().copied().filter(|operation| wrote_named(operation)) {
        excerpt += &format!("    {operation}\n    ...\n");
    }
    for operation in last {
        excerpt += &format!("    {operation}\n");
    }
    excerpt += &match stuck.state {
        Some(version) => format!("which leaves {version}; none of these can come next:"),
        None => "which leaves no such key; none of these can come next:".to_owned(),
    };
    for operation in &stuck.pending {
        excerpt += &format!("\n    {operation}");
    }
    Violation { rule: Rule::Linearizable, excerpt }
}

/// The values that an operation was told of or asked for, without the one it writes itself.
fn values(operation: &Operation) -> Vec<u64> {
    let expected = match operation.action {
        Action::Swap { expected: Expected::Value(value), .. } => Some(value),
        Action::Swap { expected: Expected::Revision(_), .. } | Action::Get | Action::Put(_) => None,
    };
    let seen = operation.seen().map(|version| version.value);
    let own = operation.action.value();
    expected.into_iter().chain(seen).filter(|value| Some(*value) != own).collect()
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {}\n{}", self.rule, self.excerpt)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneRevisionPerWrite => "each write has one revision of its own",
            Self::RevisionsFollowTime => "revisions follow time",
            Self::Linearizable => "each key is linearizable",
        })
    }
}

/// One line: when, who, what, and the answer.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, key, action, invoked, outcome } = self;
        write!(f, "{:.6}", invoked.as_secs_f64())?;
        match self.returned() {
            Some(returned) => write!(f, "..{:.6}", returned.as_secs_f64())?,
            None => f.write_str("..")?,
        }
        write!(f, " client {client} {key} {action}: {outcome}")
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => f.write_str("get"),
            Self::Put(value) => write!(f, "put {value}"),
            Self::Swap { expected: Expected::Value(expected), value } => {
                write!(f, "swap {expected} for {value}")
            }
            Self::Swap { expected: Expected::Revision(revision), value } => {
                write!(f, "swap revision {revision} for {value}")
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { revision, answer: Answer::Wrote, .. } => write!(f, "done at {revision}"),
            Self::Done { revision, answer: Answer::Found(Some(version)), .. } => {
                write!(f, "found {version}, read at {revision}")
            }
            Self::Done { revision, answer: Answer::Found(None), .. } => {
                write!(f, "found nothing, read at {revision}")
            }
            Self::Failed => f.write_str("failed"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of revision {}", self.value, self.revision)
    }
}

#[cfg(test)]
mod tests;
