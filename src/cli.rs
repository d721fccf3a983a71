//! The command line: one file per group of commands.
//!
//! Parsing has two outcomes that are no failure: a command to run, and a text to print (help or
//! version). Everything that a user can get wrong here ends as a [`Failure`] with code 2.

mod bench;
mod client;
mod deregister;
mod dev;
mod endpoints;
mod envoy;
mod groups;
mod init;
mod layers;
mod member;
mod members;
mod options;
mod reclaim;
mod register;
mod serve;
mod service;
mod services;
mod status;
#[cfg(test)]
mod tests;
mod watch;
mod written;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    Args, CommandFactory, FromArgMatches, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};

use self::{
    client::Disco,
    layers::{Layers, flag_in},
    serve::ServeArgs,
};
use crate::{
    config::DEFAULT_DISCO,
    failure::{Code, Failure},
    output::{self, Format},
    telemetry::TelemetryArgs,
    values::{Addresses, addresses, duration},
};

/// A fleet that finds itself: registry, Envoy control plane and replicated data in one binary.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version = env!("QUORATE_VERSION"),
    after_help = "\
Try it on this machine:      quorate dev
Every flag --some-flag is also the variable QUORATE_SOME_FLAG, and the key some-flag of the TOML
file given with --config. A flag wins over the environment, the environment over the file.

Exit codes: 0 ok, 1 other, 2 usage or configuration, 3 none found, 4 no quorum or unreachable,
5 unhealthy, 6 denied, 7 refused by a safety rule, 8 timeout."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// How to print results and errors.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// TOML file with defaults for any flag, under the flags' names.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Flags of the commands that ask DISCO.
#[derive(Args, Debug)]
struct DiscoArgs {
    /// DISCO servers to ask, as IP:PORT; the first that answers will do.
    #[arg(long, value_name = "IP:PORT,…", value_parser = addresses, default_value = DEFAULT_DISCO)]
    disco: Addresses,
    /// How long to try, all servers together.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<ServeArgs>),
    Init(init::InitArgs),
    Dev(Box<dev::DevArgs>),
    Status(status::StatusArgs),
    Members(members::MembersArgs),
    Member(member::MemberArgs),
    Services(services::ServicesArgs),
    Service(service::ServiceArgs),
    Endpoints(endpoints::EndpointsArgs),
    Groups(groups::GroupsArgs),
    Group(groups::GroupArgs),
    Register(Box<register::RegisterArgs>),
    Deregister(deregister::DeregisterArgs),
    Envoy(envoy::EnvoyArgs),
    Bench(bench::BenchArgs),
    Completions(written::CompletionsArgs),
    Man(written::ManArgs),
    Version(written::VersionArgs),
    Reclaim(reclaim::ReclaimArgs),
}

/// What the arguments ask for.
#[derive(Debug)]
pub(crate) enum Invocation {
    Run(Box<Run>),
    /// Help or version, for standard output.
    Tell(String),
    /// How to use it, for standard error.
    Teach(String),
}

#[derive(Debug)]
pub(crate) struct Run(Cli);

impl Run {
    pub(crate) fn format(&self) -> Format {
        self.0.common.format
    }

    /// How this command tells what it does while it runs.
    pub(crate) fn telemetry(&self) -> Option<&TelemetryArgs> {
        match &self.0.command {
            Command::Serve(args) => Some(args.telemetry()),
            Command::Dev(args) => Some(args.telemetry()),
            Command::Register(args) => Some(args.telemetry()),
            Command::Init(_)
            | Command::Status(_)
            | Command::Members(_)
            | Command::Member(_)
            | Command::Services(_)
            | Command::Service(_)
            | Command::Endpoints(_)
            | Command::Groups(_)
            | Command::Group(_)
            | Command::Deregister(_)
            | Command::Envoy(_)
            | Command::Bench(_)
            | Command::Completions(_)
            | Command::Man(_)
            | Command::Version(_)
            | Command::Reclaim(_) => None,
        }
    }

    /// Runs the command to its exit code.
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        let format = self.format();
        match self.0.command {
            Command::Serve(args) => args.run().await,
            Command::Init(args) => args.run(format).await,
            Command::Dev(args) => args.run().await,
            Command::Status(args) => args.run(format).await,
            Command::Members(args) => args.run(format).await,
            Command::Member(args) => args.run(format).await,
            Command::Services(args) => args.run(format).await,
            Command::Service(args) => args.run(format).await,
            Command::Endpoints(args) => args.run(format).await,
            Command::Groups(args) => args.run(format).await,
            Command::Group(args) => args.run(format).await,
            Command::Register(args) => args.run().await,
            Command::Deregister(args) => args.run(format).await,
            Command::Envoy(args) => args.run().await,
            Command::Bench(args) => args.run(format).await,
            Command::Completions(args) => args.run(Cli::command()),
            Command::Man(args) => args.run(Cli::command()),
            Command::Version(args) => Ok(args.run(format)),
            Command::Reclaim(args) => args.run(format),
        }
    }
}

impl DiscoArgs {
    fn client(&self) -> Disco {
        Disco::new(self.disco.0.clone(), self.timeout)
    }
}

/// The format in which to tell a failure, when parsing itself may have failed.
pub(crate) fn format_of(arguments: &[OsString], environment: &[(String, String)]) -> Format {
    let in_environment =
        || environment.iter().find(|(name, _)| name == "QUORATE_FORMAT").map(|it| it.1.clone());
    match flag_in(arguments, "format").or_else(in_environment).as_deref() {
        Some("json") => Format::Json,
        _ => Format::Table,
    }
}

pub(crate) fn parse(
    arguments: &[OsString],
    environment: &[(String, String)],
) -> Result<Invocation, Failure> {
    let layers = Layers::load(&Cli::command(), arguments, environment.iter().cloned())?;
    let command = layers.apply(Cli::command());
    let parsed = command
        .try_get_matches_from(arguments)
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(cli) => Ok(Invocation::Run(Box::new(Run(cli)))),
        Err(error) => {
            let kind = error.kind();
            if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
                Ok(Invocation::Tell(error.render().to_string()))
            } else if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                Ok(Invocation::Teach(error.render().to_string()))
            } else {
                Err(usage_failure(&error, arguments, &layers))
            }
        }
    }
}

/// Tells a parse error in the shape of every other failure, and where the wrong value is from.
fn usage_failure(error: &clap::Error, arguments: &[OsString], layers: &Layers) -> Failure {
    let text = error.render().to_string();
    let mut paragraphs = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|it| !it.starts_with("For more information") && !it.starts_with("Usage:"));
    let message = paragraphs.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let source = wrong_flag(error)
        .filter(|key| flag_in(arguments, key).is_none())
        .and_then(|key| layers.source(&key));
    let failure = Failure::usage(match source {
        Some(source) => format!("{message} (from {source})"),
        None => message.to_owned(),
    });
    match paragraphs.next() {
        Some(tip) => failure.hint(tip.strip_prefix("tip: ").unwrap_or(&tip)),
        None => failure.hint(format!("see `{} -h`", command_of(arguments))),
    }
}

/// The command that the arguments name, as one would type it.
fn command_of(arguments: &[OsString]) -> String {
    let mut command = Cli::command();
    let mut typed = vec![command.get_name().to_owned()];
    for argument in arguments.iter().skip(1).map(|it| it.to_string_lossy()) {
        let Some(below) = command.find_subcommand(argument.as_ref()).cloned() else { continue };
        typed.push(below.get_name().to_owned());
        command = below;
    }
    typed.join(" ")
}

/// The flag that an error is about, as `services` for `--services <LIST>`.
fn wrong_flag(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = arg.strip_prefix("--")?;
    Some(flag.split([' ', '=']).next().unwrap_or(flag).to_owned())
}

/// Prints a listing; none found is exit code 3.
fn print(listing: &output::Listing, format: Format, none: &str) -> Result<u8, Failure> {
    listing.print(format);
    if listing.is_empty() { Err(Failure::new(Code::NoneFound, none)) } else { Ok(0) }
}

/// An address as a column shows it.
fn shown(address: &str) -> String {
    if address.is_empty() { "-".to_owned() } else { address.to_owned() }
}

/// `disco` is reached at these addresses, for messages.
fn listed(addresses: &[SocketAddr]) -> String {
    Addresses(addresses.to_vec()).to_string()
}
