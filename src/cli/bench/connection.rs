//! A connection to a server, and the streams on it: one task for all of them, so that what arrives
//! wakes one task once.
//!
//! HTTP/2 is spoken without gRPC's library in between, since its buffers, of which each stream has
//! some, would be most of what ten thousand idle clients take.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, future::join, stream::FuturesUnordered};
use h2::{
    RecvStream, SendStream,
    client::{Builder, Connection, SendRequest},
};
use http::{HeaderMap, Method, Request, Version};
use tokio::{net::TcpStream, time::timeout};
use tonic::Status;

use super::{
    board::Board,
    client::{Client, Heard},
    ledger::Seen,
    wire::{Malformed, Messages, Variant},
};
use crate::failure::chain;

/// Bytes that a server may have on the way on one stream and on one connection: what Envoy allows.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;

/// Why a stream or a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    #[error("the connection broke")]
    Http2(#[from] h2::Error),
    #[error("no gRPC is spoken here: HTTP status {0}")]
    NotGrpc(u16),
    #[error("{}", told(.0))]
    Status(Box<Status>),
    #[error("the server ended the stream without a status")]
    NoStatus,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

fn told(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    }
}

/// Connects in plain HTTP/2. Every connection of the load begins here.
pub(super) async fn connect(
    server: SocketAddr,
) -> Result<(SendRequest<Bytes>, Connection<TcpStream>), Broken> {
    let socket = TcpStream::connect(server).await.map_err(Broken::Connect)?;
    socket.set_nodelay(true).map_err(Broken::Connect)?;
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_push(false);
    Ok(builder.handshake(socket).await?)
}

/// One open stream of ADS.
pub(super) struct Conversation {
    requests: SendStream<Bytes>,
    responses: RecvStream,
    messages: Messages,
}

impl Conversation {
    pub(super) async fn open(
        sender: SendRequest<Bytes>,
        server: SocketAddr,
        variant: Variant,
        first: Bytes,
    ) -> Result<Self, Broken> {
        let mut sender = sender.ready().await?;
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{server}{}", variant.path()))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("an address and a path make a valid request");
        let (response, mut requests) = sender.send_request(request, false)?;
        // The connection closes with its last stream.
        drop(sender);
        requests.send_data(first, false)?;
        let response = response.await?;
        if !response.status().is_success() {
            return Err(Broken::NotGrpc(response.status().as_u16()));
        }
        if let Some(status) = status(response.headers()) {
            return Err(status);
        }
        let responses = response.into_body();
        Ok(Self { requests, responses, messages: Messages::default() })
    }

    /// Reads on, gives every response to `each`, and sends what that adds to `out`. Returns only when
    /// the stream ends.
    pub(super) async fn keep(
        &mut self,
        mut each: impl FnMut(&[u8], &mut BytesMut) -> Result<(), Malformed>,
    ) -> Broken {
        loop {
            match self.step(&mut each).await {
                Ok(()) => {}
                Err(broken) => return broken,
            }
        }
    }

    /// The same until the server has been silent for so long after a response.
    pub(super) async fn until_silent(
        &mut self,
        silence: Duration,
        mut each: impl FnMut(&[u8], &mut BytesMut) -> Result<(), Malformed>,
    ) -> Result<(), Broken> {
        self.step(&mut each).await?;
        loop {
            match timeout(silence, self.step(&mut each)).await {
                Ok(step) => step?,
                Err(_) => return Ok(()),
            }
        }
    }

    async fn step(
        &mut self,
        each: &mut impl FnMut(&[u8], &mut BytesMut) -> Result<(), Malformed>,
    ) -> Result<(), Broken> {
        let Some(chunk) = self.responses.data().await else {
            let trailers = self.responses.trailers().await?.unwrap_or_default();
            return Err(status(&trailers).unwrap_or(Broken::NoStatus));
        };
        let chunk = chunk?;
        self.responses.flow_control().release_capacity(chunk.len())?;
        let mut out = BytesMut::new();
        self.messages.push(&chunk, |message| each(message, &mut out))?;
        if !out.is_empty() {
            self.requests.send_data(out.freeze(), false)?;
        }
        Ok(())
    }
}

fn status(headers: &HeaderMap) -> Option<Broken> {
    Status::from_header_map(headers).map(|status| Broken::Status(Box::new(status)))
}

/// Opens a connection with a stream for each client, and stays until all of them have ended.
pub(super) async fn run(server: SocketAddr, clients: Vec<(Client, Bytes)>, board: Arc<Board>) {
    let (sender, connection) = match connect(server).await {
        Ok(connected) => connected,
        Err(broken) => {
            board.lost_connection();
            let reason = chain(&broken);
            clients.iter().for_each(|(client, _)| board.lost(client.changing(), false, &reason));
            return;
        }
    };
    let mut streams: FuturesUnordered<_> = clients
        .into_iter()
        .map(|(client, node)| stream(sender.clone(), server, client, node, &board))
        .collect();
    drop(sender);
    let all = async { while streams.next().await.is_some() {} };
    let (ended, ()) = join(connection, all).await;
    if ended.is_err() {
        board.lost_connection();
    }
}

async fn stream(
    sender: SendRequest<Bytes>,
    server: SocketAddr,
    mut client: Client,
    node: Bytes,
    board: &Board,
) {
    let first = client.first_request(&node);
    drop(node);
    let opened = Conversation::open(sender, server, client.variant(), first).await;
    let broken = match opened {
        Ok(mut conversation) => {
            let mut seen = Seen::default();
            let each = |message: &[u8], out: &mut BytesMut| {
                board.response(message.len());
                let touched = |name, stamp| board.arrived(name, stamp, &mut seen);
                match client.receive(message, out, touched)? {
                    Heard::Synced => board.synced(client.changing()),
                    Heard::Response => {}
                }
                Ok(())
            };
            conversation.keep(each).await
        }
        Err(broken) => broken,
    };
    board.lost(client.changing(), client.is_synced(), &chain(&broken));
}
