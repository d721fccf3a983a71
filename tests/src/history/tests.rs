use std::{collections::BTreeSet, ops::Range};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

#[test]
fn one_client_after_the_other() {
    accepts(&[
        get(0..1, 0, None),
        put(1, 2..3, 1),
        get(4..5, 1, seen(1, 1)),
        swap(1, 2, 6..7, 2),
        get(8..9, 2, seen(2, 2)),
        swap_refused(1, 3, 10..11, 2, seen(2, 2)),
        put(4, 12..13, 3),
        get(14..15, 3, seen(4, 3)),
    ]);
}

#[test]
fn concurrent_operations_may_come_in_any_order() {
    let writes = [put(1, 0..100, 1), put(2, 0..100, 2)];
    for found in [None, seen(1, 1), seen(2, 2)] {
        let revision = found.map_or(0, |version| version.revision);
        accepts(&[&writes[..], &[get(10..20, revision, found)]].concat());
    }
    // A return and an invocation at one instant are concurrent.
    accepts(&[put(1, 0..10, 1), get(10..20, 0, None)]);
}

#[test]
fn a_stale_read_is_found() {
    let history = [
        put(1, 0..1, 1),
        put(2, 2..3, 2),
        put(3, 4..5, 3),
        put(4, 6..7, 4),
        put(5, 8..9, 5),
        put(6, 10..11, 6),
        get(12..15, 6, seen(1, 1)),
        get(13..14, 6, seen(6, 6)),
    ];
    let expected = "\
broken: each key is linearizable
k: at most 7 operations have an order, ending with
    0.000000..0.001000 client 0 k put 1: done at 1
    ...
    0.006000..0.007000 client 0 k put 4: done at 4
    0.008000..0.009000 client 0 k put 5: done at 5
    0.010000..0.011000 client 0 k put 6: done at 6
    0.013000..0.014000 client 0 k get: found 6 of revision 6, read at 6
which leaves 6 of revision 6; none of these can come next:
    0.012000..0.015000 client 0 k get: found 1 of revision 1, read at 6";
    assert_eq!(check(&history).unwrap_err().to_string(), expected);
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    rejects(Rule::Linearizable, &[put(1, 0..1, 1), get(2..3, 1, None)]);
    rejects(Rule::Linearizable, &[put(1, 0..1, 1), put(2, 2..3, 2), get(4..5, 2, seen(1, 1))]);
    // The revision that it had is given to another write.
    let given_twice = [put(1, 0..1, 1), put(2, 2..3, 1).on("other")];
    rejects(Rule::OneRevisionPerWrite, &given_twice);
    // The store begins anew.
    rejects(Rule::RevisionsFollowTime, &[put(1, 0..1, 1), get(2..3, 0, None)]);
}

#[test]
fn a_value_that_comes_back_is_found() {
    let reads = [
        put(1, 0..1, 1),
        put(2, 2..30, 2),
        get(4..5, 1, seen(1, 1)),
        get(6..7, 2, seen(2, 2)),
        get(8..9, 2, seen(1, 1)),
    ];
    rejects(Rule::Linearizable, &reads);
    // Proposed twice: once before another write and once after it.
    let proposed_twice = [
        unknown(Action::Put(1), 0),
        get(2..3, 1, seen(1, 1)),
        put(2, 4..5, 2),
        get(6..7, 3, seen(1, 3)),
    ];
    rejects(Rule::OneRevisionPerWrite, &proposed_twice);
}

#[test]
fn a_swap_that_succeeds_twice_is_found() {
    let by_value = |value, revision| swap(1, value, 10..20, revision);
    rejects(Rule::Linearizable, &[put(1, 0..1, 1), by_value(2, 2), by_value(3, 3)]);
    let swap = |value, revision| Operation {
        action: Action::Swap { expected: Expected::Revision(1), value },
        ..put(value, 10..20, revision)
    };
    rejects(Rule::Linearizable, &[put(1, 0..1, 1), swap(2, 2), swap(3, 3)]);
    accepts(&[put(1, 0..1, 1), swap(2, 2)]);
}

#[test]
fn a_swap_that_was_to_succeed_is_found() {
    rejects(Rule::Linearizable, &[put(1, 0..1, 1), swap_refused(1, 2, 2..3, 1, seen(1, 1))]);
}

#[test]
fn a_swap_may_expect_that_there_is_no_key() {
    let create = |value, revision| Operation {
        action: Action::Swap { expected: Expected::Revision(0), value },
        ..put(value, 0..9, revision)
    };
    accepts(&[create(1, 1), get(10..11, 1, seen(1, 1))]);
    rejects(Rule::Linearizable, &[create(1, 1), create(2, 2)]);
}

#[test]
fn an_unknown_write_may_be_seen_late_or_never() {
    let put_1 = unknown(Action::Put(1), 0);
    accepts(&[put_1.clone(), get(2..3, 0, None)]);
    accepts(&[put_1.clone(), get(2..3, 1, seen(1, 1))]);
    let late = [
        put_1.clone(),
        put(2, 2..3, 1),
        get(4..5, 1, seen(2, 1)),
        get(6..7, 2, seen(1, 2)),
        put(3, 8..9, 3),
        get(10..11, 3, seen(3, 3)),
    ];
    accepts(&late);
    accepts(&late[..5]);
    accepts(&[&late[1..3], &late[4..5], &late[..1]].concat());
    // But once it was seen, it cannot be undone, and not before it was asked for.
    rejects(Rule::Linearizable, &[put_1, get(2..3, 1, seen(1, 1)), get(4..5, 1, None)]);
    rejects(Rule::RevisionsFollowTime, &[get(0..1, 1, seen(1, 1)), unknown(Action::Put(1), 2)]);
}

#[test]
fn an_unknown_swap_needs_what_it_expects() {
    let swap = unknown(Action::Swap { expected: Expected::Value(1), value: 2 }, 2);
    accepts(&[put(1, 0..1, 1), swap.clone(), get(3..4, 2, seen(2, 2))]);
    accepts(&[put(1, 0..1, 1), swap.clone(), put(3, 3..4, 2)]);
    let too_late = [put(1, 0..1, 1), put(3, 1..2, 2), swap, get(6..7, 3, seen(2, 3))];
    rejects(Rule::Linearizable, &too_late);
}

#[test]
fn a_write_that_failed_is_never_seen() {
    let failed = Operation { outcome: Outcome::Failed, ..unknown(Action::Put(1), 0) };
    accepts(&[failed.clone(), get(2..3, 0, None)]);
    rejects(Rule::Linearizable, &[failed, get(2..3, 1, seen(1, 1))]);
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    rejects(Rule::Linearizable, &[get(0..1, 1, seen(1, 1))]);
}

#[test]
fn revisions_of_all_keys_follow_time() {
    accepts(&[put(1, 0..1, 1), put(2, 2..3, 2).on("other")]);
    accepts(&[put(1, 0..9, 2), put(2, 2..3, 1).on("other")]);
    let history = [put(1, 0..1, 2), put(2, 2..3, 1).on("other")];
    let expected = "\
broken: revisions follow time
    0.000000..0.001000 client 0 k put 1: done at 2
    0.002000..0.003000 client 0 other put 2: done at 1";
    assert_eq!(check(&history).unwrap_err().to_string(), expected);
    // Neither does a read fall behind, nor a write come before what was read, acknowledged or not.
    let wrote = put(1, 0..1, 5);
    rejects(Rule::RevisionsFollowTime, &[wrote.clone(), get(2..3, 4, None).on("other")]);
    let read = get(0..1, 5, None);
    rejects(Rule::RevisionsFollowTime, &[read, put(1, 2..3, 5).on("other")]);
    let other = unknown(Action::Put(2), 2).on("other");
    let seen_other = get(2..9, 9, seen(2, 4)).on("other");
    rejects(Rule::RevisionsFollowTime, &[wrote, other, seen_other]);
}

#[test]
fn keys_are_independent() {
    let history = [
        put(1, 0..1, 1),
        put(1, 2..3, 2).on("other"),
        get(4..5, 2, seen(1, 1)),
        get(4..5, 2, seen(1, 2)).on("other"),
    ];
    accepts(&history);
}

#[test]
fn long_histories_of_a_true_register_are_accepted() {
    for seed in 0..5 {
        let history = Simulation::new(seed).run(5000);
        assert_eq!(check(&history), Ok(()), "seed {seed}");
    }
}

#[test]
fn one_stale_read_in_a_long_history_is_found() {
    for seed in 0..5 {
        let mut history = Simulation::new(seed).run(5000);
        let writes: Vec<Operation> =
            history.iter().filter(|it| it.is_acknowledged_write()).cloned().collect();
        let middle = history.len() / 2;
        let is_get = |it: &&mut Operation| it.action == Action::Get && it.returned().is_some();
        let read = history.iter_mut().skip(middle).find(is_get).unwrap();
        // The first was overwritten thousands of operations ago.
        let found = writes[0].seen();
        if let Outcome::Done { answer, .. } = &mut read.outcome {
            *answer = Answer::Found(found);
        }
        let violation = check(&history).unwrap_err();
        assert_eq!(violation.rule, Rule::Linearizable, "seed {seed}: {violation}");
        let lines = violation.to_string().lines().count();
        assert!(lines < 30, "seed {seed}: {violation}");
    }
}

#[test]
fn the_search_agrees_with_trying_every_order() {
    let mut random = StdRng::seed_from_u64(1);
    let mut verdicts = BTreeSet::new();
    for round in 0..20_000 {
        let history = scramble(&mut random);
        let verdict = check(&history);
        let rule = verdict.as_ref().err().map(|violation| violation.rule);
        if matches!(rule, Some(Rule::OneRevisionPerWrite | Rule::RevisionsFollowTime)) {
            continue;
        }
        let expected = has_order(&history, &mut Vec::new(), None);
        assert_eq!(verdict.is_ok(), expected, "round {round}: {history:#?}");
        verdicts.insert(expected);
    }
    assert_eq!(verdicts.len(), 2, "both verdicts are needed");
}

#[track_caller]
fn accepts(history: &[Operation]) {
    if let Err(violation) = check(history) {
        panic!("{violation}");
    }
}

#[track_caller]
fn rejects(rule: Rule, history: &[Operation]) {
    let violation = check(history).expect_err("the history breaks a rule");
    assert_eq!(violation.rule, rule, "{violation}");
}

impl Operation {
    fn on(self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self }
    }
}

fn unknown(action: Action, invoked: u64) -> Operation {
    let invoked = Duration::from_millis(invoked);
    Operation { client: 0, key: "k".to_owned(), action, invoked, outcome: Outcome::Unknown }
}

fn done(action: Action, when: Range<u64>, revision: i64, answer: Answer) -> Operation {
    let returned = Duration::from_millis(when.end);
    let outcome = Outcome::Done { returned, revision, answer };
    Operation { outcome, ..unknown(action, when.start) }
}

fn put(value: u64, when: Range<u64>, revision: i64) -> Operation {
    done(Action::Put(value), when, revision, Answer::Wrote)
}

fn get(when: Range<u64>, revision: i64, found: Option<Version>) -> Operation {
    done(Action::Get, when, revision, Answer::Found(found))
}

fn swap(expected: u64, value: u64, when: Range<u64>, revision: i64) -> Operation {
    let action = Action::Swap { expected: Expected::Value(expected), value };
    done(action, when, revision, Answer::Wrote)
}

fn swap_refused(
    expected: u64,
    value: u64,
    when: Range<u64>,
    revision: i64,
    found: Option<Version>,
) -> Operation {
    let action = Action::Swap { expected: Expected::Value(expected), value };
    done(action, when, revision, Answer::Found(found))
}

fn seen(value: u64, revision: i64) -> Option<Version> {
    Some(Version { value, revision })
}

/// Clients of a register that takes effect at some instant within each operation, and sometimes
/// long after a client has given up.
struct Simulation {
    random: StdRng,
}

/// An operation and when it takes effect, if ever.
struct Planned {
    operation: Operation,
    effect: Option<Duration>,
}

impl Simulation {
    const CLIENTS: usize = 6;

    fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed) }
    }

    fn run(&mut self, operations: usize) -> Vec<Operation> {
        let mut clocks = [Duration::ZERO; Self::CLIENTS];
        let mut planned: Vec<Planned> =
            (0..operations).map(|number| self.plan(number, &mut clocks)).collect();
        planned.sort_by_key(|it| it.effect);
        let mut state: Option<Version> = None;
        let mut shown: Option<Version> = None;
        let mut revision = 0;
        for it in planned.iter_mut().filter(|it| it.effect.is_some()) {
            let written = self.apply(&mut it.operation.action, state, shown);
            if let Some(value) = written {
                revision += 1;
                state = Some(Version { value, revision });
            }
            if let Outcome::Done { revision: told, answer, .. } = &mut it.operation.outcome {
                *told = revision;
                *answer = written.map_or(Answer::Found(state), |_| Answer::Wrote);
                shown = state;
            }
        }
        planned.into_iter().map(|it| it.operation).collect()
    }

    fn plan(&mut self, number: usize, clocks: &mut [Duration]) -> Planned {
        let client = number % clocks.len();
        let invoked = clocks[client] + self.micros(100);
        let value = number as u64;
        let action = match self.random.random_range(0..3) {
            0 => Action::Get,
            1 => Action::Put(value),
            // What it expects is chosen when it takes effect.
            _ => Action::Swap { expected: Expected::Revision(0), value },
        };
        let (effect, outcome) = if self.random.random_ratio(1, 50) {
            let effect = self.random.random::<bool>().then(|| invoked + self.micros(20_000));
            clocks[client] = invoked + self.micros(2000);
            (effect, Outcome::Unknown)
        } else {
            let effect = invoked + self.micros(1000);
            let returned = effect + self.micros(1000);
            clocks[client] = returned;
            let answer = Answer::Found(None);
            (Some(effect), Outcome::Done { returned, revision: 0, answer })
        };
        let operation = Operation { client, key: "k".to_owned(), action, invoked, outcome };
        Planned { operation, effect }
    }

    /// Completes a swap, as often as not with what was shown last. Returns what is written.
    fn apply(
        &mut self,
        action: &mut Action,
        state: Option<Version>,
        shown: Option<Version>,
    ) -> Option<u64> {
        if let Action::Swap { expected, .. } = action {
            let met: bool = self.random.random();
            *expected = match shown {
                Some(version) if met && self.random.random() => Expected::Value(version.value),
                Some(version) if met => Expected::Revision(version.revision),
                _ => Expected::Revision(0),
            };
            if !expected.holds(state) {
                return None;
            }
        }
        action.value()
    }

    fn micros(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.random.random_range(1..=most))
    }
}

/// A few operations at random times with random answers, of which many make no sense.
fn scramble(random: &mut StdRng) -> Vec<Operation> {
    let count = random.random_range(2..=5);
    let mut history: Vec<Operation> = Vec::new();
    for value in 1..=count {
        let start = random.random_range(0..12);
        let when = start..start + random.random_range(0..6);
        let own = i64::try_from(value).unwrap();
        let writes: Vec<Version> = history.iter().filter_map(Operation::seen).collect();
        let found = writes.choose(random).copied();
        let expected = found.map_or(Expected::Revision(0), |it| {
            if random.random() {
                Expected::Value(it.value)
            } else {
                Expected::Revision(it.revision)
            }
        });
        history.push(match random.random_range(0..6) {
            0 => put(value, when, own),
            1 => unknown(Action::Put(value), start),
            2 => unknown(Action::Swap { expected, value }, start),
            3 => done(Action::Swap { expected, value }, when, own, Answer::Wrote),
            4 => {
                done(Action::Swap { expected, value }, when, count_of(count), Answer::Found(found))
            }
            _ => {
                // Also of writes without an answer, which nobody else has seen.
                let any = random.random_range(0..=value);
                let found = (any > 0).then(|| Version { value: any, revision: count_of(any) });
                get(when, count_of(count), found)
            }
        });
    }
    history
}

fn count_of(value: u64) -> i64 {
    i64::try_from(value).unwrap()
}

/// Whether some order of all answered and any unanswered operations explains the answers.
fn has_order(history: &[Operation], order: &mut Vec<usize>, state: Option<Version>) -> bool {
    let is_left = |position: &usize| !order.contains(position);
    let left: Vec<usize> = (0..history.len()).filter(is_left).collect();
    if left.iter().all(|position| history[*position].returned().is_none()) {
        return true;
    }
    left.iter().any(|&next| {
        let operation = &history[next];
        let waits = |other: &usize| {
            history[*other].returned().is_some_and(|returned| returned < operation.invoked)
        };
        if left.iter().any(waits) {
            return false;
        }
        let Some(after) = one_step(operation, state) else { return false };
        order.push(next);
        let found = has_order(history, order, after);
        order.pop();
        found
    })
}

/// What an operation leaves, if the register may answer so. Each value is its own revision.
fn one_step(operation: &Operation, state: Option<Version>) -> Option<Option<Version>> {
    let holds = match operation.action {
        Action::Swap { expected, .. } => expected.holds(state),
        Action::Get => false,
        Action::Put(_) => true,
    };
    if let Outcome::Done { answer: Answer::Found(found), .. } = operation.outcome {
        return (!holds && found == state).then_some(state);
    }
    let value = operation.action.value()?;
    let version = Version { value, revision: count_of(value) };
    let grows = state.is_none_or(|state| state.revision < version.revision);
    (holds && grows).then_some(Some(version))
}
