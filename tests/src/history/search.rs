//! The search for an order of one key's operations (Wing and Gong, "Testing and Verifying
//! Concurrent Objects"), which remembers what it has tried (Lowe, "Testing for Linearizability").
//!
//! Invocations and returns stand in a list by time. The search walks it: an operation that the
//! register allows at an invocation is placed next in the order and leaves the list, and the walk
//! begins anew; at the return of an operation that is not placed there is no way on, so the last
//! one placed is taken back and the walk goes on behind it. Which operations were placed and what
//! that left in the register decides everything that follows, so no such pair is tried twice.

use std::{collections::HashSet, time::Duration};

use super::{Action, Answer, Expected, Operation, Outcome, Version, revisions::Revisions};

/// The longest order that was found, if there is none for all.
#[derive(Debug)]
pub(super) struct Stuck<'a> {
    pub(super) order: Vec<&'a Operation>,
    pub(super) state: Option<Version>,
    /// What was under way then, of which nothing can come next.
    pub(super) pending: Vec<&'a Operation>,
}

/// Looks for an order that explains all answers about one key.
pub(super) fn linearize<'a>(
    operations: &[&'a Operation],
    revisions: &Revisions<'_>,
) -> Result<(), Stuck<'a>> {
    let steps = operations.iter().filter_map(|it| Step::of(it, revisions)).collect();
    Search::new(steps).run()
}

/// An operation that has a place in the order, or may have one.
#[derive(Debug)]
struct Step<'a> {
    operation: &'a Operation,
    effect: Effect,
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    Write { expected: Option<Expected>, version: Version },
    Read { unexpected: Option<Expected>, found: Option<Version> },
}

impl<'a> Step<'a> {
    /// None for what has no effect that anybody saw: a write without an answer that no answer
    /// names can be left out of every order that holds it.
    fn of(operation: &'a Operation, revisions: &Revisions<'_>) -> Option<Self> {
        let expected = match operation.action {
            Action::Swap { expected, .. } => Some(expected),
            Action::Get | Action::Put(_) => None,
        };
        let effect = match operation.outcome {
            Outcome::Done { answer: Answer::Found(found), .. } => {
                Effect::Read { unexpected: expected, found }
            }
            Outcome::Done { answer: Answer::Wrote, .. } | Outcome::Unknown => {
                let value = operation.action.value()?;
                let revision = revisions.of_write(&operation.key, value)?;
                Effect::Write { expected, version: Version { value, revision } }
            }
            Outcome::Failed => return None,
        };
        Some(Self { operation, effect })
    }

    /// Whether every order must hold it.
    fn is_required(&self) -> bool {
        self.operation.returned().is_some()
    }
}

impl Effect {
    /// What the register holds afterwards, if this can come next.
    fn on(self, state: Option<Version>) -> Option<Option<Version>> {
        match self {
            Self::Write { expected, version } => {
                let grows = version.revision > state.map_or(0, |it| it.revision);
                let met = expected.is_none_or(|expected| expected.holds(state));
                (grows && met).then_some(Some(version))
            }
            Self::Read { unexpected, found } => {
                let refused = unexpected.is_none_or(|expected| !expected.holds(state));
                (found == state && refused).then_some(state)
            }
        }
    }
}

#[derive(Debug)]
struct Search<'a> {
    steps: Vec<Step<'a>>,
    events: Events,
    placed: Set,
    state: Option<Version>,
    order: Vec<Place>,
    tried: HashSet<(Set, Option<Version>)>,
    /// Required steps that are not placed.
    missing: usize,
    furthest: Stuck<'a>,
}

/// A step in the order, and what the register held before it.
#[derive(Clone, Copy, Debug)]
struct Place {
    step: usize,
    before: Option<Version>,
}

impl<'a> Search<'a> {
    fn new(steps: Vec<Step<'a>>) -> Self {
        Self {
            events: Events::of(&steps),
            placed: Set::new(steps.len()),
            state: None,
            order: Vec::new(),
            tried: HashSet::new(),
            missing: steps.iter().filter(|step| step.is_required()).count(),
            furthest: Stuck { order: Vec::new(), state: None, pending: Vec::new() },
            steps,
        }
    }

    fn run(mut self) -> Result<(), Stuck<'a>> {
        let mut at = self.events.after(EDGE);
        while self.missing > 0 {
            let kind = self.events.kinds[at];
            at = match kind {
                Kind::Invoked(step) if self.place(step) => self.events.after(EDGE),
                Kind::Invoked(_) => self.events.after(at),
                Kind::Returned | Kind::Edge => {
                    self.note_stuck(at);
                    match self.take_back() {
                        Some(invoked) => self.events.after(invoked),
                        None => return Err(self.furthest),
                    }
                }
            };
        }
        Ok(())
    }

    /// Places a step next, if the register allows it and what follows was not tried.
    fn place(&mut self, step: usize) -> bool {
        let Some(after) = self.steps[step].effect.on(self.state) else { return false };
        self.placed.insert(step);
        if !self.tried.insert((self.placed.clone(), after)) {
            self.placed.remove(step);
            return false;
        }
        self.order.push(Place { step, before: self.state });
        self.state = after;
        self.events.hide(step);
        self.missing -= usize::from(self.steps[step].is_required());
        true
    }

    /// Takes back the step that was placed last and returns where it was invoked.
    fn take_back(&mut self) -> Option<usize> {
        let Place { step, before } = self.order.pop()?;
        self.placed.remove(step);
        self.state = before;
        self.events.show(step);
        self.missing += usize::from(self.steps[step].is_required());
        Some(self.events.invoked[step])
    }

    /// Keeps the longest order for the report.
    fn note_stuck(&mut self, returned: usize) {
        let is_first = self.furthest.pending.is_empty();
        if !is_first && self.order.len() <= self.furthest.order.len() {
            return;
        }
        let operation = |step: usize| self.steps[step].operation;
        let order = self.order.iter().map(|place| operation(place.step)).collect();
        let pending = self.events.invoked_before(returned).map(operation).collect();
        self.furthest = Stuck { order, state: self.state, pending };
    }
}

/// The position before the first event and after the last.
const EDGE: usize = 0;

/// Invocations and returns by time, in a ring from which a step's events can be taken out and put
/// back where they were.
#[derive(Debug)]
struct Events {
    kinds: Vec<Kind>,
    after: Vec<usize>,
    before: Vec<usize>,
    /// Where each step's events are.
    invoked: Vec<usize>,
    returned: Vec<Option<usize>>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Edge,
    Invoked(usize),
    Returned,
}

impl Events {
    fn of(steps: &[Step<'_>]) -> Self {
        // At one instant invocations come first: only what returned strictly earlier is ordered.
        let mut times: Vec<(Duration, bool, usize)> = Vec::new();
        for (position, step) in steps.iter().enumerate() {
            times.push((step.operation.invoked, false, position));
            times.extend(step.operation.returned().map(|returned| (returned, true, position)));
        }
        times.sort_unstable();
        let mut kinds = vec![Kind::Edge];
        let mut invoked = vec![EDGE; steps.len()];
        let mut returned = vec![None; steps.len()];
        for (_, returns, step) in times {
            if returns {
                returned[step] = Some(kinds.len());
                kinds.push(Kind::Returned);
            } else {
                invoked[step] = kinds.len();
                kinds.push(Kind::Invoked(step));
            }
        }
        let length = kinds.len();
        let after = (1..=length).map(|position| position % length).collect();
        let before = (0..length).map(|position| (position + length - 1) % length).collect();
        Self { kinds, after, before, invoked, returned }
    }

    fn after(&self, position: usize) -> usize {
        self.after[position]
    }

    fn hide(&mut self, step: usize) {
        for position in [Some(self.invoked[step]), self.returned[step]].into_iter().flatten() {
            let (before, after) = (self.before[position], self.after[position]);
            self.after[before] = after;
            self.before[after] = before;
        }
    }

    /// Undoes [`Events::hide`]; only the step that was hidden last can be shown.
    fn show(&mut self, step: usize) {
        for position in [self.returned[step], Some(self.invoked[step])].into_iter().flatten() {
            let (before, after) = (self.before[position], self.after[position]);
            self.after[before] = position;
            self.before[after] = position;
        }
    }

    /// The steps in the list that were invoked before a position.
    fn invoked_before(&self, end: usize) -> impl Iterator<Item = usize> {
        let mut at = EDGE;
        std::iter::from_fn(move || {
            at = self.after[at];
            (at != end && at != EDGE).then_some(at)
        })
        .filter_map(|position| match self.kinds[position] {
            Kind::Invoked(step) => Some(step),
            Kind::Returned | Kind::Edge => None,
        })
    }
}

/// A set of steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Set(Vec<u64>);

impl Set {
    fn new(steps: usize) -> Self {
        Self(vec![0; steps.div_ceil(64)])
    }

    fn insert(&mut self, step: usize) {
        self.0[step / 64] |= 1 << (step % 64);
    }

    fn remove(&mut self, step: usize) {
        self.0[step / 64] &= !(1 << (step % 64));
    }
}
