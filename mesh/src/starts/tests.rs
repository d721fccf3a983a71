use std::collections::BTreeSet;

use super::*;

#[test]
fn the_first_start_of_the_latest_epoch_counts() {
    let start = |epoch, number| Start { epoch, number };
    let cases = [
        (None, start(1, 7), StartOrder::Later),
        (None, start(0, 0), StartOrder::Later),
        (None, start(MOST_AHEAD + 1, 7), StartOrder::Implausible),
        (None, start(u64::MAX, 7), StartOrder::Implausible),
        (Some(start(3, 7)), start(3, 7), StartOrder::Counted),
        (Some(start(3, 7)), start(3, 0), StartOrder::Counted),
        (Some(start(3, 0)), start(3, 7), StartOrder::Later),
        (Some(start(3, 7)), start(4, 9), StartOrder::Later),
        (Some(start(3, 7)), start(4, 0), StartOrder::Later),
        (Some(start(3, 7)), start(2, 7), StartOrder::Earlier),
        (Some(start(3, 7)), start(3, 8), StartOrder::Copy),
        (Some(start(3, 7)), start(3 + MOST_AHEAD, 8), StartOrder::Later),
        (Some(start(3, 7)), start(4 + MOST_AHEAD, 8), StartOrder::Implausible),
        (Some(start(u64::MAX, 7)), start(u64::MAX, 8), StartOrder::Copy),
    ];
    for (counted, told, expected) in cases {
        assert_eq!(compare(counted, told), expected, "{counted:?} {told:?}");
    }
}

/// Two started copies of a server, and the other voters of its group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    /// The start of the copied server that each other voter counts.
    counted: Vec<Option<(u64, u64)>>,
    /// By copy: the voters that it knows to count it.
    heard: [BTreeSet<usize>; 2],
    /// By copy: the voters that accepted a vote or an acknowledgment from it.
    used: [BTreeSet<usize>; 2],
}

/// The two copies.
#[derive(Debug, Clone, Copy)]
struct Copies {
    /// Whether each is where it was made.
    original: [bool; 2],
    starts: [Start; 2],
}

impl Copies {
    /// Every possible next state. Messages arrive in any order, late, or never.
    fn next(&self, world: &World) -> Vec<World> {
        let mut next = Vec::new();
        for copy in [0, 1] {
            for voter in 0..world.counted.len() {
                let start = self.starts[copy];
                let known = world.counted[voter].map(|(epoch, number)| Start { epoch, number });
                // The voter learns of the start.
                let told = compare(known, start);
                if told == StartOrder::Later {
                    let mut world = world.clone();
                    world.counted[voter] = Some((start.epoch, start.number));
                    next.push(world);
                }
                // The voter reports that it counts the copy.
                if told == StartOrder::Counted {
                    let mut world = world.clone();
                    world.heard[copy].insert(voter);
                    next.push(world);
                }
                // The voter accepts a message or an answer from the copy.
                let takes_part =
                    self.original[copy] || world.heard[copy].len() == world.counted.len();
                if told == StartOrder::Counted && takes_part {
                    let mut world = world.clone();
                    world.used[copy].insert(voter);
                    next.push(world);
                }
            }
        }
        next
    }
}

#[test]
fn of_two_copies_started_at_once_voters_use_one_whatever_the_order() {
    let same_epoch = [Start { epoch: 5, number: 1 }, Start { epoch: 5, number: 2 }];
    for others in 1..=4 {
        for original in [[true, false], [false, true], [false, false]] {
            let reached = explore(Copies { original, starts: same_epoch }, others);
            for world in &reached {
                let both = world.used.iter().all(|used| !used.is_empty());
                assert!(!both, "{original:?}: {world:?}");
            }
            let some = reached.iter().any(|world| !world.used[0].is_empty());
            assert!(some, "the rule must not shut out everybody");
        }
    }
}

#[test]
fn a_later_copy_is_used_only_by_voters_that_all_dropped_the_earlier_one() {
    let starts = [Start { epoch: 5, number: 1 }, Start { epoch: 6, number: 2 }];
    for others in 1..=3 {
        let copies = Copies { original: [true, false], starts };
        for world in explore(copies, others) {
            if !world.used[1].is_empty() {
                // From here on no voter counts the earlier start again.
                let later = Some((6, 2));
                assert!(world.counted.iter().all(|counted| *counted == later), "{world:?}");
            }
        }
    }
}

/// Shows that the rule is needed: without it, each side of a partition would use its own copy.
#[test]
fn copies_that_ask_nobody_are_both_used() {
    let starts = [Start { epoch: 5, number: 1 }, Start { epoch: 5, number: 2 }];
    let reached = explore(Copies { original: [true, true], starts }, 2);
    assert!(reached.iter().any(|world| world.used.iter().all(|used| !used.is_empty())));
}

/// Every reachable state.
fn explore(copies: Copies, others: usize) -> BTreeSet<World> {
    let start = World {
        counted: vec![Some((4, 9)); others],
        heard: Default::default(),
        used: Default::default(),
    };
    let mut reached = BTreeSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some(world) = open.pop() {
        for next in copies.next(&world) {
            if reached.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    reached
}
