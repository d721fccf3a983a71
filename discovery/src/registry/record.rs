//! The records of the registry, parsed and checked.
//!
//! Commands and rows are parsed by the same code, so a row that would be refused as a command is
//! refused at a restart too.

mod group;
mod resource;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use proto::{
    millis,
    quorate::v1::{self as wire, Health, NodeState},
};

use super::{
    name::{check_id, check_label, check_metadata, check_name, parse_address},
    refusal::{Refusal, malformed},
    ttl::allowed_ttl,
};

pub use self::{
    group::{Group, Leader, Member},
    resource::{Reference, ResourceKey, Selector, UserResource},
};
use crate::options::ServiceOptions;

/// How long a service that nobody has configured is kept while it has no instance, not even one
/// that is down.
pub const EMPTY_HOLD: Duration = Duration::from_secs(24 * 60 * 60);

/// Largest weight of an instance.
const MAX_WEIGHT: u32 = 128;

/// Where something runs. Processes with equal localities are near each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Locality {
    pub region: String,
    pub zone: String,
}

/// The protocol that an instance speaks, and that Envoy speaks to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    Tcp,
}

/// The lease behind a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub lease_id: u64,
    /// The time before the leader stretches it under load.
    pub ttl: Duration,
    /// The log index of the registration. An expiry that was proposed for an earlier one has no
    /// effect.
    pub granted_index: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub service: String,
    pub id: String,
    pub address: SocketAddr,
    pub locality: Locality,
    pub weight: u32,
    pub health: Health,
    /// The reason for its health, as the owner reports it.
    pub reason: Reported,
    pub metadata: BTreeMap<String, String>,
    pub protocol: Protocol,
    pub grant: Grant,
    /// Orders the starts of an owner; zero if the owner gives none.
    pub start: u64,
    /// What it asks of its service, if anything.
    pub options: Option<Box<ServiceOptions>>,
    /// The log index at which the owner was marked as silent. The lease continues.
    pub silent_since: Option<u64>,
    /// The log index at which the lease ended. Set exactly while `health` is down.
    pub down_since: Option<u64>,
}

/// Why an instance has its health, and since when by its owner's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    pub text: String,
    pub since_unix_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub protocol: Protocol,
    /// Assigned once. It never changes while the record is kept.
    pub sidecar_port: u16,
    /// The log index at which the service was removed. A removed service only keeps its port.
    pub retired_since: Option<u64>,
    pub options: ServiceOptions,
    /// Whether somebody has configured it: its instances have no say then.
    pub configured: bool,
}

/// A data node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub node_id: u64,
    pub store_id: u64,
    pub boot_epoch: u64,
    pub mesh_address: SocketAddr,
    pub kv_address: SocketAddr,
    pub locality: Locality,
    pub name: String,
    pub version: String,
    pub grant: Grant,
    pub state: NodeState,
    /// As for an instance.
    pub silent_since: Option<u64>,
    /// Whether an operator has removed the node while its groups have not yet replaced it.
    pub removed: bool,
}

/// A DISCO server. It has no lease: the log of the DISCO group says which servers are members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub node_id: u64,
    pub boot_epoch: u64,
    pub address: SocketAddr,
    pub services: Vec<String>,
    pub name: String,
    pub locality: Locality,
    pub version: String,
}

impl Protocol {
    /// The spelling in records and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "" | "http1" => Ok(Self::Http1),
            "http2" => Ok(Self::Http2),
            "tcp" => Ok(Self::Tcp),
            other => {
                Err(malformed(format!("protocol {other:?}: it is one of http1, http2 and tcp")))
            }
        }
    }
}

impl Locality {
    fn parse(locality: Option<wire::Locality>) -> Result<Self, Refusal> {
        let wire::Locality { region, zone } = locality.unwrap_or_default();
        check_label("region", &region)?;
        check_label("zone", &zone)?;
        Ok(Self { region, zone })
    }

    fn to_proto(&self) -> wire::Locality {
        wire::Locality { region: self.region.clone(), zone: self.zone.clone() }
    }
}

impl Grant {
    pub(super) fn parse(lease_id: u64, ttl_ms: u64, granted_index: u64) -> Result<Self, Refusal> {
        if lease_id == 0 {
            return Err(malformed("the lease has no id"));
        }
        Ok(Self { lease_id, ttl: allowed_ttl(ttl_ms), granted_index })
    }

    pub(super) fn ttl_ms(&self) -> u64 {
        millis(self.ttl)
    }
}

impl Instance {
    /// Whether its lease holds.
    pub fn is_live(&self) -> bool {
        self.down_since.is_none()
    }

    /// Whether it takes traffic, as its owner last reported.
    pub fn is_routable(&self) -> bool {
        matches!(self.health, Health::Healthy | Health::Unknown | Health::Unspecified)
    }

    /// Parses a registration. If it contains no health, `fallback` is used.
    pub(super) fn parse(
        instance: wire::Instance,
        grant: Grant,
        fallback: Health,
    ) -> Result<Self, Refusal> {
        check_name("service", &instance.service)?;
        check_id(&instance.id)?;
        check_metadata(instance.metadata.iter())?;
        Ok(Self {
            address: parse_address("instance address", &instance.address)?,
            locality: Locality::parse(instance.locality.clone())?,
            weight: parse_weight(instance.weight)?,
            health: match instance.health() {
                Health::Unspecified => fallback,
                Health::Down => {
                    return Err(malformed(
                        "an instance is down when its lease ends; deregister it",
                    ));
                }
                said @ (Health::Healthy
                | Health::Unhealthy
                | Health::Draining
                | Health::Unknown) => said,
            },
            reason: Reported::parse(instance.health_reason, instance.health_since_unix_ms)?,
            protocol: Protocol::parse(&instance.protocol)?,
            options: instance.options.map(ServiceOptions::parse).transpose()?.map(Box::new),
            service: instance.service,
            id: instance.id,
            metadata: instance.metadata,
            grant,
            start: 0,
            silent_since: None,
            down_since: None,
        })
    }

    pub(super) fn from_record(record: wire::InstanceRecord) -> Result<Self, Refusal> {
        let grant = Grant::parse(record.lease_id, record.ttl_ms, record.granted_index)?;
        let mut instance = record.instance.ok_or_else(|| malformed("no instance"))?;
        let down = instance.health() == Health::Down;
        if down != (record.down_since_index != 0) {
            return Err(malformed("down, or not, in one field only"));
        }
        if down {
            instance.set_health(Health::Unspecified);
        }
        let parsed = Self::parse(instance, grant, Health::Down)?;
        Ok(Self {
            start: record.start,
            silent_since: index(record.silent_since_index),
            down_since: index(record.down_since_index),
            ..parsed
        })
    }

    pub(super) fn to_record(&self) -> wire::InstanceRecord {
        wire::InstanceRecord {
            instance: Some(self.to_proto()),
            lease_id: self.grant.lease_id,
            ttl_ms: self.grant.ttl_ms(),
            granted_index: self.grant.granted_index,
            down_since_index: self.down_since.unwrap_or(0),
            silent_since_index: self.silent_since.unwrap_or(0),
            start: self.start,
        }
    }

    /// The instance as callers are shown it.
    pub fn to_proto(&self) -> wire::Instance {
        wire::Instance {
            service: self.service.clone(),
            id: self.id.clone(),
            address: self.address.to_string(),
            locality: Some(self.locality.to_proto()),
            weight: self.weight,
            health: self.health.into(),
            metadata: self.metadata.clone(),
            protocol: self.protocol.as_str().to_owned(),
            silent: self.silent_since.is_some(),
            health_reason: self.reason.text.clone(),
            health_since_unix_ms: self.reason.since_unix_ms,
            options: self.options.as_ref().map(|it| it.to_proto()),
        }
    }
}

impl Reported {
    pub(super) fn parse(text: String, since_unix_ms: u64) -> Result<Self, Refusal> {
        check_label("reason", &text)?;
        Ok(Self { text, since_unix_ms })
    }
}

impl Service {
    /// How long it is kept while it has no instance; none for ever.
    pub fn forgotten_after(&self) -> Option<Duration> {
        match self.options.forget_after {
            Some(after) => (!after.is_zero()).then_some(after),
            None => (!self.configured).then_some(EMPTY_HOLD),
        }
    }

    pub(super) fn from_record(record: wire::ServiceRecord) -> Result<Self, Refusal> {
        check_name("service", &record.name)?;
        let sidecar_port = u16::try_from(record.sidecar_port)
            .map_err(|_| malformed(format!("sidecar port {}", record.sidecar_port)))?;
        Ok(Self {
            protocol: Protocol::parse(&record.protocol)?,
            name: record.name,
            sidecar_port,
            retired_since: index(record.retired_since_index),
            options: ServiceOptions::parse(record.options.unwrap_or_default())?,
            configured: record.configured,
        })
    }

    pub(super) fn to_record(&self) -> wire::ServiceRecord {
        wire::ServiceRecord {
            name: self.name.clone(),
            protocol: self.protocol.as_str().to_owned(),
            sidecar_port: self.sidecar_port.into(),
            retired_since_index: self.retired_since.unwrap_or(0),
            // None if all is by default, as in a row that was written before there were options.
            options: (self.options != ServiceOptions::default()).then(|| self.options.to_proto()),
            configured: self.configured,
        }
    }
}

impl Node {
    /// Whether its lease holds.
    pub fn is_live(&self) -> bool {
        self.state != NodeState::Down
    }

    pub fn member(&self) -> Member {
        Member { node_id: self.node_id, store_id: self.store_id }
    }

    /// Parses a row or, with its `granted_index` filled in, a command. If it contains no state, the
    /// node is up.
    pub(super) fn parse(record: wire::NodeRecord) -> Result<Self, Refusal> {
        if record.node_id == 0 || record.store_id == 0 {
            return Err(malformed("the node has no id or its store has none"));
        }
        check_label("node name", &record.name)?;
        check_label("version", &record.version)?;
        Ok(Self {
            node_id: record.node_id,
            store_id: record.store_id,
            boot_epoch: record.boot_epoch,
            mesh_address: parse_address("mesh address", &record.mesh_address)?,
            kv_address: parse_address("kv address", &record.kv_address)?,
            grant: Grant::parse(record.lease_id, record.ttl_ms, record.granted_index)?,
            state: match record.state() {
                NodeState::Unspecified => NodeState::Up,
                said @ (NodeState::Up | NodeState::Stopping | NodeState::Down) => said,
            },
            locality: Locality::parse(record.locality)?,
            name: record.name,
            version: record.version,
            silent_since: index(record.silent_since_index),
            removed: record.removed,
        })
    }

    pub(super) fn to_record(&self) -> wire::NodeRecord {
        wire::NodeRecord {
            node_id: self.node_id,
            store_id: self.store_id,
            boot_epoch: self.boot_epoch,
            mesh_address: self.mesh_address.to_string(),
            kv_address: self.kv_address.to_string(),
            locality: Some(self.locality.to_proto()),
            name: self.name.clone(),
            lease_id: self.grant.lease_id,
            ttl_ms: self.grant.ttl_ms(),
            state: self.state.into(),
            granted_index: self.grant.granted_index,
            version: self.version.clone(),
            silent_since_index: self.silent_since.unwrap_or(0),
            removed: self.removed,
        }
    }

    pub(super) fn hint(&self) -> wire::AddressHint {
        wire::AddressHint {
            node_id: self.node_id,
            boot_epoch: self.boot_epoch,
            address: self.mesh_address.to_string(),
            services: vec!["data".to_owned()],
            start: 0,
            moves: 0,
        }
    }

    pub(super) fn locality_proto(&self) -> wire::Locality {
        self.locality.to_proto()
    }
}

impl Server {
    pub(super) fn parse(record: wire::RecordServer) -> Result<Self, Refusal> {
        let hint = record.hint.ok_or_else(|| malformed("the server says nothing of itself"))?;
        if hint.node_id == 0 {
            return Err(malformed("the server has no id"));
        }
        check_label("server name", &record.name)?;
        check_label("version", &record.version)?;
        for service in &hint.services {
            check_label("service", service)?;
        }
        Ok(Self {
            node_id: hint.node_id,
            boot_epoch: hint.boot_epoch,
            address: parse_address("mesh address", &hint.address)?,
            services: hint.services,
            name: record.name,
            locality: Locality::parse(record.locality)?,
            version: record.version,
        })
    }

    pub(super) fn to_record(&self) -> wire::RecordServer {
        wire::RecordServer {
            hint: Some(self.hint()),
            name: self.name.clone(),
            locality: Some(self.locality_proto()),
            version: self.version.clone(),
        }
    }

    pub(super) fn hint(&self) -> wire::AddressHint {
        wire::AddressHint {
            node_id: self.node_id,
            boot_epoch: self.boot_epoch,
            address: self.address.to_string(),
            services: self.services.clone(),
            start: 0,
            moves: 0,
        }
    }

    pub(super) fn locality_proto(&self) -> wire::Locality {
        self.locality.to_proto()
    }
}

/// A log index in a row; zero stands for none.
fn index(of: u64) -> Option<u64> {
    (of != 0).then_some(of)
}

fn parse_weight(weight: u32) -> Result<u32, Refusal> {
    match weight {
        0 => Ok(1),
        1..=MAX_WEIGHT => Ok(weight),
        _ => Err(malformed(format!("weight {weight}: it is 1 to {MAX_WEIGHT}"))),
    }
}
