//! Loopback addresses that no other test uses.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU8, Ordering},
};

/// The next address of this process: 127.A.B.N, where A and B come from the process id. All of
/// 127.0.0.0/8 is local on Linux, and tests run one process each.
pub fn next_ip() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let host = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(host < 255, "a test uses more than 254 addresses");
    let [_, _, high, low] = process::id().to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(127, 64 | high & 63, low, host))
}

/// The first free port from `wanted` on. Nobody else knows the address, so it stays free.
pub fn free(ip: IpAddr, wanted: u16) -> SocketAddr {
    (wanted..wanted + 100)
        .map(|port| SocketAddr::new(ip, port))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("one of a hundred ports of an address of our own is free")
}

/// Several addresses as the command line takes them.
pub fn list(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    texts.join(",")
}
