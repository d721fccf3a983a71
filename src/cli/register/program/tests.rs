use tokio::sync::{Mutex, MutexGuard};

use super::*;
use crate::failure::Code;

/// A signal reaches every test of the process that watches signals.
static ONE_WATCHES: Mutex<()> = Mutex::const_new(());

async fn signals() -> (Signals, MutexGuard<'static, ()>) {
    let alone = ONE_WATCHES.lock().await;
    (Signals::install(true).expect("signals can be watched"), alone)
}

#[tokio::test]
async fn a_programs_exit_code_is_passed_on() {
    assert_eq!(code_of("exit 0").await, 0);
    assert_eq!(code_of("exit 23").await, 23);
}

#[tokio::test]
async fn a_program_that_a_signal_ended_has_the_code_that_shells_give() {
    assert_eq!(code_of("kill -KILL $$").await, 137);
    assert_eq!(code_of("kill -TERM $$").await, 143);
}

#[tokio::test]
async fn a_program_is_asked_to_stop() {
    let program = Program::start(&words(&["sleep", "1000"])).expect("it starts");
    let (mut signals, _alone) = signals().await;
    assert_eq!(program.stop(&mut signals).await, Ok(143));
}

#[tokio::test]
async fn what_cannot_be_run_is_a_wrong_usage() {
    let failure = Program::start(&words(&["/no/such/program"])).err().expect("it is not there");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("/no/such/program"), "{failure}");
}

/// nomad#3572: whatever the program has started ends with it, however it ends.
#[tokio::test]
async fn nothing_that_the_program_started_outlives_it() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let child = directory.path().join("child");
    let start = |rest: &str| {
        let script =
            format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; {rest}", child.display());
        Program::start(&words(&["sh", "-c", &script])).expect("it starts")
    };
    let (mut signals, _alone) = signals().await;

    let by_itself = start("exit 3");
    assert_eq!(Program::ended(&mut Some(by_itself)).await, Ok(3));
    ended(&child).await;

    let stopped = start("wait");
    let id = written(&child).await;
    assert_eq!(stopped.stop(&mut signals).await, Ok(143));
    ended_id(&id).await;
    std::fs::remove_file(&child).expect("it was read");

    let forgotten = start("trap '' TERM; while :; do sleep 0.1; done");
    let id = written(&child).await;
    drop(forgotten);
    ended_id(&id).await;
}

/// P10: the first signal has called `stop`; what ignores SIGTERM ends at the second, and all that it
/// has started with it.
#[tokio::test]
async fn a_second_signal_ends_a_program_that_ignores_the_first_with_all_that_it_started() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let child = directory.path().join("child");
    // What a shell ignores, its children ignore too.
    let script = format!(
        "trap '' TERM; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait",
        child.display()
    );
    let (mut signals, _alone) = signals().await;
    let program = Program::start(&words(&["sh", "-c", &script])).expect("it starts");
    let id = written(&child).await;
    nix::sys::signal::raise(Signal::SIGTERM).expect("a process can signal itself");
    assert_eq!(program.stop(&mut signals).await, Ok(137));
    ended_id(&id).await;
}

/// Waits until the process whose id stands in the file has ended, and removes the file.
async fn ended(file: &std::path::Path) {
    let id = written(file).await;
    ended_id(&id).await;
    std::fs::remove_file(file).expect("it was read");
}

async fn written(file: &std::path::Path) -> String {
    loop {
        if let Ok(text) = std::fs::read_to_string(file) {
            return text.trim().to_owned();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Nobody may be there to await an orphan, so a dead one counts as ended.
async fn ended_id(id: &str) {
    loop {
        match std::fs::read_to_string(format!("/proc/{id}/stat")) {
            Ok(stat) if !stat.contains(") Z ") => {}
            Ok(_) | Err(_) => return,
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn code_of(script: &str) -> u8 {
    let mut program = Some(Program::start(&words(&["sh", "-c", script])).expect("it starts"));
    Program::ended(&mut program).await.expect("it can be awaited")
}

fn words(command: &[&str]) -> Vec<OsString> {
    command.iter().map(OsString::from).collect()
}
