//! A small application inside the test: it remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::interval,
};

use crate::address::{free, next_ip};

/// A running application, on an address of its own; it ends with the value.
#[derive(Debug)]
pub struct App {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

/// How it treats connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers each request with the head of the request.
    Answers,
    /// Answers the first request of a connection, and closes the connection at the second, as if it
    /// had been closing it for being idle.
    ClosesReused,
    /// Never answers.
    Hangs,
    /// Answers with ten pieces, one each `PIECE_EVERY`.
    Trickles,
}

/// Pause between the pieces of a slow answer.
const PIECE_EVERY: Duration = Duration::from_millis(200);

/// What such an answer has, all together.
pub const PIECES: &str = "0123456789";

impl App {
    pub async fn start(manner: Manner) -> Self {
        Self::start_at(free(next_ip(), 8000), manner).await
    }

    pub async fn start_at(address: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let asked = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, manner, Arc::clone(&asked)));
        Self { address, asked, _tasks: tasks }
    }

    /// First lines of the requests that arrived.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with the lock").clone()
    }
}

async fn accept(listener: TcpListener, manner: Manner, asked: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    while let Ok((connection, _)) = listener.accept().await {
        connections.spawn(serve(connection, manner, Arc::clone(&asked)));
    }
}

async fn serve(mut connection: TcpStream, manner: Manner, asked: Arc<Mutex<Vec<String>>>) {
    let mut served = 0;
    while let Some(head) = read_head(&mut connection).await {
        let line = head.lines().next().unwrap_or_default().to_owned();
        asked.lock().expect("nobody panics with the lock").push(line);
        match manner {
            Manner::Hangs => std::future::pending().await,
            Manner::ClosesReused if served > 0 => return,
            Manner::Trickles => return trickle(&mut connection).await,
            Manner::ClosesReused | Manner::Answers => {}
        }
        if head.to_ascii_lowercase().contains("upgrade: websocket") {
            let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                            upgrade: websocket\r\n\r\n";
            if connection.write_all(switched.as_bytes()).await.is_ok() {
                echo(&mut connection).await;
            }
            return;
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}", head.len());
        if connection.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        served += 1;
    }
}

async fn trickle(connection: &mut TcpStream) {
    let mut pause = interval(PIECE_EVERY);
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned();
    let pieces = PIECES.chars().map(String::from);
    for piece in std::iter::once(head).chain(pieces) {
        pause.tick().await;
        if connection.write_all(piece.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn echo(connection: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = connection.read(&mut buffer).await {
        if connection.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Reads up to the empty line; nothing if the connection ends before.
pub async fn read_head(connection: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}
