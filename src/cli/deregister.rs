//! `quorate deregister`: removes an instance.

use clap::Args;
use proto::quorate::v1::{DeregisterRequest, DeregisterSilentRequest};
use serde_json::json;

use super::DiscoArgs;
use crate::{
    failure::{Code, Failure},
    output::{self, Format},
    values::{instance_id, name, service},
};

/// Remove an instance from the registry, or all that are silent.
#[derive(Args, Debug)]
#[command(long_about = "\
Remove an instance from the registry, whoever holds it. Its process is not touched; if it still
renews its lease, it registers again.

  quorate deregister --service orders --id orders-1

Remove every instance that is silent or down, as after a host has died for good; of one service, or
in one zone, if those are named:
  quorate deregister --silent
  quorate deregister --silent --service orders --zone b")]
pub(crate) struct DeregisterArgs {
    /// The service.
    #[arg(long, value_parser = service, required_unless_present = "silent")]
    service: Option<String>,
    /// The instance, as `quorate endpoints` lists it.
    #[arg(long, value_parser = instance_id, required_unless_present = "silent")]
    id: Option<String>,
    /// Every instance that is silent or down.
    #[arg(long, conflicts_with = "id")]
    silent: bool,
    /// Of those, the ones in this zone.
    #[arg(long, value_name = "NAME", value_parser = name, requires = "silent")]
    zone: Option<String>,
    #[command(flatten)]
    disco: DiscoArgs,
}

impl DeregisterArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        let (service, zone) = (self.service.unwrap_or_default(), self.zone.unwrap_or_default());
        match self.id {
            Some(id) => deregister(&self.disco, service, id, format).await,
            None => deregister_silent(&self.disco, service, zone, format).await,
        }
    }
}

async fn deregister_silent(
    disco: &DiscoArgs,
    service: String,
    zone: String,
    format: Format,
) -> Result<u8, Failure> {
    let request = DeregisterSilentRequest { service, zone, ..DeregisterSilentRequest::default() };
    let reply = disco
        .client()
        .ask(
            request,
            |mut registry, request| async move { registry.deregister_silent(request).await },
        )
        .await?;
    if reply.removed == 0 {
        return Err(Failure::new(Code::NoneFound, "no instance is silent or down"));
    }
    match format {
        Format::Table => {
            output::line(&format!("deregistered {} silent instances", reply.removed));
        }
        Format::Json => output::line(&json!({ "deregistered": reply.removed }).to_string()),
    }
    Ok(0)
}

async fn deregister(
    disco: &DiscoArgs,
    service: String,
    id: String,
    format: Format,
) -> Result<u8, Failure> {
    let request = DeregisterRequest {
        service: service.clone(),
        id: id.clone(),
        ..DeregisterRequest::default()
    };
    let reply = disco
        .client()
        .ask(request, |mut registry, request| async move { registry.deregister(request).await })
        .await?;
    if !reply.existed {
        let message = format!("`{service}` has no instance `{id}`");
        return Err(Failure::new(Code::NoneFound, message)
            .hint(format!("`quorate endpoints {service}` lists them")));
    }
    match format {
        Format::Table => {
            output::line(&format!("deregistered {id} of {service}"));
        }
        Format::Json => {
            output::line(&json!({ "service": service, "id": id, "deregistered": true }).to_string())
        }
    }
    Ok(0)
}
