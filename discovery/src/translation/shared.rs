//! What all services share: the routes with a virtual host for each service that speaks HTTP, and
//! the one listener of a sidecar that serves them by host name.
//!
//! Every service that is added or removed changes the routes as a whole. So the virtual hosts are
//! kept encoded, and a change costs the encoding of one of them and a copy of the others.
//!
//! The route of front proxies and that of sidecars have the same hosts and are two resources, so
//! that what callers from outside are let in to can be told apart from what is called inside.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::listener::v3::Listener,
    extensions::filters::network::http_connection_manager::v3::HttpConnectionManager,
};
use prost::Message;

use super::{access_log, http, local, service};
use crate::{
    options::AccessLog,
    registry::{Protocol, Registry, Service},
    resource::{Resource, ResourceChange, ResourceType},
};

/// Where every sidecar serves all HTTP services, on its loopback. It lies below the ports of single
/// services.
pub const OUTBOUND_PORT: u16 = 20_000;

/// The listener of that port, and its route.
const OUTBOUND: &str = "mesh/outbound";

/// The route of front proxies.
const INGRESS: &str = "ingress";

/// The encoded virtual hosts and the logs that they ask for, by service.
#[derive(Debug, Default)]
pub(super) struct Shared {
    hosts: BTreeMap<String, Bytes>,
    logs: BTreeMap<String, AccessLog>,
}

/// `envoy.config.route.v3.RouteConfiguration`, to be encoded only.
#[derive(Clone, PartialEq, Message)]
struct Routes {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    virtual_hosts: Vec<Bytes>,
}

impl Shared {
    /// Makes the virtual host of a service again, or removes it.
    pub(super) fn renew(&mut self, registry: &Registry, name: &str) {
        let service = registry.service(name);
        put(&mut self.logs, name, service.and_then(log_of));
        let host = service.and_then(service::shared_host);
        put(&mut self.hosts, name, host.map(|it| it.encode_to_vec().into()));
    }

    pub(super) fn resources(&self) -> [ResourceChange; 3] {
        [
            Resource::new(ResourceType::Listener, OUTBOUND, &self.listener()),
            self.route(OUTBOUND),
            self.route(INGRESS),
        ]
        .map(ResourceChange::Put)
    }

    fn route(&self, name: &str) -> Resource {
        let virtual_hosts = self.hosts.values().cloned().collect();
        let message = Routes { name: name.to_owned(), virtual_hosts };
        Resource::new(ResourceType::Route, name, &message)
    }

    fn listener(&self) -> Listener {
        let logs: BTreeSet<&AccessLog> = self.logs.values().collect();
        let manager = HttpConnectionManager {
            access_log: logs.into_iter().map(access_log::of_hosts).collect(),
            // A request that names no host is for nobody.
            ..http::open_connection_manager("outbound", OUTBOUND, "")
        };
        local::listener(OUTBOUND, OUTBOUND_PORT, http::filter(&manager))
    }
}

fn log_of(service: &Service) -> Option<AccessLog> {
    match service.protocol {
        Protocol::Http1 | Protocol::Http2 => service.options.access_log.clone(),
        Protocol::Tcp => None,
    }
}

fn put<T>(map: &mut BTreeMap<String, T>, name: &str, value: Option<T>) {
    match value {
        Some(value) => {
            map.insert(name.to_owned(), value);
        }
        None => {
            map.remove(name);
        }
    }
}
