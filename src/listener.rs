//! The only place where a port is opened and where connections on it are set up.
//!
//! Listeners are bound before anything else is opened, so that a port in use is found while there
//! is nothing to undo; connections wait in the kernel until the listener serves.

mod authority;
mod connections;
mod peer;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use axum::middleware;
use futures::stream;
use mesh::hangup::Hanging;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic::{
    service::{InterceptorLayer, Routes},
    transport::Server,
};

use self::connections::Port;
pub(crate) use self::connections::{Caller, Limit};

/// A peer that does not answer a ping within the timeout is gone; its streams end. Nothing waits for
/// this: leases and sessions have deadlines of their own. It is long, because a server or a machine
/// that is busy with thousands of first answers would otherwise take its own slowness for the
/// silence of its clients.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that a sender may have on the way on one stream, and on one connection: a Raft snapshot
/// or a large first answer should not wait for window updates on a long link.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Streams that one connection may have open; Envoy multiplexes many callers over one.
const STREAMS_PER_CONNECTION: u32 = 4096;

/// Connections that wait to be accepted; the system may allow fewer (`net.core.somaxconn`). Of those
/// beyond, some are reset once they have sent something, so that a fleet that comes back at once would
/// need several attempts.
const BACKLOG: u32 = 4096;

#[derive(Debug)]
pub(crate) struct Listener {
    port: Port,
    address: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("cannot listen on {address} ({name})")]
    Bind { name: &'static str, address: SocketAddr, source: io::Error },
    #[error("cannot serve {name}")]
    Grpc { name: &'static str, source: tonic::transport::Error },
    #[error("cannot serve {name}")]
    Http { name: &'static str, source: io::Error },
}

impl ListenError {
    /// What the system said, if a port could not be opened.
    pub(crate) fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Bind { source, .. } => Some(source.kind()),
            Self::Grpc { .. } | Self::Http { .. } => None,
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A port of loopback that the system chooses, for a command that talks to itself.
pub(crate) fn loopback() -> io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
}

impl Listener {
    /// Opens a port for as many connections as the limit allows. `name` says what it is for. Belongs
    /// to the runtime that it is called in.
    pub(crate) fn bind(
        name: &'static str,
        address: SocketAddr,
        limit: Limit,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Bind { name, address, source };
        let socket = listen(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!(
                port = name,
                %address,
                "this port is open to the network, without TLS and without authentication"
            );
        }
        Ok(Self { port: Port { name, socket, limit, told: None }, address })
    }

    /// The bound address, with the port that the system chose if none was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves gRPC, and what the routes have for plain HTTP, until shutdown, then until the open
    /// streams end.
    pub(crate) async fn serve_grpc(
        self,
        routes: Routes,
        shutdown: CancellationToken,
    ) -> Result<(), ListenError> {
        let name = self.port.name;
        let incoming = stream::unfold(self.port, |mut port| async {
            let (connection, _) = port.next().await;
            Some((Ok::<_, Infallible>(Hanging::new(connection)), port))
        });
        Server::builder()
            .accept_http1(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .layer(InterceptorLayer::new(peer::identify))
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
            .await
            .map_err(|source| ListenError::Grpc { name, source })
    }

    /// Serves HTTP until shutdown.
    pub(crate) async fn serve_http(
        self,
        router: axum::Router,
        shutdown: CancellationToken,
    ) -> Result<(), ListenError> {
        let router = router
            .layer(middleware::from_fn(peer::identify_http))
            .into_make_service_with_connect_info::<Caller>();
        let name = self.port.name;
        axum::serve(self.port, router)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
            .map_err(|source| ListenError::Http { name, source })
    }
}
