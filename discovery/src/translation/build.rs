//! Parts that several resources share.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use envoy_types::pb::{
    envoy::config::{
        core::v3::{
            self as base, AggregatedConfigSource, ApiVersion, ConfigSource, HealthStatus,
            SocketAddress, address, config_source::ConfigSourceSpecifier,
            socket_address::PortSpecifier,
        },
        endpoint::v3::{
            self as endpoint, ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints,
            cluster_load_assignment::Policy, lb_endpoint::HostIdentifier,
        },
    },
    google::protobuf::{self, Any, UInt32Value},
};
use prost::{Message, Name};

use crate::registry::Locality;

/// Envoy's overprovisioning factor, in percent. At 200 the degraded endpoints of a priority, whose
/// owners are silent, get no traffic while at least half are healthy.
const OVERPROVISIONING: u32 = 200;

/// One endpoint, before it is grouped by locality.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint<'a> {
    pub(super) address: SocketAddr,
    pub(super) locality: &'a Locality,
    pub(super) priority: u32,
    pub(super) weight: u32,
    pub(super) health: HealthStatus,
    /// The log index of its registration. Of two endpoints at one address only the later is kept:
    /// the other one's process has ended, although its lease has not.
    pub(super) since: u64,
}

/// A load assignment: the endpoints by priority and locality, in a deterministic order.
///
/// The weight of a locality is the sum of the weights of its endpoints that may get traffic. So
/// each endpoint gets the same share whether the client balances between localities first (gRPC) or
/// not (Envoy).
pub(super) fn load_assignment(name: &str, endpoints: Vec<Endpoint<'_>>) -> ClusterLoadAssignment {
    let mut by_address: BTreeMap<SocketAddr, Endpoint<'_>> = BTreeMap::new();
    for endpoint in endpoints {
        let known = by_address.entry(endpoint.address).or_insert(endpoint);
        if known.since < endpoint.since {
            *known = endpoint;
        }
    }
    let mut groups: BTreeMap<(u32, &Locality), Vec<Endpoint<'_>>> = BTreeMap::new();
    for endpoint in by_address.into_values() {
        groups.entry((endpoint.priority, endpoint.locality)).or_default().push(endpoint);
    }
    let endpoints = groups.into_iter().map(|((priority, locality), endpoints)| {
        let routable =
            |it: &&Endpoint<'_>| matches!(it.health, HealthStatus::Healthy | HealthStatus::Unknown);
        let weight: u32 = endpoints.iter().filter(routable).map(|it| it.weight).sum();
        LocalityLbEndpoints {
            locality: Some(base::Locality {
                region: locality.region.clone(),
                zone: locality.zone.clone(),
                sub_zone: String::new(),
            }),
            lb_endpoints: endpoints.iter().map(lb_endpoint).collect(),
            load_balancing_weight: number(weight.max(1)),
            priority,
            ..LocalityLbEndpoints::default()
        }
    });
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: endpoints.collect(),
        policy: Some(Policy {
            overprovisioning_factor: number(OVERPROVISIONING),
            ..Policy::default()
        }),
        ..ClusterLoadAssignment::default()
    }
}

fn lb_endpoint(it: &Endpoint<'_>) -> LbEndpoint {
    LbEndpoint {
        health_status: it.health.into(),
        load_balancing_weight: number(it.weight),
        host_identifier: Some(HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address(it.address)),
            ..endpoint::Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}

pub(super) fn address(socket: SocketAddr) -> base::Address {
    base::Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: socket.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(socket.port().into())),
            ..SocketAddress::default()
        })),
    }
}

pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(super) fn duration(of: Duration) -> Option<protobuf::Duration> {
    Some(protobuf::Duration {
        seconds: i64::try_from(of.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(of.subsec_nanos()).unwrap_or(0),
    })
}

pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}
