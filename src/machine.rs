//! What is asked of the machine that this process runs on.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

/// The local address from which packets to `target` would leave. Sends none: connecting a UDP
/// socket only looks up the route.
pub(crate) fn local_address_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
}

/// What this machine calls itself.
pub(crate) fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unnamed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_loopback_is_loopback() {
        let target = SocketAddr::from(([127, 0, 0, 1], 7400));
        let address = local_address_towards(target).expect("loopback is routed");
        assert_eq!(address, IpAddr::from([127, 0, 0, 1]));
    }
}
