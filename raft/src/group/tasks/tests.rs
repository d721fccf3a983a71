use std::future::{pending, ready};

use mesh::GroupId;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{GroupFailure, TaskGuard};

#[tokio::test]
async fn a_task_that_ends_or_panics_is_reported() {
    let (alarm, mut failures) = alarm();
    let mut tasks = JoinSet::new();
    tasks.spawn(alarm().guard(ready(())));
    assert_eq!(failures.recv().await, Some((2, ended())));
    tasks.spawn(alarm().guard(async { panic!("as a defect would") }));
    assert_eq!(failures.recv().await, Some((2, ended())));
}

#[tokio::test]
async fn a_task_that_is_stopped_is_not_reported() {
    let (alarm, mut failures) = alarm();
    let stopping = alarm().stopping.clone();
    failures.recv().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(alarm().guard(pending()));
    stopping.cancel();
    tasks.shutdown().await;
    drop(alarm);
    assert_eq!(failures.recv().await, None);
}

fn ended() -> GroupFailure {
    GroupFailure::Broken("the task that sings ended".to_owned())
}

/// Makes guards of one group, and the channel that they report to.
fn alarm() -> (impl Fn() -> TaskGuard, mpsc::Receiver<(GroupId, GroupFailure)>) {
    let (failures, reported) = mpsc::channel(1);
    let stopping = CancellationToken::new();
    let alarm = move || TaskGuard {
        group: 2,
        task: "sings",
        stopping: stopping.clone(),
        failures: failures.clone(),
    };
    (alarm, reported)
}
