use clap::{CommandFactory, Parser};
use serde_json::json;

use super::*;
use crate::failure::Code;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    options: OptionArgs,
}

#[test]
fn every_option_of_a_document_may_be_a_flag() {
    let given = [
        "--request-timeout=5s",
        "--stream-idle=never",
        "--option=timeouts.stream=2h",
        "--option=retries.when=safe",
        "--option=retries.attempts=3",
        "--option=limits.connectionDuration=30m",
        "--option=outlierDetection.off=true",
        "--option=healthCheck.tcp=",
        "--option=healthCheck.interval=10",
        "--option=loadBalancing.policy=ring-hash",
        "--option=loadBalancing.hash.cookie.name=user",
        "--option=accessLog.to=/var/log/orders.log",
        "--option=forgetAfter=7d",
    ];
    let options = parse(&given).options().expect("all of it is allowed");
    assert_eq!(
        document(Some(&options.to_proto())),
        json!({
            "timeouts": { "request": "5s", "streamIdle": "never", "stream": "2h" },
            "retries": { "when": "safe", "attempts": 3 },
            "limits": { "connectionDuration": "30m" },
            "outlierDetection": { "off": true },
            "healthCheck": { "tcp": {}, "interval": "10s" },
            "loadBalancing": { "policy": "ring-hash", "hash": { "cookie": { "name": "user" } } },
            "accessLog": { "to": "/var/log/orders.log", "format": "text" },
            "forgetAfter": "7d",
        })
    );
}

#[test]
fn who_gives_no_option_asks_for_none() {
    assert_eq!(parse(&[]).asked(), Ok(None));
    // To ask for the defaults is to ask for something.
    let defaults = parse(&["--option=tryUnhealthy=false"]).asked();
    assert_eq!(defaults, Ok(Some(wire::ServiceOptions::default())));
    let asked = parse(&["--try-unhealthy"]).asked().expect("it is allowed");
    assert!(asked.is_some_and(|it| it.try_unhealthy));
}

#[test]
fn a_wrong_option_is_named_with_what_is_allowed() {
    for (given, told) in [
        ("retrys.attempts=3", "unknown field `retrys`, expected one of `timeouts`, `retries`"),
        ("retries.tries=3", "unknown field `tries`, expected one of `when`, `attempts`"),
        ("retries.attempts=99", "option retries.attempts is 99: it is 0 to 20"),
        ("timeouts.request=soon", "`soon` is no duration"),
        ("loadBalancing.policy=random", "unknown variant `random`"),
        ("tryUnhealthy.of=true", "invalid type"),
    ] {
        let failure = parse(&["--option", given]).options().expect_err(given);
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.message.contains(told), "{given}: {failure}");
        assert!(failure.hint.is_some_and(|it| it.contains("docs/services.md")));
    }
    let twice = ["--option=forgetAfter=1h", "--option=forgetAfter.x=1h"];
    let failure = parse(&twice).options().expect_err("a path through a value");
    assert!(failure.message.contains("an earlier --option"), "{failure}");
    for wrong in ["retries.attempts", "=3"] {
        let error = Program::try_parse_from(["x", "--option", wrong]).expect_err(wrong);
        assert!(error.to_string().contains("PATH=VALUE"), "{error}");
    }
}

/// So that nobody has to look for a page to learn what there is.
#[test]
fn the_help_names_every_option() {
    let help = Program::command().render_long_help().to_string();
    let given = [
        ("timeouts", "request"),
        ("retries", "budgetMin"),
        ("limits", "requestsPerConnection"),
        ("outlierDetection", "maxEjectionPercent"),
        ("healthCheck", "unhealthyAfter"),
        ("loadBalancing", "slowStart.minWeightPercent"),
        ("accessLog", "format"),
    ];
    for (group, last) in given {
        assert!(help.contains(&format!("{group}: ")) && help.contains(last), "{group}: {help}");
    }
}

fn parse(given: &[&str]) -> OptionArgs {
    Program::try_parse_from([&["x"], given].concat()).expect("the flags are right").options
}
