//! The leader of a data group is killed, again and again, under a steady stream of writes.

use harness::{
    Mesh, cli,
    kv::{Kv, Stored, Writers},
    stats::Durations,
    wait::LATE,
};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Leaders killed in a row.
const ROUNDS: usize = 20;

#[tokio::test]
async fn writes_resume_through_envoy_when_the_leader_is_killed() {
    let mut mesh = Mesh::start_with_front(3, 3).await;
    let front = mesh.front().kv;
    cli::etcdctl(front, &["put", "through", "envoy"]).await.ok();
    assert_eq!(cli::etcdctl(front, &["get", "through"]).await.ok(), "through\nenvoy\n");
    let mut writers = Writers::start(front, "key/", 4);
    let mut gaps = Vec::new();
    for round in 0..ROUNDS {
        mesh.caught_up().await;
        writers.first_after(Instant::now(), LATE).await;
        let leader = mesh.data_leader().await;
        let killed = Instant::now();
        mesh.data[leader].kill();
        let resumed = writers.first_after(killed, LATE).await;
        gaps.push(resumed.answered - killed);
        eprintln!("round {round}: {} ms", (resumed.answered - killed).as_millis());
        mesh.data[leader].start();
    }
    mesh.caught_up().await;
    let written = writers.stop().await;
    println_measured("kill to first write through Envoy", &Durations::new(gaps));
    assert_kept(&written, Kv::at(front), false).await;
    for server in &mesh.data {
        assert_kept(&written, Kv::at(server.kv()), false).await;
    }
}

fn println_measured(what: &str, durations: &Durations) {
    eprintln!("measured: {what}: {durations}");
}

/// Every acknowledged write is there, with its value and at its revision.
async fn assert_kept(written: &BTreeMap<String, Stored>, mut kv: Kv, serializable: bool) {
    let kept = kv.all("key/", serializable).await.unwrap();
    let lost: Vec<_> = written.iter().filter(|(key, it)| kept.get(*key) != Some(it)).collect();
    assert_eq!(lost, [], "of {} acknowledged writes", written.len());
}
