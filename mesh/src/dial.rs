//! Outgoing connections to servers. All of them begin here, as all incoming ones begin in the
//! binary's `listener`. Connections are not encrypted yet; client certificates belong here.

use std::net::SocketAddr;

use tonic::transport::Endpoint;

/// The endpoint of the server at an address. The caller sets timeouts and keepalive.
pub fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an IP address and a port make a valid URI")
        .tcp_nodelay(true)
}

/// The endpoint of a peer. Its connector looks the address up at every dial.
pub(crate) fn endpoint_of_peer() -> Endpoint {
    Endpoint::from_static("http://peer.quorate.invalid")
}
