//! `quorate service remove`: what is done to one service.

use clap::{Args, Subcommand};
use proto::quorate::v1::RemoveServiceRequest;
use serde_json::json;

use super::DiscoArgs;
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
    Remove(RemoveArgs),
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
            ServiceCommand::Remove(args) => args.run(format).await,
        }
    }
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
            return Err(Failure::new(Code::NoneFound, format!("there is no service `{name}`"))
                .hint("`quorate services` lists them"));
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
