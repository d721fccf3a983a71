//! The connections of one port: accepted one by one, counted, and never more than the process can
//! hold.
//!
//! Every connection takes a file descriptor, and so does every file that a database writes. A port
//! has a fixed number of [slots](Limit): whoever comes when all are taken is turned away at once, and
//! the server keeps the descriptors that it needs for itself.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{extract::connect_info, serve::IncomingStream};
use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::authority::Filter;

/// Pause after the system refused to hand over a connection, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A full port is told of at most this often.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// How much is read at once while a connection's first request is looked at.
const LOOKED_AT: usize = 4096;

/// How many connections a port may have, and has.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    slots: Arc<Semaphore>,
    most: usize,
    turned_away: Arc<AtomicU64>,
}

impl Limit {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { slots: Arc::new(Semaphore::new(most)), most, turned_away: Arc::default() }
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    pub(crate) fn open(&self) -> usize {
        self.most.saturating_sub(self.slots.available_permits())
    }

    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }
}

/// A bound port that hands out connections.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) socket: TcpListener,
    pub(super) limit: Limit,
    pub(super) told: Option<Instant>,
}

impl Port {
    /// The next connection. Never fails: what goes wrong with one is no reason to end the port.
    pub(super) async fn next(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.socket.accept().await {
                Ok((stream, address)) => {
                    let Ok(slot) = self.limit.slots.clone().try_acquire_owned() else {
                        self.turn_away();
                        continue;
                    };
                    return (Connection::new(stream, slot), address);
                }
                Err(error) if is_of_the_caller(&error) => {}
                Err(error) => {
                    if self.may_tell() {
                        tracing::warn!(port = self.name, %error, "cannot accept connections");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn turn_away(&mut self) {
        let turned_away = self.limit.turned_away.fetch_add(1, Ordering::Relaxed) + 1;
        if self.may_tell() {
            tracing::warn!(
                port = self.name,
                most = self.limit.most,
                turned_away,
                "all connections that this port may have are open, so callers are turned away; \
                 raise the limit of open files (LimitNOFILE, ulimit -n) to have more"
            );
        }
    }

    fn may_tell(&mut self) -> bool {
        let now = Instant::now();
        let may = self.told.is_none_or(|told| now.duration_since(told) >= TOLD_EVERY);
        if may {
            self.told = Some(now);
        }
        may
    }
}

/// Whether the caller was gone before it was accepted.
fn is_of_the_caller(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl axum::serve::Listener for Port {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// An accepted connection. Its slot is free again when it ends.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    inbound: Inbound,
    _slot: OwnedSemaphorePermit,
}

/// What a client has sent, on its way to the server.
struct Inbound {
    filter: Filter,
    /// Filtered and not yet read.
    ready: BytesMut,
}

impl Connection {
    fn new(stream: TcpStream, slot: OwnedSemaphorePermit) -> Self {
        // Answers are small and awaited; only the system's own lack of memory could refuse this.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let inbound = Inbound { filter: Filter::new(), ready: BytesMut::new() };
        Self { stream, inbound, _slot: slot }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, inbound, .. } = self.get_mut();
        while inbound.ready.is_empty() {
            if inbound.filter.is_open() {
                return Pin::new(stream).poll_read(cx, buf);
            }
            let mut bytes = [0; LOOKED_AT];
            let mut received = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut received))?;
            if received.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            inbound
                .filter
                .take(received.filled(), &mut inbound.ready)
                .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?;
        }
        let length = inbound.ready.len().min(buf.remaining());
        buf.put_slice(&inbound.ready.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

/// Who called, for requests over plain HTTP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) SocketAddr);

impl connect_info::Connected<IncomingStream<'_, Port>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Port>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}
