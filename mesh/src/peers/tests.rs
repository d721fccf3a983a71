use proto::quorate::v1::{self as pb, mesh_client::MeshClient};
use tokio::net::TcpListener;

use super::*;
use crate::book::Hint;

#[tokio::test]
async fn a_peer_without_an_address_was_surely_not_sent_anything() {
    let peers = Peers::new(Book::in_memory());
    let status = identify(peers.channel(1)).await;
    assert!(surely_not_sent(&status), "{status:?}");
}

#[tokio::test]
async fn a_refused_connection_was_surely_not_sent_anything() {
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
    assert!(surely_not_sent(&status), "{status:?}");
}

#[tokio::test]
async fn a_connection_that_broke_may_have_been_sent_something() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = channel_to(listener.local_addr().unwrap());
    let accept_and_close = async {
        for _ in 0..2 {
            drop(listener.accept().await);
        }
    };
    let status = tokio::select! {
        () = accept_and_close => panic!("dialed twice for one call"),
        status = identify(channel) => status,
    };
    assert!(!surely_not_sent(&status), "{status:?}");
}

async fn identify(channel: Channel) -> Status {
    MeshClient::new(channel).identify(pb::IdentifyRequest {}).await.unwrap_err()
}
