use proto::quorate::v1::{self as pb, mesh_client::MeshClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use super::*;
use crate::book::Hint;

#[tokio::test]
async fn a_peer_without_an_address_was_surely_not_asked() {
    let peers = Peers::new(Book::in_memory());
    let status = identify(peers.channel(1)).await;
    assert!(surely_not_begun(&status), "{status:?}");
}

#[tokio::test]
async fn a_refused_connection_was_surely_not_asked() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let book = Book::in_memory();
    book.learn(Hint {
        node_id: 1,
        boot_epoch: 1,
        start: 1,
        moves: 0,
        address,
        services: Vec::new(),
    });
    let status = identify(Peers::new(book).channel(1)).await;
    assert!(surely_not_begun(&status), "{status:?}");
}

/// RST_STREAM of the first stream, with a reason.
fn reset(reason: u8) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, reason]
}

/// GOAWAY without an error: streams after `last` were not looked at.
fn go_away(last: u8) -> Vec<u8> {
    vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0]
}

#[tokio::test]
async fn a_call_that_the_server_did_not_look_at_was_surely_not_asked() {
    const REFUSED_STREAM: u8 = 7;
    const CANCEL: u8 = 8;
    let cases = [
        ("refused", reset(REFUSED_STREAM), true),
        ("broken off", reset(CANCEL), false),
        ("after the last one", go_away(0), true),
        ("the last one", go_away(1), false),
        ("cut off", Vec::new(), false),
    ];
    for (name, frames, expected) in cases {
        let (channel, _server) = answering_with(frames).await;
        let status = identify(channel).await;
        assert_eq!(surely_not_begun(&status), expected, "{name}: {status:?}");
    }
}

/// D6: a server that stops has looked at none of the calls that were sent or waited behind its
/// goodbye.
#[tokio::test]
async fn calls_behind_a_goodbye_were_surely_not_asked() {
    let (channel, _server) = answering_with(go_away(0)).await;
    let calls = (0..256).map(|_| identify(channel.clone()));
    for status in futures::future::join_all(calls).await {
        assert!(surely_not_begun(&status), "{status:?}");
    }
}

/// A channel to a server that answers the first request of each connection with these frames, and
/// closes the connection. The server ends with the set.
async fn answering_with(frames: Vec<u8>) -> (Channel, JoinSet<()>) {
    const PREFACE: usize = 24;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HEADERS: u8 = 1;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = channel_to(listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            connection.write_all(&SETTINGS).await.unwrap();
            connection.read_exact(&mut [0; PREFACE]).await.unwrap();
            loop {
                let mut head = [0; 9];
                connection.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                connection.read_exact(&mut vec![0; length as usize]).await.unwrap();
                if head[3] == HEADERS {
                    break;
                }
            }
            connection.write_all(&frames).await.unwrap();
            connection.shutdown().await.unwrap();
            // What the client still sends is read, so that the frames are not lost by a reset.
            let _ = tokio::io::copy(&mut connection, &mut tokio::io::sink()).await;
        }
    });
    (channel, server)
}

async fn identify(channel: Channel) -> Status {
    MeshClient::new(channel).identify(pb::IdentifyRequest {}).await.unwrap_err()
}
