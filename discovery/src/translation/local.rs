//! Listeners on the loopback of a sidecar, where an application calls services.

use std::net::{Ipv4Addr, SocketAddr};

use envoy_types::pb::{
    envoy::config::listener::v3::{Filter, FilterChain, Listener},
    google::protobuf::BoolValue,
};

use super::build;

pub(super) fn listener(name: impl Into<String>, port: u16, filter: Filter) -> Listener {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Listener {
        name: name.into(),
        address: Some(build::address(address)),
        filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
        // If another process has the port, Envoy rejects the listener. With a shared port, two
        // sidecars on one host would take each other's calls.
        enable_reuse_port: Some(BoolValue { value: false }),
        ..Listener::default()
    }
}
