//! Flags over environment over file.
//!
//! Every flag `--some-flag` of every command is also the variable `QUORATE_SOME_FLAG` and the key
//! `some-flag` of the TOML file that `--config` names. Both become the defaults of the parser, so a
//! flag on the command line wins, and a value from anywhere is parsed by the same code. A variable
//! that is set but empty counts as not set. One file, and one environment, may serve several commands:
//! a key or a variable is refused only if no command has such a flag.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, Command};
use toml::{Spanned, Value};

use crate::failure::Failure;

#[cfg(test)]
mod tests;

const PREFIX: &str = "QUORATE_";

/// Variables with the prefix that are meant for the scripts and tests of the repository.
const OF_SCRIPTS: [&str; 4] = ["QUORATE_BIN", "QUORATE_ENVOY", "QUORATE_ETCD", "QUORATE_PYTHON"];

/// What Kubernetes adds to every container for a Kubernetes service of the name `quorate`, or of one
/// that begins so: `QUORATE_SERVICE_HOST`, `QUORATE_DISCO_PORT_7400_TCP_ADDR`.
const OF_KUBERNETES: [&str; 4] = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_", "_PORT"];

/// Flags that make no sense in a file.
const NOT_IN_FILES: [&str; 3] = ["config", "help", "version"];

#[derive(Debug, Default)]
pub(crate) struct Layers {
    environment: BTreeMap<String, String>,
    file: Option<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    values: BTreeMap<String, FileValue>,
}

/// The value of a key, as texts, and the line of the key.
#[derive(Debug)]
struct FileValue {
    line: usize,
    texts: Vec<String>,
}

impl Layers {
    /// Reads the file that the arguments or the environment name, if any.
    pub(crate) fn load(
        command: &Command,
        arguments: &[OsString],
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Failure> {
        let environment: BTreeMap<String, String> = environment
            .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
            .collect();
        no_unknown_variable(&environment, command)?;
        let path =
            flag_in(arguments, "config").or_else(|| environment.get("QUORATE_CONFIG").cloned());
        let file = match path {
            Some(path) => Some(File::read(Path::new(&path), &keys(command))?),
            None => None,
        };
        Ok(Self { environment, file })
    }

    /// The parser with the environment and the file as its defaults.
    pub(crate) fn apply(&self, command: Command) -> Command {
        command
            .mut_args(|arg| self.apply_to_arg(arg))
            .mut_subcommands(|subcommand| self.apply(subcommand))
    }

    /// Where the value of a flag comes from when it is not on the command line.
    pub(crate) fn source(&self, key: &str) -> Option<String> {
        if self.environment.contains_key(&variable(key)) {
            return Some(variable(key));
        }
        let file = self.file.as_ref()?;
        let line = file.values.get(key)?.line;
        Some(format!("`{key}` in {}, line {line}", file.path.display()))
    }

    fn apply_to_arg(&self, arg: Arg) -> Arg {
        let Some(key) = arg.get_long().map(str::to_owned) else { return arg };
        if key == "help" || key == "version" {
            return arg;
        }
        let help = arg.get_help().map(|help| format!("{help} [env: {}]", variable(&key)));
        let arg = match help {
            Some(help) => arg.help(help),
            None => arg,
        };
        let appends = matches!(arg.get_action(), ArgAction::Append);
        let values = match self.environment.get(&variable(&key)) {
            Some(value) if appends => value.split(',').map(str::to_owned).collect(),
            Some(value) => vec![value.clone()],
            None => match self.file.as_ref().and_then(|file| file.values.get(&key)) {
                Some(value) if appends => value.texts.clone(),
                Some(value) => vec![value.texts.join(",")],
                None => return arg,
            },
        };
        arg.required(false).default_values(values)
    }
}

/// A mistyped variable would otherwise do nothing, and nobody would know.
fn no_unknown_variable(
    environment: &BTreeMap<String, String>,
    command: &Command,
) -> Result<(), Failure> {
    let mut known = keys(command);
    known.insert("config".to_owned());
    let variables: BTreeSet<String> = known.iter().map(|key| variable(key)).collect();
    let is_foreign = |name: &str| {
        OF_SCRIPTS.contains(&name) || OF_KUBERNETES.iter().any(|part| name.contains(part))
    };
    let unknown = environment.keys().find(|name| !variables.contains(*name) && !is_foreign(name));
    let Some(name) = unknown else { return Ok(()) };
    let failure = Failure::usage(format!("unknown variable {name} in the environment"));
    let key = name.strip_prefix(PREFIX).unwrap_or(name);
    Err(match nearest(key, &known) {
        Some(near) => failure.hint(format!("did you mean {}?", variable(near))),
        None => failure.hint("a variable is named as a flag: see `quorate serve -h`"),
    })
}

impl File {
    fn read(path: &Path, known: &BTreeSet<String>) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("cannot read the configuration {}: {error}", path.display()))
        })?;
        Self::parse(path, &text, known)
    }

    fn parse(path: &Path, text: &str, known: &BTreeSet<String>) -> Result<Self, Failure> {
        let line_at = |byte: usize| text.bytes().take(byte).filter(|it| *it == b'\n').count() + 1;
        let place = |line: usize| format!("{}, line {line}", path.display());
        let table: BTreeMap<Spanned<String>, Value> = toml::from_str(text).map_err(|error| {
            let line = line_at(error.span().map_or(0, |span| span.start));
            Failure::usage(format!("{}: this is not TOML: {}", place(line), error.message()))
        })?;
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let line = line_at(key.span().start);
            let key = key.into_inner();
            if !known.contains(&key) {
                let failure = Failure::usage(format!("{}: unknown key `{key}`", place(line)));
                return Err(match nearest(&key, known) {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => {
                        failure.hint("a key is the long name of a flag: see `quorate serve -h`")
                    }
                });
            }
            let texts = texts(&value).ok_or_else(|| {
                Failure::usage(format!(
                    "{}: `{key}` is neither a text, a number, true or false, nor a list of them",
                    place(line)
                ))
            })?;
            values.insert(key, FileValue { line, texts });
        }
        Ok(Self { path: path.to_owned(), values })
    }
}

/// The value of a flag on the command line, for flags that are needed before parsing.
pub(crate) fn flag_in(arguments: &[OsString], key: &str) -> Option<String> {
    let flag = format!("--{key}");
    let mut arguments = arguments.iter().map(|it| it.to_string_lossy()).take_while(|it| it != "--");
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix(&flag) {
            Some("") => return arguments.next().map(|value| value.into_owned()),
            Some(rest) if rest.starts_with('=') => return Some(rest[1..].to_owned()),
            _ => {}
        }
    }
    None
}

pub(crate) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('-', "_"))
}

/// The long flags of a command and of all commands below it.
fn keys(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(Arg::get_long).map(str::to_owned);
    own.chain(command.get_subcommands().flat_map(keys))
        .filter(|key| !NOT_IN_FILES.contains(&key.as_str()))
        .collect()
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
            text(value).map(|text| vec![text])
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(truth) => Some(truth.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

/// The known key that is closest to a mistyped one, if it is close at all.
fn nearest<'a>(key: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let key = key.to_lowercase().replace('_', "-");
    let near = known.iter().map(|it| (edits(&key, it), it)).min()?;
    (near.0 <= 1 + key.len() / 3).then_some(near.1)
}

/// The Levenshtein distance.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}
