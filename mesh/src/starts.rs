//! Which start of a server counts. The rule keeps two copies of one data directory from both taking
//! part.
//!
//! Ids and stores are copied with a directory, and two copies that each start once reach the same
//! boot epoch. So every start also draws a random number. A server counts one start of each other
//! server: the first that it meets of an epoch, until it meets one of a later epoch. The counted
//! start is on its disk before it accepts anything from that server. Messages between members name
//! both starts, and are refused if these are not the counted ones.
//!
//! A copied directory can detect that it is a copy, because it is not where it was made
//! ([`crate::place`]). Its start takes no part before *every* other voter of its groups counts it.
//! `docs/decisions/0008-one-start-counts.md` says why two copies can then not both be counted.

use serde::{Deserialize, Serialize};

/// How far the epoch of a start may be ahead of the last known one. A later one is not believed.
pub(crate) const MOST_AHEAD: u64 = 1 << 20;

/// One start of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Counts the starts of the data directory.
    pub epoch: u64,
    /// Random number of the start. Zero if it is not known.
    pub number: u64,
}

/// How a reported start relates to the counted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartOrder {
    /// It is the counted one.
    Counted,
    /// It is later, or the first one, or adds the number of the counted one.
    Later,
    /// It is of an earlier epoch than the counted one.
    Earlier,
    /// It is of the same epoch but has another number: there are two copies of the directory.
    Copy,
    /// Its epoch is too far ahead to be real.
    Implausible,
}

/// Compares a reported start with the counted one.
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
