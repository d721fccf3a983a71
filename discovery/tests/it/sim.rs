//! Random histories: changing resources, clients of all kinds, and delayed messages. Invariants are
//! checked after each event. At the end all messages are delivered, and every client must have all
//! resources that it wants.
//!
//! A failure prints its seed. `SEED=n` replays it.

use std::time::Duration;

use rand::prelude::*;

mod character;
mod client;
mod wire;
mod world;

use character::Character;
use client::Client;
use world::World;

const SEEDS: u64 = 3_000;
const EVENTS_PER_CLIENT: usize = 17;

/// Longer than any wait, and than any pause before a rejected resource is tried again.
const LONG: Duration = Duration::from_secs(120);

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
        client.connect(&mut world, &mut rng);
    }
    for _ in 0..3 {
        for _ in 0..EVENTS_PER_CLIENT * clients.len() / 3 {
            event(&mut world, &mut clients, &mut rng);
        }
        rest(&mut world, &mut clients, &mut rng);
        invariant_nothing_new_nothing_sent(&mut world, &mut clients);
    }
    for client in &mut clients {
        client.free_ports();
    }
    rest(&mut world, &mut clients, &mut rng);
}

fn event(world: &mut World, clients: &mut [Client], rng: &mut StdRng) {
    let client = clients.choose_mut(rng).expect("there are clients");
    match rng.random_range(0..100) {
        0..4 => world.step(rng),
        // Short steps, so that only clients that never answer exceed the patience.
        4..8 => world.now += Duration::from_millis(rng.random_range(0..400)),
        8..10 => client.tick(world.now),
        10..35 => client.notify(world),
        35..65 => client.take_request(world),
        65..95 => client.take_response(rng),
        95..99 => client.act(rng),
        _ => client.connect(world, rng),
    }
}

/// Delivers messages and lets time pass until nothing is under way or waiting.
fn rest(world: &mut World, clients: &mut [Client], rng: &mut StdRng) {
    let end = world.now + LONG;
    for client in &mut *clients {
        client.notify(world);
        deliver(world, client, rng);
    }
    while let Some(at) = clients.iter().filter_map(Client::next_deadline).min()
        && at <= end
    {
        world.now = at;
        for client in &mut *clients {
            client.tick(at);
            deliver(world, client, rng);
        }
    }
    world.now = end;
    for client in clients {
        client.tick(end);
        deliver(world, client, rng);
        if client.is_silent() {
            client.invariant_has_something_of_all(world.snapshot());
        } else {
            client.invariant_has_what_there_is(world.snapshot());
            client.invariant_no_cluster_waits_for_ever(world.snapshot());
        }
    }
}

fn deliver(world: &mut World, client: &mut Client, rng: &mut StdRng) {
    let mut messages = 0;
    while client.has_messages() {
        client.take_request(world);
        client.take_response(rng);
        messages += 1;
        assert!(messages < 10_000, "{client:?} never comes to rest");
    }
}

fn invariant_nothing_new_nothing_sent(world: &mut World, clients: &mut [Client]) {
    for client in &mut *clients {
        client.notify(world);
        assert!(!client.has_messages(), "{client:?} was sent what it has");
    }
    world.step_without_change();
    for client in clients {
        client.notify(world);
        assert!(!client.has_messages(), "{client:?} was sent what it has");
    }
}
