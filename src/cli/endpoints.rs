//! `quorate endpoints`: the instances of a service.

use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use proto::quorate::v1::{Health, Instance, ListInstancesReply, ListInstancesRequest};
use serde_json::{Value, json};

use super::{DiscoArgs, client::answer, print, shown, watch::WatchArgs};
use crate::{
    failure::Failure,
    output::{Format, Listing, known},
    values::service,
};

/// List the instances of a service: where it listens, and how each is.
#[derive(Args, Debug)]
#[command(long_about = "\
List the instances of a service: where it listens, and how each is.

  quorate endpoints orders
  quorate endpoints orders --format json

Columns: ID ADDRESS HEALTH WEIGHT PROTOCOL REGION ZONE META REASON. HEALTH is healthy, unhealthy,
draining, unknown, silent or down. Healthy and unknown instances are routed to; silent ones, whose
owners no longer renew their lease, as a last resort. REASON is why the owner says so, and for how
long.")]
pub(crate) struct EndpointsArgs {
    /// The service.
    #[arg(value_parser = service)]
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
        columns: &[
            "ID", "ADDRESS", "HEALTH", "WEIGHT", "PROTOCOL", "REGION", "ZONE", "META", "REASON",
        ],
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
        health(instance).to_owned(),
        instance.weight.max(1).to_string(),
        protocol(instance).to_owned(),
        shown(&locality.region),
        shown(&locality.zone),
        shown(&metadata.join(",")),
        shown(&reason(instance)),
    ]
}

fn record(instance: &Instance) -> Value {
    let locality = instance.locality.clone().unwrap_or_default();
    json!({
        "service": instance.service,
        "id": instance.id,
        "address": instance.address,
        "health": health(instance),
        "health_reason": known(&instance.health_reason),
        "health_since_unix_ms": match instance.health_since_unix_ms {
            0 => None,
            since => Some(since),
        },
        "weight": instance.weight.max(1),
        "protocol": protocol(instance),
        "region": known(&locality.region),
        "zone": known(&locality.zone),
        "metadata": instance.metadata,
    })
}

fn protocol(instance: &Instance) -> &str {
    if instance.protocol.is_empty() { "http1" } else { &instance.protocol }
}

/// Why the instance is as it is, and for how long, by its owner's clock and this machine's.
fn reason(instance: &Instance) -> String {
    let reason = instance.health_reason.clone();
    let since = UNIX_EPOCH + Duration::from_millis(instance.health_since_unix_ms);
    match since.elapsed() {
        Ok(ago) if !reason.is_empty() && instance.health_since_unix_ms > 0 => {
            format!("{reason} (for {} s)", ago.as_secs())
        }
        _ => reason,
    }
}

fn health(instance: &Instance) -> &'static str {
    match instance.health() {
        Health::Healthy | Health::Unknown if instance.silent => "silent",
        Health::Unspecified | Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
        Health::Draining => "draining",
        Health::Down => "down",
    }
}
