//! What a client rejected: which resource is bad, and when it is tried again.
//!
//! A NACK rejects a response, not a resource. Those of its resources that the client has not
//! accepted before are suspects. They are sent again in smaller and smaller groups, until each is
//! accepted or rejected alone. The text of the error often names the bad ones. That is only a hint:
//! they are tried apart from the others, and count as bad only if they are rejected again.
//!
//! A resource rejected alone is in *quarantine*: the client keeps what it has of it, and nothing
//! else waits for it. It leaves quarantine when its content changes. Until then it is tried again
//! after growing pauses, since the reason may lie with the client and pass, such as a port that was
//! in use.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::subscription::Subscription;
use crate::lease::Time;
use crate::resource::{Name, Version};
use crate::snapshot::Snapshot;

#[cfg(test)]
mod tests;

/// The pause before a resource that was rejected alone is tried again. It doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest pause. It limits how long a resource stays rejected after the reason has passed, and
/// how often a permanently bad one is sent.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Most names from the text of an error that are tried one by one.
const MOST_HINTS: usize = 16;

/// Most bytes of an error's text that are searched for names.
const HINT_LIMIT: usize = 8 << 10;

/// A longer reason is cut, because the client is not trusted and the text is kept as long as the
/// stream.
const REASON_LIMIT: usize = 512;

/// Stands for a full set that was rejected as a whole.
pub(super) const WHOLE_SET: Name = arcstr::literal!("*");

/// The rejected resources of one type on one stream.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    /// Groups of suspects, each to be sent by itself.
    trials: VecDeque<Vec<Name>>,
    quarantine: BTreeMap<Name, Quarantine>,
}

/// A resource that the client rejected alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    pub version: Version,
    /// The client's error text, cut to `REASON_LIMIT` bytes.
    pub reason: Arc<str>,
    /// When it was rejected first.
    pub since: Time,
    /// How often it has been rejected.
    pub times: u32,
    retry_at: Time,
}

/// The suspects of one rejected response.
#[derive(Debug)]
pub(super) struct Suspects<'a> {
    pub names: Vec<(Name, Version)>,
    /// Whether the response held more than these suspects and what the client had accepted before.
    pub had_more: bool,
    pub reason: &'a str,
}

impl Rejections {
    /// Adds the suspects of a rejected response. Returns those that are in quarantine because of
    /// it.
    pub(super) fn add(&mut self, suspects: Suspects<'_>, now: Time) -> Vec<Name> {
        let Suspects { names, had_more, reason } = suspects;
        if let [(name, version)] = &*names
            && !had_more
        {
            return self.quarantine(name, *version, reason, now).into_iter().collect();
        }
        let text = cut(reason, HINT_LIMIT);
        let (hinted, others): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|(name, _)| mentions(text, name));
        if !hinted.is_empty() && hinted.len() <= MOST_HINTS {
            return self.follow_hints(hinted, others, reason, now);
        }
        let names: Vec<Name> = names.into_iter().map(|(name, _)| name).collect();
        // Each group is smaller than the response was, so this ends.
        if had_more || names.len() == 1 {
            self.plan(&names);
        } else {
            let (left, right) = names.split_at(names.len() / 2);
            self.plan(left);
            self.plan(right);
        }
        Vec::new()
    }

    fn follow_hints(
        &mut self,
        hinted: Vec<(Name, Version)>,
        others: Vec<(Name, Version)>,
        reason: &str,
        now: Time,
    ) -> Vec<Name> {
        let others: Vec<Name> = others.into_iter().map(|(name, _)| name).collect();
        self.plan(&others);
        let mut blamed = Vec::new();
        for (name, version) in hinted {
            // A resource that was rejected alone before need not be tried alone again.
            if self.quarantine.get(&name).is_some_and(|it| it.version == version) {
                blamed.extend(self.quarantine(&name, version, reason, now));
            } else {
                self.plan(&[name]);
            }
        }
        blamed
    }

    fn plan(&mut self, names: &[Name]) {
        if !names.is_empty() {
            self.trials.push_back(names.to_vec());
        }
    }

    /// Puts a resource into quarantine. Returns its name if it was not there with this content.
    pub(super) fn quarantine(
        &mut self,
        name: &Name,
        version: Version,
        reason: &str,
        now: Time,
    ) -> Option<Name> {
        let reason: Arc<str> = cut(reason, REASON_LIMIT).into();
        match self.quarantine.get_mut(name).filter(|it| it.version == version) {
            Some(known) => {
                known.times = known.times.saturating_add(1);
                known.reason = reason;
                known.retry_at = now + pause(known.times);
                None
            }
            None => {
                let retry_at = now + pause(1);
                let it = Quarantine { version, reason, since: now, times: 1, retry_at };
                self.quarantine.insert(name.clone(), it);
                Some(name.clone())
            }
        }
    }

    /// The client accepted a resource. Returns whether it was in quarantine.
    pub(super) fn accept(&mut self, name: &str, version: Version) -> bool {
        let is_known = self.quarantine.get(name).is_some_and(|it| it.version == version);
        if is_known {
            self.quarantine.remove(name);
        }
        is_known
    }

    /// The client accepted a full set, or has stated what it holds.
    pub(super) fn accept_set(&mut self) -> bool {
        self.quarantine.remove(&WHOLE_SET).is_some()
    }

    /// Drops suspects and quarantines of resources that changed or are no longer wanted.
    pub(super) fn prune(&mut self, subscription: &Subscription, snapshot: &Snapshot) {
        self.trials
            .retain(|names| names.iter().any(|it| subscription.rejected(it, snapshot).is_some()));
        self.quarantine.retain(|name, it| {
            *name == WHOLE_SET || subscription.wanted_version(name, snapshot) == Some(it.version)
        });
    }

    /// The next group to be tried: of suspects, or of those in quarantine whose pause is over.
    pub(super) fn next_trial(&mut self, now: Time) -> Option<Vec<Name>> {
        self.trials.pop_front().or_else(|| {
            let due: Vec<Name> = self
                .quarantine
                .iter_mut()
                .filter(|(_, it)| it.retry_at <= now)
                .map(|(name, it)| {
                    it.retry_at = now + pause(it.times + 1);
                    name.clone()
                })
                .collect();
            (!due.is_empty()).then_some(due)
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trials.is_empty() && self.quarantine.is_empty()
    }

    pub(super) fn has_trials(&self) -> bool {
        !self.trials.is_empty()
    }

    /// When [`Rejections::next_trial`] next has one, if there is none at present.
    pub(super) fn next_retry(&self) -> Option<Time> {
        self.quarantine.values().map(|it| it.retry_at).min()
    }

    pub(super) fn quarantined(&self) -> impl Iterator<Item = (&Name, &Quarantine)> {
        self.quarantine.iter()
    }
}

fn pause(times: u32) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << times.saturating_sub(1).min(16));
    doubled.min(LAST_RETRY)
}

/// Whether a text mentions a resource: as a separate word, not as a part of a longer name.
pub(super) fn mentions(text: &str, name: &str) -> bool {
    let is_part = |it: char| it.is_alphanumeric() || "-_./:".contains(it);
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let mut after = text[at + name.len()..].chars();
        // Punctuation may follow a name.
        let next = after.next().filter(|it| is_part(*it));
        let ends =
            next.is_none_or(|it| matches!(it, '.' | ':') && !after.next().is_some_and(is_part));
        ends && !before.is_some_and(is_part)
    })
}

fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(text.len().min(limit))]
}
