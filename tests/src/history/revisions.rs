//! The order of revisions, which all keys share: one for each write, and never against the clock.

use std::{collections::HashMap, time::Duration};

use super::{Answer, Operation, Outcome, Rule, Violation};

/// Which revision wrote a value, as far as any answer tells.
#[derive(Debug)]
pub(super) struct Revisions<'a> {
    of_writes: HashMap<(&'a str, u64), Told<'a>>,
}

/// A revision, and the operation whose answer named it.
#[derive(Clone, Copy, Debug)]
struct Told<'a> {
    revision: i64,
    by: &'a Operation,
}

impl<'a> Revisions<'a> {
    /// Collects what all answers say of writes, acknowledged or not.
    pub(super) fn of(operations: &'a [Operation]) -> Result<Self, Violation> {
        let mut of_writes: HashMap<(&str, u64), Told<'a>> = HashMap::new();
        let mut writes: HashMap<i64, ((&str, u64), &Operation)> = HashMap::new();
        for by in operations {
            let Some(version) = by.seen() else { continue };
            let write = (by.key.as_str(), version.value);
            let revision = version.revision;
            let told = *of_writes.entry(write).or_insert(Told { revision, by });
            if told.revision != revision {
                return Err(violation(Rule::OneRevisionPerWrite, told.by, by));
            }
            let (other, also) = *writes.entry(revision).or_insert((write, by));
            if other != write {
                return Err(violation(Rule::OneRevisionPerWrite, also, by));
            }
        }
        Ok(Self { of_writes })
    }

    /// The revision of the write of a value to a key, if it took effect and anybody saw it.
    pub(super) fn of_write(&self, key: &str, value: u64) -> Option<i64> {
        self.of_writes.get(&(key, value)).map(|told| told.revision)
    }

    /// An answer's revision is at least that of every answer that came before the question; a
    /// write's is above them.
    pub(super) fn follow_time(&self, operations: &[Operation]) -> Result<(), Violation> {
        let mut answered: Vec<(Duration, Told<'_>)> =
            operations.iter().filter_map(answer).collect();
        answered.sort_by_key(|(returned, _)| *returned);
        let mut asked: Vec<&Operation> = operations.iter().collect();
        asked.sort_by_key(|operation| operation.invoked);
        let mut answered = answered.into_iter().peekable();
        let mut latest: Option<Told<'_>> = None;
        for operation in asked {
            while let Some((_, told)) =
                answered.next_if(|(returned, _)| *returned < operation.invoked)
            {
                latest = latest.filter(|it| it.revision >= told.revision).or(Some(told));
            }
            let (Some(latest), Some(least)) = (latest, self.claim(operation)) else { continue };
            if latest.revision > least {
                return Err(violation(Rule::RevisionsFollowTime, latest.by, operation));
            }
        }
        Ok(())
    }

    /// The highest revision that may have been told before an operation began, given its own.
    fn claim(&self, operation: &Operation) -> Option<i64> {
        match operation.outcome {
            Outcome::Done { revision, answer: Answer::Wrote, .. } => Some(revision - 1),
            Outcome::Done { revision, answer: Answer::Found(_), .. } => Some(revision),
            Outcome::Failed | Outcome::Unknown => {
                let value = operation.action.value()?;
                self.of_write(&operation.key, value).map(|revision| revision - 1)
            }
        }
    }
}

fn answer(operation: &Operation) -> Option<(Duration, Told<'_>)> {
    match operation.outcome {
        Outcome::Done { returned, revision, .. } => {
            Some((returned, Told { revision, by: operation }))
        }
        Outcome::Failed | Outcome::Unknown => None,
    }
}

fn violation(rule: Rule, one: &Operation, other: &Operation) -> Violation {
    Violation { rule, excerpt: format!("    {one}\n    {other}") }
}
