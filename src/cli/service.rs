//! `quorate service`: what is done to one service.

use std::time::Duration;

use clap::{Args, Subcommand};
use proto::{
    millis,
    quorate::v1::{ConfigureServiceRequest, RemoveServiceRequest, ServiceOptions},
};
use serde_json::json;

use super::DiscoArgs;
use crate::{
    failure::{Code, Failure},
    output::{self, Format},
    values::{ValueError, duration, service},
};

/// Act on one service.
#[derive(Args, Debug)]
pub(crate) struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    Set(SetArgs),
    Remove(RemoveArgs),
}

/// Say how Envoys carry the calls of a service.
#[derive(Args, Debug)]
#[command(long_about = "\
Say how Envoys carry the calls of a service. What is not given goes back to its default.

  quorate service set orders --stream-idle 12h
  quorate service set orders --stream-idle never --try-unhealthy
  quorate service set orders

`quorate services --format json` shows what is set. It stays with the service until that is removed.")]
struct SetArgs {
    /// The service.
    #[arg(value_parser = service)]
    name: String,
    /// How long a stream or TCP connection may be silent before it is cut, up to 720h, or `never`.
    /// The default is 1h for HTTP, `never` for TCP.
    #[arg(long, value_name = "DURATION|never", value_parser = idle)]
    stream_idle: Option<Duration>,
    /// Try unhealthy instances when no other is left. By default calls are refused then.
    #[arg(long)]
    try_unhealthy: bool,
    #[command(flatten)]
    disco: DiscoArgs,
}

/// Remove a service that is not needed any more.
#[derive(Args, Debug)]
#[command(long_about = "\
Remove a service that is not needed any more: Envoys forget it, and an hour later its sidecar port is
free for another. If an instance registers within the hour, the service is back at the same port.

  quorate service remove orders
  quorate service remove orders --force

Refused with exit code 7 while the service has live instances; --force removes them too, and those
that still run register again. A service that has had no instance for a day is removed by itself.")]
struct RemoveArgs {
    /// The service.
    #[arg(value_parser = service)]
    name: String,
    /// Also while it has live instances.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    disco: DiscoArgs,
}

impl ServiceArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        match self.command {
            ServiceCommand::Set(args) => args.run(format).await,
            ServiceCommand::Remove(args) => args.run(format).await,
        }
    }
}

impl SetArgs {
    async fn run(self, format: Format) -> Result<u8, Failure> {
        let name = self.name;
        let options = ServiceOptions {
            stream_idle_ms: self.stream_idle.map(millis),
            try_unhealthy: self.try_unhealthy,
        };
        let request = ConfigureServiceRequest {
            name: name.clone(),
            options: Some(options),
            ..ConfigureServiceRequest::default()
        };
        let client = self.disco.client();
        let asked = client.ask(request, |mut registry, request| async move {
            registry.configure_service(request).await
        });
        if !asked.await?.existed {
            return Err(no_such_service(&name));
        }
        match format {
            Format::Table => output::line(&format!("set the options of service {name}")),
            Format::Json => {
                let set = json!({ "service": name, "options": super::services::options(&options) });
                output::line(&set.to_string());
            }
        }
        Ok(0)
    }
}

/// How long a stream may be silent; zero for ever, as on the wire.
fn idle(text: &str) -> Result<Duration, ValueError> {
    match text.trim() {
        "never" => Ok(Duration::ZERO),
        other => match duration(other)? {
            Duration::ZERO => Err(ValueError::Duration(text.to_owned())),
            idle => Ok(idle),
        },
    }
}

fn no_such_service(name: &str) -> Failure {
    Failure::new(Code::NoneFound, format!("there is no service `{name}`"))
        .hint("`quorate services` lists them")
}

impl RemoveArgs {
    async fn run(self, format: Format) -> Result<u8, Failure> {
        let name = self.name;
        let request = RemoveServiceRequest {
            name: name.clone(),
            force: self.force,
            ..RemoveServiceRequest::default()
        };
        let client = self.disco.client();
        let asked = client.ask(request, |mut registry, request| async move {
            registry.remove_service(request).await
        });
        let reply = asked.await.map_err(|failure| {
            if failure.code == Code::Refused && !failure.retryable() {
                failure.hint("stop them first, or remove them with it by --force")
            } else {
                failure
            }
        })?;
        if !reply.existed {
            return Err(no_such_service(&name));
        }
        match format {
            Format::Table => output::line(&format!("removed service {name}")),
            Format::Json => {
                output::line(&json!({ "service": name, "removed": true }).to_string());
            }
        }
        Ok(0)
    }
}
