use clap::{CommandFactory, FromArgMatches, Parser};

use super::*;
use crate::failure::Code;

#[derive(Debug, PartialEq, Parser)]
struct Example {
    #[arg(long)]
    zone: Option<String>,
    #[arg(long, default_value = "quorate-data")]
    data_dir: String,
    #[arg(long)]
    meta: Vec<String>,
    #[arg(long)]
    if_needed: bool,
    #[arg(long)]
    config: Option<String>,
}

#[test]
fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
    let file = "zone = 'file'\ndata-dir = 'file'\n";
    let environment = [("QUORATE_DATA_DIR", "environment"), ("QUORATE_ZONE", "environment")];
    let parsed = parse(&["--zone", "flag"], &environment, file).expect("valid");
    assert_eq!(parsed.zone.as_deref(), Some("flag"));
    assert_eq!(parsed.data_dir, "environment");
    assert_eq!(parse(&[], &[], file).expect("valid").data_dir, "file");
    assert_eq!(parse(&[], &[], "").expect("valid").data_dir, "quorate-data");
}

#[test]
fn an_empty_variable_is_not_set() {
    let parsed = parse(&[], &[("QUORATE_DATA_DIR", "")], "data-dir = 'file'").expect("valid");
    assert_eq!(parsed.data_dir, "file");
}

#[test]
fn lists_numbers_and_switches_are_taken_from_files() {
    let parsed = parse(&[], &[], "meta = ['a=1', 'b=2']\nif-needed = true\nzone = 7");
    let parsed = parsed.expect("valid");
    assert_eq!(parsed.meta, ["a=1", "b=2"]);
    assert!(parsed.if_needed);
    assert_eq!(parsed.zone.as_deref(), Some("7"));
}

#[test]
fn a_list_in_the_environment_is_comma_separated() {
    let parsed = parse(&[], &[("QUORATE_META", "a=1,b=2")], "").expect("valid");
    assert_eq!(parsed.meta, ["a=1", "b=2"]);
}

#[test]
fn an_unknown_key_is_refused_by_name_with_the_nearest() {
    for (key, near) in [("data_dir", "data-dir"), ("zones", "zone"), ("ifneeded", "if-needed")] {
        let failure = parse(&[], &[], &format!("{key} = 'x'")).expect_err("unknown");
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.message.contains(&format!("`{key}`")), "{failure}");
        assert_eq!(failure.hint, Some(format!("did you mean `{near}`?")));
    }
    let far = parse(&[], &[], "colour = 'x'").expect_err("unknown");
    assert!(far.hint.is_some_and(|hint| !hint.contains("did you mean")));
    assert!(parse(&[], &[], "config = 'other.toml'").is_err());
}

#[test]
fn an_unknown_variable_is_refused_by_name_with_the_nearest() {
    let failure = parse(&[], &[("QUORATE_ZONNE", "a")], "").expect_err("unknown");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("QUORATE_ZONNE"), "{failure}");
    assert_eq!(failure.hint.as_deref(), Some("did you mean QUORATE_ZONE?"));
    assert!(parse(&[], &[("QUORATE_CACHE_SIZE_OF_ALL", "1")], "").is_err());
}

#[test]
fn variables_of_kubernetes_and_empty_ones_are_no_mistakes() {
    let others = [
        ("QUORATE_SERVICE_HOST", "10.0.0.1"),
        ("QUORATE_SERVICE_PORT_MESH", "7400"),
        ("QUORATE_PORT", "tcp://10.0.0.1:7400"),
        ("QUORATE_DISCO_PORT_7400_TCP_ADDR", "10.0.0.1"),
        ("QUORATE_ZONNE", ""),
        ("OTHER_ZONNE", "a"),
    ];
    assert!(parse(&[], &others, "").is_ok());
}

#[test]
fn a_file_that_is_no_flat_toml_is_refused() {
    let broken = parse(&[], &[], "zone = 'a'\n\nzone").expect_err("no TOML");
    assert_eq!(broken.code, Code::Usage);
    assert!(broken.message.contains("quorate.toml, line 3"), "{broken}");
    let nested = parse(&[], &[], "\n[zone]\na = 1").expect_err("a table");
    assert!(nested.message.contains("quorate.toml, line 2: `zone`"), "{nested}");
    let unknown = parse(&[], &[], "zone = 'a'\nzonne = 'b'").expect_err("an unknown key");
    assert!(unknown.message.contains("quorate.toml, line 2: unknown key `zonne`"), "{unknown}");
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    let arguments = ["example".into(), "--config=/nowhere/quorate.toml".into()];
    let loaded = Layers::load(&Example::command(), &arguments, std::iter::empty());
    let failure = loaded.expect_err("no file");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("/nowhere/quorate.toml"), "{failure}");
}

#[test]
fn a_flag_is_found_before_parsing_but_not_behind_the_end_of_flags() {
    let found = |arguments: &[&str]| {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        flag_in(&arguments, "config")
    };
    assert_eq!(found(&["quorate", "serve", "--config", "a"]).as_deref(), Some("a"));
    assert_eq!(found(&["quorate", "--config=b"]).as_deref(), Some("b"));
    assert_eq!(found(&["quorate", "--configuration=b"]), None);
    assert_eq!(found(&["quorate", "register", "--", "--config", "a"]), None);
}

fn parse(flags: &[&str], environment: &[(&str, &str)], file: &str) -> Result<Example, Failure> {
    let command = Example::command();
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut layers = Layers::load(&command, &[], environment.into_iter())?;
    layers.file = Some(File::parse(Path::new("quorate.toml"), file, &keys(&command))?);
    let mut matches = layers
        .apply(command)
        .try_get_matches_from([&["example"], flags].concat())
        .expect("the flags parse");
    Ok(Example::from_arg_matches_mut(&mut matches).expect("the flags are complete"))
}
