//! Holds a change that would take away much at once.
//!
//! The usual cause is a file that was cut short or the wrong directory, and the usual end an outage
//! of everything. So a change that removes more than a share of the clusters waits for a person.

use std::collections::BTreeSet;
use std::fmt;

/// Names that the reason gives as examples.
const EXAMPLES: usize = 5;

/// When a change is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Of what was there before; 100 holds nothing.
    pub most_percent: u8,
    /// So few may always go: of three clusters one is a third.
    pub always_allowed: usize,
}

/// Why a change is held until it is confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub removed: usize,
    pub before: usize,
    pub most_percent: u8,
    pub examples: Vec<String>,
}

impl Guard {
    /// Compares the names of clusters before and after a change.
    pub fn check(&self, before: &BTreeSet<String>, after: &BTreeSet<String>) -> Option<Held> {
        let removed = before.difference(after).count();
        let is_much = removed * 100 > before.len() * usize::from(self.most_percent);
        let examples = before.difference(after).take(EXAMPLES).cloned();
        (is_much && removed > self.always_allowed).then(|| Held {
            removed,
            before: before.len(),
            most_percent: self.most_percent,
            examples: examples.collect(),
        })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { removed, before, most_percent, examples } = self;
        write!(f, "removes {removed} of {before} clusters ({}", examples.join(", "))?;
        let rest = if examples.len() < *removed { ", …" } else { "" };
        write!(f, "{rest}), more than {most_percent} %; confirm it if that is meant")
    }
}
