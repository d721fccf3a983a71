//! Random histories: a registry that changes, clients of all sorts, and messages that take their
//! time. Invariants are checked after each event; then everything comes to rest and every client
//! must have what there is.
//!
//! A failure prints its seed. `SEED=n` replays it.

use rand::prelude::*;

use discovery::snapshot::Snapshot;

mod character;
mod client;
mod wire;
mod world;

use character::Character;
use client::Client;
use world::World;

const SEEDS: u64 = 400;
const EVENTS: usize = 300;

#[test]
fn every_client_gets_what_there_is() {
    if let Ok(seed) = std::env::var("SEED") {
        run(seed.parse().expect("SEED is a number"));
        return;
    }
    for seed in 0..SEEDS {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            println!("failed with SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new();
    for _ in 0..rng.random_range(0..6) {
        world.step(&mut rng);
    }
    let mut clients: Vec<Client> =
        Character::all().into_iter().map(|it| Client::new(it, &mut rng)).collect();
    for client in &mut clients {
        client.connect(&mut rng);
    }
    for _ in 0..3 {
        for _ in 0..EVENTS / 3 {
            event(&mut world, &mut clients, &mut rng);
        }
        rest(&world.snapshot, &mut clients, &mut rng);
        invariant_nothing_new_nothing_sent(&mut world, &mut clients);
    }
}

fn event(world: &mut World, clients: &mut [Client], rng: &mut StdRng) {
    let client = clients.choose_mut(rng).expect("there are clients");
    match rng.random_range(0..100) {
        0..10 => world.step(rng),
        10..35 => client.notify(&world.snapshot),
        35..65 => client.take_request(&world.snapshot),
        65..95 => client.take_response(rng),
        95..99 => client.act(rng),
        _ => client.connect(rng),
    }
}

/// Delivers everything that is under way, until nothing is.
fn rest(snapshot: &Snapshot, clients: &mut [Client], rng: &mut StdRng) {
    for client in clients {
        client.notify(snapshot);
        let mut messages = 0;
        while client.has_messages() {
            client.take_request(snapshot);
            client.take_response(rng);
            messages += 1;
            assert!(messages < 10_000, "{client:?} never comes to rest");
        }
        client.invariant_has_what_there_is(snapshot);
        client.invariant_no_cluster_waits_for_ever(snapshot);
    }
}

fn invariant_nothing_new_nothing_sent(world: &mut World, clients: &mut [Client]) {
    for client in &mut *clients {
        client.notify(&world.snapshot);
        assert!(!client.has_messages(), "{client:?} was sent what it has");
    }
    world.step_without_change();
    for client in clients {
        client.notify(&world.snapshot);
        assert!(!client.has_messages(), "{client:?} was sent what it has");
    }
}
