//! Outgoing connections to servers: the only place where one begins, as the binary's `listener` is
//! the only one where one is taken. Nothing is encrypted yet; certificates will be given here.

use std::net::SocketAddr;

use tonic::transport::Endpoint;

/// How to reach the server at an address. Patience and pings are for the caller to set.
pub fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an IP address and a port make a valid URI")
        .tcp_nodelay(true)
}

/// How to reach a server whose address a connector finds at every dial.
pub(crate) fn endpoint_of_peer() -> Endpoint {
    Endpoint::from_static("http://peer.quorate.invalid")
}
