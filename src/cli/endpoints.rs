//! `quorate endpoints`: the instances of a service.

use clap::Args;
use proto::quorate::v1::{Health, Instance, ListInstancesReply, ListInstancesRequest};
use serde_json::{Value, json};

use super::{DiscoArgs, client::answer, print, shown, watch::WatchArgs};
use crate::{
    failure::Failure,
    output::{Format, Listing},
    values::name,
};

/// List the instances of a service: where it listens, and how each is.
#[derive(Args, Debug)]
#[command(long_about = "\
List the instances of a service: where it listens, and how each is.

  quorate endpoints orders
  quorate endpoints orders --format json

Columns: ID ADDRESS HEALTH WEIGHT PROTOCOL REGION ZONE META. HEALTH is healthy, unhealthy, draining,
unknown or down; only healthy and unknown instances are routed to.")]
pub(crate) struct EndpointsArgs {
    /// The service.
    #[arg(value_parser = name)]
    service: String,
    #[command(flatten)]
    disco: DiscoArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

impl EndpointsArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        self.watch.run(format, async || self.list(format).await).await
    }

    async fn list(&self, format: Format) -> Result<u8, Failure> {
        let request = ListInstancesRequest { service: self.service.clone() };
        let reply =
            self.disco
                .client()
                .ask(request, |mut registry, request| async move {
                    registry.list_instances(request).await
                })
                .await?;
        print(&listing(reply), format, &format!("`{}` has no instances", self.service))
    }
}

fn listing(reply: ListInstancesReply) -> Listing {
    Listing {
        name: "endpoints",
        columns: &["ID", "ADDRESS", "HEALTH", "WEIGHT", "PROTOCOL", "REGION", "ZONE", "META"],
        rows: reply.instances.iter().map(row).collect(),
        records: reply.instances.iter().map(record).collect(),
        answer: answer(reply.meta),
    }
}

fn row(instance: &Instance) -> Vec<String> {
    let locality = instance.locality.clone().unwrap_or_default();
    let metadata: Vec<_> =
        instance.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    vec![
        instance.id.clone(),
        instance.address.clone(),
        health(instance.health()).to_owned(),
        instance.weight.max(1).to_string(),
        protocol(instance).to_owned(),
        shown(&locality.region),
        shown(&locality.zone),
        shown(&metadata.join(",")),
    ]
}

fn record(instance: &Instance) -> Value {
    let locality = instance.locality.clone().unwrap_or_default();
    json!({
        "service": instance.service,
        "id": instance.id,
        "address": instance.address,
        "health": health(instance.health()),
        "weight": instance.weight.max(1),
        "protocol": protocol(instance),
        "region": locality.region,
        "zone": locality.zone,
        "metadata": instance.metadata,
    })
}

fn protocol(instance: &Instance) -> &str {
    if instance.protocol.is_empty() { "http1" } else { &instance.protocol }
}

fn health(health: Health) -> &'static str {
    match health {
        Health::Unspecified | Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
        Health::Draining => "draining",
        Health::Down => "down",
    }
}
