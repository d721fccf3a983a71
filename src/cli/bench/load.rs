//! The clients, dealt out to connections and servers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinSet, time::sleep};

use super::{
    board::Board,
    client::{Client, Common},
    connection,
    interest::Interest,
    wire::node,
};

/// As whom the clients introduce themselves.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    /// The id of all clients; each has one of its own unless given.
    pub(super) id: Option<String>,
    pub(super) cluster: String,
}

impl Nodes {
    pub(super) fn of(&self, client: usize) -> Bytes {
        match &self.id {
            Some(id) => node(id, &self.cluster),
            None => node(&format!("bench-{client}"), &self.cluster),
        }
    }
}

/// Where the connections go, and when.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) connections: usize,
    /// Over how long the connections are made.
    pub(super) ramp: Duration,
}

/// All clients. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Load {
    tasks: JoinSet<()>,
    board: Arc<Board>,
}

impl Load {
    /// Starts a client for each interest.
    pub(super) fn start(
        layout: &Layout,
        nodes: &Nodes,
        common: &Arc<Common>,
        interests: Vec<Arc<Interest>>,
        board: &Arc<Board>,
    ) -> Self {
        let mut dealt: Vec<Vec<(Client, Bytes)>> = Vec::new();
        dealt.resize_with(layout.connections, Vec::new);
        for (number, interest) in interests.into_iter().enumerate() {
            let client = Client::new(Arc::clone(common), interest);
            dealt[connection_of(number, layout.connections)].push((client, nodes.of(number)));
        }
        let mut tasks = JoinSet::new();
        let pause = layout.ramp.div_f64(layout.connections.max(1) as f64);
        for (number, clients) in dealt.into_iter().enumerate() {
            let server = layout.servers[number % layout.servers.len()];
            let delay = pause.mul_f64(number as f64);
            let board = Arc::clone(board);
            tasks.spawn(async move {
                if !delay.is_zero() {
                    sleep(delay).await;
                }
                connection::run(server, clients, board).await;
            });
        }
        Self { tasks, board: Arc::clone(board) }
    }

    /// Ends all clients.
    pub(super) async fn stop(mut self) {
        self.board.close();
        self.tasks.shutdown().await;
    }
}

/// Deals clients out row by row, each row begun one further. Clients that follow each other, and
/// those that have the same names because they are as many apart as there are names, are on
/// different connections.
fn connection_of(client: usize, connections: usize) -> usize {
    (client + client / connections) % connections
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn clients_that_are_alike_are_on_different_connections() {
        let on = |clients: Vec<usize>| -> BTreeSet<usize> {
            clients.into_iter().map(|client| connection_of(client, 20)).collect()
        };
        assert_eq!(on((0..10).collect()).len(), 10);
        assert_eq!(on((0..200).step_by(10).collect()).len(), 20);
        for row in 0..5 {
            assert_eq!(on((row * 20..(row + 1) * 20).collect()).len(), 20, "all are used alike");
        }
    }
}
