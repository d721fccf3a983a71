//! One connection per peer, shared by all its users.
//!
//! A peer is identified by its id. Its address is looked up in the book at every dial, so a peer
//! that returns at another address is found as soon as a hint arrives.

use std::{
    collections::HashMap,
    error::Error,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time};
use tonic::{
    Status,
    transport::{Channel, Uri},
};

use crate::{
    book::Book,
    dial,
    ids::{NodeId, node_hex},
};

/// Largest message between servers, on both sides.
pub const MESSAGE_BYTES: usize = 64 << 20;
/// How long a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent connection is probed after this time, and closed if the probe is not answered within
/// the same time.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// Bytes in flight, per stream and per connection.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The connections of a server to its peers.
#[derive(Clone)]
pub struct Peers {
    book: Book,
    channels: Arc<Mutex<HashMap<NodeId, CachedChannel>>>,
}

/// A channel, and the address that was known when it was made.
struct CachedChannel {
    address: Option<SocketAddr>,
    channel: Channel,
}

/// No connection could be made, so nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("no address is known of node {0}")]
    NoAddress(String),
    #[error("cannot connect to {address}")]
    Refused {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{0} does not answer")]
    Timeout(SocketAddr),
}

impl Peers {
    pub(crate) fn new(book: Book) -> Self {
        Self { book, channels: Arc::default() }
    }

    /// The connection to a peer, made when it is first used.
    pub fn channel(&self, peer: NodeId) -> Channel {
        let address = self.book.address(peer);
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = channels.get(&peer)
            && cached.address == address
        {
            return cached.channel.clone();
        }
        // The peer has moved. A connection to its old address may hang until a probe fails, so
        // another one is made.
        let book = self.book.clone();
        let channel =
            connect(move || book.address(peer).ok_or_else(|| DialError::NoAddress(node_hex(peer))));
        channels.insert(peer, CachedChannel { address, channel: channel.clone() });
        channel
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("book", &self.book).finish_non_exhaustive()
    }
}

/// A connection to an address, made when it is first used.
pub fn channel_to(address: SocketAddr) -> Channel {
    connect(move || Ok(address))
}

/// Whether a call failed before the server can have begun to carry it out: it was not sent, or the
/// server said that it did not look at it (RFC 9113, 8.7).
pub fn surely_not_begun(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        let canceled = error.downcast_ref().is_some_and(hyper::Error::is_canceled);
        let refused = error.downcast_ref().is_some_and(is_refused);
        if canceled || refused || error.is::<DialError>() || error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Whether the server refused the call's HTTP/2 stream, or began to close the connection before it
/// looked at the stream: then the last stream in its GOAWAY is an earlier one.
fn is_refused(error: &h2::Error) -> bool {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => error.is_remote(),
        Some(h2::Reason::NO_ERROR) => error.is_remote() && error.is_go_away(),
        _ => false,
    }
}

fn connect(
    resolve: impl Fn() -> Result<SocketAddr, DialError> + Clone + Send + Sync + 'static,
) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let address = resolve();
        async move { connect_to(address?).await.map(TokioIo::new) }
    });
    dial::endpoint_of_peer()
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(connector)
}

async fn connect_to(address: SocketAddr) -> Result<TcpStream, DialError> {
    let stream = time::timeout(DIAL_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| DialError::Timeout(address))?
        .map_err(|source| DialError::Refused { address, source })?;
    stream.set_nodelay(true).map_err(|source| DialError::Refused { address, source })?;
    Ok(stream)
}

#[cfg(test)]
mod tests;
