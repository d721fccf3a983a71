//! Three data servers are killed, frozen and restarted under clients that read and write a few
//! keys through all of them: there must be one order that explains everything the clients were
//! told, and afterwards the replicas must hold the same.

mod clients;
mod nemesis;

use std::{collections::BTreeSet, env};

use harness::{
    Server, eventually_some,
    history::{self, Action, Operation, Outcome},
    kv::Kv,
    mesh::form,
    recorder::Recorder,
    wait::{LATE, SOON},
};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::modes::{addresses, all_are_ready, started};
use clients::{CLIENTS, Clients};
use nemesis::Nemesis;

/// Disturbances in a row: each kind six times.
const ROUNDS: usize = 36;

/// One seed is replayed with `SEED=`. It decides what is done, not how fast anybody is.
#[tokio::test]
async fn answers_have_one_order_whatever_happens_to_the_servers() {
    let seed = env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("SEED={seed}");
    let directory = TempDir::new().unwrap();
    let mut servers = started(directory.path(), "data");
    form(&addresses(&servers)).await;
    all_are_ready(&servers).await;
    let clients = Clients::start(&servers, seed);
    let mut nemesis = Nemesis::new(seed);
    for round in 0..ROUNDS {
        clients.written().await;
        let what = nemesis.disturb(&mut servers, &clients).await;
        eprintln!("round {round}: {what}");
    }
    all_are_ready(&servers).await;
    clients.written().await;
    let origin = clients.origin();
    let mut operations = clients.stop().await;
    print_measured(&operations);

    let revision = read_all(&servers, &mut operations, origin).await;
    if let Err(violation) = history::check(&operations) {
        panic!("SEED={seed}: {violation}");
    }
    assert_replicas_are_equal(&servers, revision).await;
}

/// Reads every key through every server and adds that to the history. Returns the latest revision.
async fn read_all(servers: &[Server], operations: &mut Vec<Operation>, origin: Instant) -> i64 {
    let keys: BTreeSet<String> = operations.iter().map(|it| it.key.clone()).collect();
    let mut latest = 0;
    for (position, server) in servers.iter().enumerate() {
        let mut recorder = Recorder::new(CLIENTS + position, server.kv(), origin);
        for key in &keys {
            let read = async || {
                let operation = recorder.perform(key.clone(), Action::Get).await;
                let Outcome::Done { revision, .. } = operation.outcome else { return None };
                Some((operation, revision))
            };
            let (operation, revision) = eventually_some("a key is read", LATE, read).await;
            operations.push(operation);
            latest = latest.max(revision);
        }
    }
    latest
}

/// Every replica comes to hold the same history of all keys.
async fn assert_replicas_are_equal(servers: &[Server], revision: i64) {
    let mut hashes = Vec::new();
    for server in servers {
        let mut kv = Kv::at(server.kv());
        let hashed = async || kv.hash_at(revision).await.ok();
        let hash = eventually_some("a replica has caught up", SOON, hashed).await;
        hashes.push((hash.compact_revision, hash.hash));
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "at revision {revision}: {hashes:x?}");
}

fn print_measured(operations: &[Operation]) {
    let count = |wanted: fn(&Operation) -> bool| operations.iter().filter(|it| wanted(it)).count();
    eprintln!(
        "measured: {ROUNDS} rounds, {} operations, {} answered, {} of them acknowledged writes, {} \
         refused, {} unknown",
        operations.len(),
        count(|it| it.returned().is_some()),
        count(Operation::is_acknowledged_write),
        count(|it| it.outcome == Outcome::Failed),
        count(|it| it.outcome == Outcome::Unknown),
    );
}
