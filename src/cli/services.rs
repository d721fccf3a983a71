//! `quorate services`: what is registered.

use clap::Args;
use proto::quorate::v1::{ListServicesReply, ListServicesRequest, ServiceOptions, ServiceSummary};
use serde_json::{Value, json};

use super::{DiscoArgs, client::answer, print, watch::WatchArgs};
use crate::{
    failure::Failure,
    output::{Format, Listing},
};

/// List the registered services.
#[derive(Args, Debug)]
#[command(long_about = "\
List the registered services.

  quorate services
  quorate services --format json

Columns: SERVICE PROTOCOL INSTANCES HEALTHY SILENT SIDECAR. SILENT counts instances whose owners no
longer renew their lease. SIDECAR is the address on which an Envoy
sidecar reaches the service.")]
pub(crate) struct ServicesArgs {
    #[command(flatten)]
    disco: DiscoArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl ServicesArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        self.watch.run(format, async || self.list(format).await).await
    }

    async fn list(&self, format: Format) -> Result<u8, Failure> {
        let reply = self
            .disco
            .client()
            .ask(ListServicesRequest {}, |mut registry, request| async move {
                registry.list_services(request).await
            })
            .await?;
        print(&listing(reply), format, "no service is registered")
    }
}

fn listing(reply: ListServicesReply) -> Listing {
    Listing {
        name: "services",
        columns: &["SERVICE", "PROTOCOL", "INSTANCES", "HEALTHY", "SILENT", "SIDECAR"],
        rows: reply.services.iter().map(row).collect(),
        records: reply.services.iter().map(record).collect(),
        answer: answer(reply.meta),
    }
}

fn row(service: &ServiceSummary) -> Vec<String> {
    vec![
        service.name.clone(),
        service.protocol.clone(),
        service.instances.to_string(),
        service.healthy.to_string(),
        service.silent.to_string(),
        match service.sidecar_port {
            0 => "-".to_owned(),
            port => format!("127.0.0.1:{port}"),
        },
    ]
}

fn record(service: &ServiceSummary) -> Value {
    json!({
        "name": service.name,
        "protocol": service.protocol,
        "instances": service.instances,
        "healthy": service.healthy,
        "silent": service.silent,
        "sidecar_port": service.sidecar_port,
        "options": options(&service.options.unwrap_or_default()),
    })
}

/// A silence of zero is for ever, and of null the default.
pub(super) fn options(options: &ServiceOptions) -> Value {
    json!({
        "stream_idle_ms": options.stream_idle_ms,
        "try_unhealthy": options.try_unhealthy,
    })
}
