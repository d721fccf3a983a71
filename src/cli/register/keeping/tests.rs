use std::sync::mpsc;

use nix::sys::signal::Signal;
use proto::quorate::v1::Instance;
use tokio::net::TcpListener;

use super::*;
use crate::cli::client::Disco;

const DEADLINE: Duration = Duration::from_secs(30);

/// What no test waits for.
const LONG: Duration = Duration::from_secs(3_600);

/// How long it is watched that something does not happen.
const QUIET: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_stop_waits_for_no_answer() {
    // The system accepts connections to it, and nobody ever answers.
    let black_hole = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = black_hole.local_addr().expect("bound");
    for told in [None, Some(Health::Healthy)] {
        let disco = Disco::new(vec![address], LONG);
        let mut keeping = Keeping::start(registration(disco), condition(Health::Healthy), None);
        let (_told, told_rx) = watch::channel(told);
        keeping.told = told_rx;
        let ended = timeout(DEADLINE, keeping.end(End::Signal, None, signals(), LONG)).await;
        assert_eq!(ended.expect("in time"), Ok(0), "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_under_way_does_not_undo_draining() {
    let (mut keeping, _told) = idle(Some(Health::Draining));
    let (entered, has_entered) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let health = keeping.health.clone();
    keeping.checks.spawn(async move {
        // Past its last await: from here an abort comes too late.
        entered.send(()).expect("the test listens");
        let _ = released.recv();
        health.send_replace(condition(Health::Healthy));
    });
    has_entered.recv_timeout(DEADLINE).expect("the check runs");
    let mut health = keeping.health.subscribe();
    let mut ending = JoinSet::new();
    ending.spawn(keeping.end(End::Signal, None, signals(), Duration::ZERO));
    let draining =
        timeout(QUIET, health.wait_for(|it| it.health == Health::Draining)).await.is_ok();
    release.send(()).expect("the check waits");
    ending.join_next().await.expect("a task").expect("no panic").expect("a clean end");
    assert!(!draining, "it is said while a check may still speak");
    assert_eq!(health.borrow().health, Health::Draining);
}

#[tokio::test]
async fn a_keeper_that_fails_ends_the_instance() {
    let (mut keeping, _told) = idle(Some(Health::Healthy));
    keeping.keeper.abort_all();
    let failure = failure(keeping).await;
    assert_eq!(failure.code, Code::Other);
    assert!(failure.message.contains("keeps the instance registered"), "{failure}");
}

#[tokio::test]
async fn a_check_that_fails_ends_the_instance() {
    let (mut keeping, _told) = idle(Some(Health::Healthy));
    keeping.checks.spawn(async { panic!("a defect") });
    let failure = failure(keeping).await;
    assert_eq!(failure.code, Code::Other);
    assert!(failure.message.contains("health check"), "{failure}");
    assert!(failure.message.contains("a defect"), "{failure}");
}

async fn failure(keeping: Keeping) -> Failure {
    let ended = keeping.until_the_end(None, signals(), Duration::ZERO);
    timeout(DEADLINE, ended).await.expect("in time").expect_err("a task failed")
}

/// Keeps an instance that no DISCO knows, by a task that waits for its end.
fn idle(told: Option<Health>) -> (Keeping, watch::Sender<Option<Health>>) {
    let (health, _) = watch::channel(condition(Health::Healthy));
    let (told_tx, told) = watch::channel(told);
    let shutdown = CancellationToken::new();
    let until = shutdown.clone();
    let mut keeper = JoinSet::new();
    keeper.spawn(async move {
        until.cancelled().await;
        (registration(Disco::new(Vec::new(), DEADLINE)), Ok(()))
    });
    let checks = JoinSet::new();
    (Keeping { health, told, shutdown, checks, keeper, left: None }, told_tx)
}

fn registration(disco: Disco) -> Registration {
    let address = "127.0.0.1:8000".to_owned();
    let instance = Instance { service: "web".to_owned(), address, ..Instance::default() };
    Registration::new(disco, instance, Duration::ZERO)
}

fn condition(health: Health) -> Condition {
    Condition::new(health, "")
}

/// None that another test of this process sends.
fn signals() -> Signals {
    Signals::watch(&[Signal::SIGWINCH]).expect("signals can be watched")
}
