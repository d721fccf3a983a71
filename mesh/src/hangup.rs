//! Connections that the server can end from elsewhere.
//!
//! What serves a request cannot end the connection below it, and is not even asked while the other
//! side reads nothing. So an accepted connection brings its [`Hangup`] along, as a part of the
//! [`Line`] that every request carries.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Ends one connection.
#[derive(Clone, Debug, Default)]
pub struct Hangup(CancellationToken);

/// The connection that a request came over.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pub remote: Option<SocketAddr>,
    pub hangup: Hangup,
}

/// A connection that ends when its [`Hangup`] says so.
pub struct Hanging<S> {
    stream: S,
    hangup: Hangup,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Hangup {
    pub fn hang_up(&self) {
        self.0.cancel();
    }
}

impl<S> Hanging<S> {
    pub fn new(stream: S) -> Self {
        let hangup = Hangup::default();
        let ended = Box::pin(hangup.0.clone().cancelled_owned());
        Self { stream, hangup, ended }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Hanging<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Hanging<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: Connected<ConnectInfo = TcpConnectInfo>> Connected for Hanging<S> {
    type ConnectInfo = Line;

    fn connect_info(&self) -> Line {
        let remote = self.stream.connect_info().remote_addr();
        Line { remote, hangup: self.hangup.clone() }
    }
}

impl<S> std::fmt::Debug for Hanging<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hanging").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_connection_ends_when_it_is_hung_up() {
        let (mut ours, theirs) = duplex(64);
        let mut hanging = Hanging::new(theirs);
        let hangup = hanging.hangup.clone();
        ours.write_all(b"one").await.unwrap();
        let mut read = [0; 3];
        hanging.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one");

        let waiting = hanging.read_exact(&mut read);
        let (ended, ()) = tokio::join!(waiting, async { hangup.hang_up() });
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
