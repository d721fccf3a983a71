//! A relay in front of a server that can be cut. The server's peers connect through it, the test's
//! own clients do not.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// A relay that runs on the runtime of its server.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    listener: TcpListener,
}

impl Relay {
    pub(super) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// Passes connections on until the cut; then they break, and none is taken any more.
    pub(super) async fn run(self, target: SocketAddr, cut: CancellationToken) {
        let mut passing = JoinSet::new();
        let pass = async {
            while let Ok((mut source, _)) = self.listener.accept().await {
                passing.spawn(async move {
                    if let Ok(mut target) = TcpStream::connect(target).await {
                        let _ = copy_bidirectional(&mut source, &mut target).await;
                    }
                });
            }
        };
        cut.run_until_cancelled(pass).await;
    }
}
