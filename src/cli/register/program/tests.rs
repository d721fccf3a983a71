use super::*;
use crate::failure::Code;

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
    let mut signals = Signals::install(true).expect("signals can be watched");
    assert_eq!(program.stop(&mut signals).await, Ok(143));
}

#[tokio::test]
async fn what_cannot_be_run_is_a_wrong_usage() {
    let failure = Program::start(&words(&["/no/such/program"])).err().expect("it is not there");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("/no/such/program"), "{failure}");
}

async fn code_of(script: &str) -> u8 {
    let mut program = Some(Program::start(&words(&["sh", "-c", script])).expect("it starts"));
    Program::ended(&mut program).await.expect("it can be awaited")
}

fn words(command: &[&str]) -> Vec<OsString> {
    command.iter().map(OsString::from).collect()
}
