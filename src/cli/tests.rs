use std::collections::BTreeSet;

use super::*;

#[test]
fn the_definition_of_the_commands_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_teaches_with_examples() {
    let mut command = Cli::command();
    command.build();
    for command in leaves(&mut command) {
        let help = command.render_long_help().to_string();
        let example = format!("  {}", command.get_bin_name().unwrap_or_default());
        assert!(help.contains(&example), "no example in: {help}");
    }
}

#[test]
fn every_flag_has_help() {
    let mut command = Cli::command();
    command.build();
    for command in leaves(&mut command) {
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{} of {}", arg.get_id(), command.get_name());
        }
    }
}

#[test]
fn the_commands_are_those_of_the_interface() {
    let command = Cli::command();
    let names: BTreeSet<_> = command.get_subcommands().map(clap::Command::get_name).collect();
    let expected = [
        "serve",
        "init",
        "dev",
        "status",
        "members",
        "member",
        "services",
        "service",
        "endpoints",
        "groups",
        "group",
        "reclaim",
        "register",
        "deregister",
        "envoy",
        "bench",
        "completions",
        "man",
        "version",
    ];
    assert_eq!(names, expected.into());
}

#[test]
fn nothing_to_do_teaches() {
    assert!(matches!(parse_words("quorate"), Ok(Invocation::Teach(_))));
    assert!(matches!(parse_words("quorate envoy"), Ok(Invocation::Teach(_))));
    assert!(matches!(parse_words("quorate -h"), Ok(Invocation::Tell(_))));
    assert!(matches!(parse_words("quorate --version"), Ok(Invocation::Tell(_))));
}

#[test]
fn a_wrong_flag_is_named_with_a_tip() {
    let failure = parse_words("quorate serve --service all").expect_err("no such flag");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("--service"), "{failure}");
    assert!(failure.hint.is_some_and(|hint| hint.contains("--services")));
}

#[test]
fn a_wrong_value_leads_to_the_help_of_its_command() {
    let failure = parse_words("quorate group show default --timeout soon").expect_err("no time");
    assert_eq!(failure.hint.as_deref(), Some("see `quorate group show -h`"), "{failure}");
}

#[test]
fn a_name_for_an_address_is_refused_as_a_name() {
    let failure = parse_words("quorate serve --services data --disco disco-1:7400");
    let failure = failure.expect_err("a name");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("--disco"), "{failure}");
    assert!(failure.message.contains("resolves no names"), "{failure}");
}

#[test]
fn a_wrong_value_from_the_environment_names_the_variable() {
    let environment = [("QUORATE_LISTEN".to_owned(), "everywhere".to_owned())];
    let failure = parse(&words("quorate serve"), &environment).expect_err("no address");
    assert!(failure.message.contains("QUORATE_LISTEN"), "{failure}");
}

#[test]
fn help_names_the_variable_of_a_flag() {
    let Ok(Invocation::Tell(help)) = parse_words("quorate serve -h") else { panic!("no help") };
    let words: Vec<&str> = help.split_whitespace().collect();
    assert!(words.join(" ").contains("[env: QUORATE_DATA_DIR]"), "{help}");
}

#[test]
fn an_error_is_json_when_json_is_wanted() {
    assert_eq!(format_of(&words("quorate serve --format json --nonsense"), &[]), Format::Json);
    let environment = [("QUORATE_FORMAT".to_owned(), "json".to_owned())];
    assert_eq!(format_of(&words("quorate"), &environment), Format::Json);
    assert_eq!(format_of(&words("quorate register -- a --format json"), &[]), Format::Table);
}

#[test]
fn a_program_keeps_its_own_flags() {
    let line = "quorate register --service a --address 10.0.0.1:1 -- ./a --service b -- c";
    let Ok(Invocation::Run(run)) = parse_words(line) else { panic!("parses") };
    assert!(matches!(run.0.command, Command::Register(_)));
}

#[test]
fn a_front_proxy_needs_no_service_and_a_sidecar_does() {
    assert!(matches!(
        parse_words("quorate envoy bootstrap --front 8080,2379"),
        Ok(Invocation::Run(_))
    ));
    let failure = parse_words("quorate envoy bootstrap").expect_err("which service?");
    assert!(failure.message.contains("--service"), "{failure}");
}

fn parse_words(line: &str) -> Result<Invocation, Failure> {
    parse(&words(line), &[])
}

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

/// The commands that do something.
fn leaves(command: &mut clap::Command) -> Vec<&mut clap::Command> {
    if command.has_subcommands() {
        let below = command.get_subcommands_mut().filter(|it| it.get_name() != "help");
        below.flat_map(leaves).collect()
    } else {
        vec![command]
    }
}
