//! `quorate deregister`: removes an instance.

use clap::Args;
use proto::quorate::v1::DeregisterRequest;
use serde_json::json;

use super::DiscoArgs;
use crate::{
    failure::{Code, Failure},
    output::{self, Format},
    values::name,
};

/// Remove an instance from the registry.
#[derive(Args, Debug)]
#[command(long_about = "\
Remove an instance from the registry, whoever holds it. Its process is not touched; if it still
renews its lease, it registers again.

  quorate deregister --service orders --id orders-1")]
pub(crate) struct DeregisterArgs {
    /// The service.
    #[arg(long, value_parser = name)]
    service: String,
    /// The instance, as `quorate endpoints` lists it.
    #[arg(long, value_parser = name)]
    id: String,
    #[command(flatten)]
    disco: DiscoArgs,
}

impl DeregisterArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        let request = DeregisterRequest {
            service: self.service.clone(),
            id: self.id.clone(),
            ..DeregisterRequest::default()
        };
        let reply = self
            .disco
            .client()
            .ask(request, |mut registry, request| async move { registry.deregister(request).await })
            .await?;
        if !reply.existed {
            let message = format!("`{}` has no instance `{}`", self.service, self.id);
            return Err(Failure::new(Code::NoneFound, message)
                .hint(format!("`quorate endpoints {}` lists them", self.service)));
        }
        match format {
            Format::Table => {
                output::line(&format!("deregistered {} of {}", self.id, self.service));
            }
            Format::Json => output::line(
                &json!({ "service": self.service, "id": self.id, "deregistered": true })
                    .to_string(),
            ),
        }
        Ok(0)
    }
}
