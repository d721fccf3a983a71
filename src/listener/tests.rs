use std::{net::Ipv4Addr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::*;

/// More than systems let wait by default.
const CROWD: usize = 400;

#[tokio::test]
async fn a_crowd_waits_until_it_is_accepted() {
    let limit = Limit::new(CROWD);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = Listener::bind("test", address, limit).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut callers = Vec::new();
    // Nobody accepts them.
    for number in 0..CROWD {
        let connected = timeout_at(deadline, TcpStream::connect(listener.address())).await;
        callers.push(connected.unwrap_or_else(|_| panic!("caller {number} waits")).unwrap());
    }
}
