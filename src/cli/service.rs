//! `quorate service`: what is done to one service.

use clap::{Args, Subcommand};
use proto::quorate::v1::{ConfigureServiceReply, ConfigureServiceRequest, RemoveServiceRequest};
use serde_json::json;

use super::{
    DiscoArgs,
    options::{self, OptionArgs},
};
use crate::{
    failure::{Code, Failure},
    output::{self, Format},
    values::service,
};

/// Act on one service.
#[derive(Args, Debug)]
pub(crate) struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    Set(Box<SetArgs>),
    Reset(ResetArgs),
    Remove(RemoveArgs),
}

/// Say how Envoys carry the calls of a service.
#[derive(Args, Debug)]
#[command(long_about = "\
Say how Envoys carry the calls of a service. What is not given goes back to its default, and what
instances ask for counts no longer.

  quorate service set orders --request-timeout 5s
  quorate service set orders --stream-idle never --try-unhealthy
  quorate service set orders --option limits.requests=200 --option retries.when=safe
  quorate service set orders --option healthCheck.http.path=/ready --create http1

`quorate services --format json` shows what is set. A service that was set is kept also while it has no
instance, unless --option forgetAfter says otherwise.")]
struct SetArgs {
    /// The service.
    #[arg(value_parser = service)]
    name: String,
    #[command(flatten)]
    options: OptionArgs,
    /// Make the service if it does not exist, with this protocol.
    #[arg(long, value_name = "PROTOCOL", value_parser = ["http1", "http2", "tcp"])]
    create: Option<String>,
    #[command(flatten)]
    disco: DiscoArgs,
}

/// Leave a service to its instances again.
#[derive(Args, Debug)]
#[command(long_about = "\
Leave a service to its instances again: it has the options that the instance asks for that registered
last, and is forgotten a day after the last instance has gone.

  quorate service reset orders")]
struct ResetArgs {
    /// The service.
    #[arg(value_parser = service)]
    name: String,
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
that still run register again. A service that has had no instance for a day is removed by itself, unless
`quorate service set` was called for it.")]
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
            ServiceCommand::Reset(args) => args.run(format).await,
            ServiceCommand::Remove(args) => args.run(format).await,
        }
    }
}

impl SetArgs {
    async fn run(self, format: Format) -> Result<u8, Failure> {
        let name = self.name;
        let set = self.options.options()?.to_proto();
        let request = ConfigureServiceRequest {
            name: name.clone(),
            options: Some(set.clone()),
            create: self.create.unwrap_or_default(),
            ..ConfigureServiceRequest::default()
        };
        if !configure(&self.disco, request).await?.existed {
            return Err(no_such_service(&name)
                .hint("--create makes it; `quorate services` lists those that there are"));
        }
        match format {
            Format::Table => output::line(&format!("set the options of service {name}")),
            Format::Json => {
                let set = json!({ "service": name, "options": options::document(Some(&set)) });
                output::line(&set.to_string());
            }
        }
        Ok(0)
    }
}

impl ResetArgs {
    async fn run(self, format: Format) -> Result<u8, Failure> {
        let name = self.name;
        let request =
            ConfigureServiceRequest { name: name.clone(), ..ConfigureServiceRequest::default() };
        if !configure(&self.disco, request).await?.existed {
            return Err(no_such_service(&name));
        }
        match format {
            Format::Table => output::line(&format!("service {name} is left to its instances")),
            Format::Json => output::line(&json!({ "service": name, "reset": true }).to_string()),
        }
        Ok(0)
    }
}

async fn configure(
    disco: &DiscoArgs,
    request: ConfigureServiceRequest,
) -> Result<ConfigureServiceReply, Failure> {
    let client = disco.client();
    let asked = client.ask(request, |mut registry, request| async move {
        registry.configure_service(request).await
    });
    asked.await
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
