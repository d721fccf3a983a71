//! Which start of a server counts: the rule that keeps two copies of one data directory from both
//! taking part.
//!
//! Ids and stores are copied with a directory, and two copies that start once each count the same
//! number of starts. So every start draws a number too. A server counts one start of each other
//! server: the first that it meets of an epoch, until it meets one of a later epoch. What it counts
//! is on its disk before anything that the other says counts. Messages between members name both
//! starts, and are refused if they are not the counted ones.
//!
//! A directory that was copied knows it, since it does not stand where it was made
//! ([`crate::place`]). Its start takes no part before *every* other voter of its groups counts it.
//! `docs/decisions/0008-one-start-counts.md` says why two copies can then not both be counted.

use serde::{Deserialize, Serialize};

/// Starts by which a server may be ahead of what was last heard of it. More is made up.
pub(crate) const MOST_AHEAD: u64 = 1 << 20;

/// One start of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Counts the starts of the data directory.
    pub epoch: u64,
    /// Drawn at the start. Zero if it is not known.
    pub number: u64,
}

/// How a start that is told of stands to the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartOrder {
    /// It is the counted one.
    Counted,
    /// It is later, or the first that is heard of, or tells the number of the counted one.
    Later,
    /// It was overtaken by the counted one.
    Earlier,
    /// It is of the same epoch, but another one: there are two copies of the directory.
    Copy,
    /// Nobody starts that often.
    Implausible,
}

/// Compares a start that is told of with the one that counts.
pub(crate) fn compare(counted: Option<Start>, told: Start) -> StartOrder {
    let known = counted.unwrap_or_default();
    if told.epoch > known.epoch.saturating_add(MOST_AHEAD) {
        return StartOrder::Implausible;
    }
    if counted.is_none() || told.epoch > known.epoch {
        return StartOrder::Later;
    }
    if told.epoch < known.epoch {
        return StartOrder::Earlier;
    }
    match (known.number, told.number) {
        (ours, theirs) if ours == theirs => StartOrder::Counted,
        (_, 0) => StartOrder::Counted,
        (0, _) => StartOrder::Later,
        (_, _) => StartOrder::Copy,
    }
}

#[cfg(test)]
mod tests;
