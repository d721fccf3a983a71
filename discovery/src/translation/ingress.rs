//! The route of a front proxy: a virtual host for each service that speaks HTTP.
//!
//! Every service that is added or removed changes the whole route. So the virtual hosts are kept
//! encoded, and a change costs the encoding of one of them and a copy of the others.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::service;
use crate::{
    registry::Registry,
    resource::{Resource, ResourceType},
};

/// The encoded virtual hosts, by service.
#[derive(Debug, Default)]
pub(super) struct Ingress {
    hosts: BTreeMap<String, Bytes>,
}

/// `envoy.config.route.v3.RouteConfiguration`, to be encoded only.
#[derive(Clone, PartialEq, Message)]
struct Routes {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    virtual_hosts: Vec<Bytes>,
}

impl Ingress {
    /// Makes the virtual host of a service again, or removes it.
    pub(super) fn renew(&mut self, registry: &Registry, name: &str) {
        match registry.service(name).and_then(service::ingress_host) {
            Some(host) => {
                self.hosts.insert(name.to_owned(), host.encode_to_vec().into());
            }
            None => {
                self.hosts.remove(name);
            }
        }
    }

    pub(super) fn resource(&self) -> Resource {
        let message = Routes {
            name: "ingress".to_owned(),
            virtual_hosts: self.hosts.values().cloned().collect(),
        };
        Resource::new(ResourceType::Route, "ingress", &message)
    }
}
