//! Which endpoint of a cluster gets a call.
//!
//! By default Envoy takes the less busy of two endpoints chosen at random. Round robin would go
//! through the endpoints zone by zone, so when a whole zone is down a retry would hit the next dead
//! endpoint of the same zone.
//!
//! A client uses the first policy of a list that it knows, and rejects a cluster of which it knows
//! none (gRFC A52). So every list ends with round robin within weighted localities, which every
//! gRPC client has.

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{LoadBalancingPolicy, load_balancing_policy},
            core::v3::{RuntimeDouble, TypedExtensionConfig},
            route::v3::route_action::{
                self,
                hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier},
            },
        },
        extensions::load_balancing_policies::{
            common::v3::SlowStartConfig,
            least_request::v3::LeastRequest,
            maglev::v3::Maglev,
            ring_hash::v3::{RingHash, ring_hash::HashFunction},
            round_robin::v3::RoundRobin,
            wrr_locality::v3::WrrLocality,
        },
        r#type::v3::{HashPolicy, Percent, hash_policy},
    },
    google::protobuf::UInt64Value,
};
use prost::{Message, Name};

use super::build::{any, duration};
use crate::options::{Hash, LoadBalancing, Policy, SlowStart};

/// Under this name an operator of one Envoy may change the aggression there.
const AGGRESSION_KEY: &str = "quorate.slow_start.aggression";

/// The least size of a ring unless the service gives another, as it is Envoy's and gRPC's own.
const RING: u32 = 1024;

/// The policies of a service, the wanted one first.
pub(super) fn policies(of: &LoadBalancing) -> LoadBalancingPolicy {
    match of.policy() {
        Policy::LeastRequest => least_request(of.slow_start),
        Policy::RoundRobin => {
            let slow_start_config = of.slow_start.map(slow_start);
            let config = RoundRobin { slow_start_config, ..RoundRobin::default() };
            LoadBalancingPolicy { policies: vec![policy("round_robin", &config), of_grpc()] }
        }
        Policy::RingHash => {
            let size = of.ring_size.unwrap_or(RING);
            LoadBalancingPolicy { policies: vec![ring_hash(size), of_grpc()] }
        }
        // A gRPC client has no Maglev, and a ring does the same for it.
        Policy::Maglev => LoadBalancingPolicy {
            policies: vec![policy("maglev", &Maglev::default()), ring_hash(RING), of_grpc()],
        },
    }
}

/// The less busy of two, which is the default.
pub(super) fn least_request(spared: Option<SlowStart>) -> LoadBalancingPolicy {
    let slow_start_config = spared.map(slow_start);
    let config = LeastRequest { slow_start_config, ..LeastRequest::default() };
    LoadBalancingPolicy { policies: vec![policy("least_request", &config), of_grpc()] }
}

/// What of a request is hashed.
pub(super) fn request_hash(hash: &Hash) -> route_action::HashPolicy {
    let specifier = match (&hash.header, &hash.cookie) {
        (Some(header), _) => {
            PolicySpecifier::Header(Header { header_name: header.clone(), ..Header::default() })
        }
        (None, Some(cookie)) => PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.and_then(duration),
            // Without a path the cookie would hold for the requested path alone.
            path: cookie.ttl.map(|_| "/".to_owned()).unwrap_or_default(),
            ..Cookie::default()
        }),
        (None, None) => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
    };
    route_action::HashPolicy { policy_specifier: Some(specifier), ..Default::default() }
}

/// What of a TCP connection is hashed: there is nothing but where it comes from.
pub(super) fn connection_hash(_: &Hash) -> HashPolicy {
    let source = hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {});
    HashPolicy { policy_specifier: Some(source) }
}

fn ring_hash(size: u32) -> load_balancing_policy::Policy {
    let config = RingHash {
        // gRPC clients reject any other function.
        hash_function: HashFunction::XxHash.into(),
        minimum_ring_size: Some(UInt64Value { value: size.into() }),
        ..RingHash::default()
    };
    policy("ring_hash", &config)
}

fn of_grpc() -> load_balancing_policy::Policy {
    let within =
        LoadBalancingPolicy { policies: vec![policy("round_robin", &RoundRobin::default())] };
    policy("wrr_locality", &WrrLocality { endpoint_picking_policy: Some(within) })
}

fn slow_start(of: SlowStart) -> SlowStartConfig {
    let percent = |percent: u32| Percent { value: percent.into() };
    SlowStartConfig {
        slow_start_window: of.window.and_then(duration),
        aggression: of.aggression_percent.map(|percent| RuntimeDouble {
            default_value: f64::from(percent) / 100.0,
            runtime_key: AGGRESSION_KEY.to_owned(),
        }),
        min_weight_percent: of.min_weight_percent.map(percent),
    }
}

fn policy<M: Message + Name>(name: &str, config: &M) -> load_balancing_policy::Policy {
    load_balancing_policy::Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: format!("envoy.load_balancing_policies.{name}"),
            typed_config: Some(any(config)),
        }),
    }
}
