//! `quorate services`: what is registered.

use clap::Args;
use proto::quorate::v1::{ListServicesReply, ListServicesRequest, ServiceSummary};
use serde_json::{Value, json};

use super::{DiscoArgs, client::answer, options, print, watch::WatchArgs};
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

Columns: SERVICE PROTOCOL INSTANCES HEALTHY SILENT SIDECAR OPTIONS. SILENT counts instances whose owners no
longer renew their lease. SIDECAR is the address on which an Envoy
sidecar reaches the service; HTTP services are also at 127.0.0.1:20000 by their names. OPTIONS counts
the options that are set; with JSON they are listed as in a document, and `configured` tells whether
somebody set them or the instances ask for them.")]
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
        columns: &["SERVICE", "PROTOCOL", "INSTANCES", "HEALTHY", "SILENT", "SIDECAR", "OPTIONS"],
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
        match leaves(&options::document(service.options.as_ref())) {
            0 => "-".to_owned(),
            set => set.to_string(),
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
        "configured": service.configured,
        "options": options::document(service.options.as_ref()),
    })
}

/// How many values there are in a document.
fn leaves(document: &Value) -> usize {
    match document {
        Value::Object(fields) => fields.values().map(leaves).sum(),
        Value::Array(_) | Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => 1,
    }
}
