//! Where a listener listens.

use std::net::IpAddr;

use prost_reflect::DynamicMessage;

use crate::{
    field::{choice, flag, has, list, name, number, sub, text},
    path::Path,
};

/// An address that a client binds because of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// As the operating system knows it: IPv4 out of its mapping, whichever way it was written.
    pub address: String,
    pub port: u64,
    /// Where it is written.
    pub field: String,
    pub line: Option<usize>,
}

pub(crate) fn sockets(listener: &DynamicMessage) -> Vec<(Path, Socket)> {
    let top = Path::default();
    if name(listener) != "envoy.config.listener.v3.Listener" || !binds(listener) {
        return Vec::new();
    }
    let mut addresses: Vec<(Path, Option<DynamicMessage>)> =
        vec![(top.field("address"), sub(listener, "address"))];
    let more = list(listener, "additional_addresses");
    for (index, additional) in more.iter().enumerate() {
        let path = top.field("additional_addresses").index(index).field("address");
        addresses.push((path, sub(additional, "address")));
    }
    let mut sockets = Vec::new();
    for (path, address) in addresses {
        let socket = address.and_then(|it| sub(&it, "socket_address"));
        let Some(socket) = socket else { continue };
        let port = number(&socket, "port_value").unwrap_or_default();
        // Of port 0 every listener gets another one.
        if port > 0 {
            let protocol = choice(&socket, "protocol");
            let address = canonical(&text(&socket, "address"));
            let path = path.field("socket_address");
            let field = path.to_string();
            sockets.push((path, Socket { protocol, address, port, field, line: None }));
        }
    }
    sockets
}

fn binds(listener: &DynamicMessage) -> bool {
    let is_told = has(listener, "bind_to_port");
    !is_told || sub(listener, "bind_to_port").is_some_and(|it| flag(&it, "value"))
}

fn canonical(address: &str) -> String {
    let parsed = address.parse::<IpAddr>();
    parsed.map_or_else(|_| address.to_owned(), |it| it.to_canonical().to_string())
}
