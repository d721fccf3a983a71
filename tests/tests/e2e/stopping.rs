//! The leader is stopped, as in every rolling restart, under a steady stream of calls: none fails.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use harness::{
    Mesh, Process,
    address::list,
    cli, eventually,
    kv::channel,
    wait::{LATE, SOON},
};
use proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

/// Leaders stopped in a row.
const ROUNDS: usize = 20;

/// Of each kind of clients.
const CLIENTS: usize = 4;

/// A call that takes this long has failed.
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn no_call_fails_when_the_leader_is_stopped() {
    let mut mesh = Mesh::start_with_front(3, 3).await;
    for server in &mesh.data {
        eventually("a data node is ready", SOON, async || server.is_ready().await).await;
    }
    let calls = Calls::start(mesh.front().kv);
    let direct = start_direct(&mesh);
    for round in 0..ROUNDS {
        mesh.caught_up().await;
        let before = calls.done();
        eventually("calls are answered", LATE, async || calls.done() > before + 20).await;
        let leader = mesh.data_leader().await;
        let ended = mesh.data[leader].terminate().await;
        assert_eq!(ended.code(), Some(0), "round {round}: {}", mesh.data[leader].output());
        let stopped = calls.done();
        eventually("others answer", LATE, async || calls.done() > stopped + 20).await;
        mesh.data[leader].start();
        let server = &mesh.data[leader];
        eventually("it is back", LATE, async || server.is_ready().await).await;
        // Whoever was refused tries again after a second or more. Until then it lacks one server of
        // three, and stopping the others too would leave it with none.
        let is_used = async || direct.connections_to(server.kv()) > 0;
        eventually("the direct clients have found it again", LATE, is_used).await;
        assert_eq!(calls.failed(), Vec::<String>::new(), "round {round}, through Envoy");
    }
    let failed = calls.stop().await;
    assert_eq!(failed, Vec::<String>::new(), "through Envoy");
    let path = mesh.path().join("direct.log");
    assert_eq!(direct.terminate().await.code(), Some(0));
    let output = std::fs::read_to_string(path).unwrap();
    assert!(output.contains("written ") && !output.contains("failed"), "{output}");
}

/// Clients that dial the data nodes themselves, with gRPC's own library.
fn start_direct(mesh: &Mesh) -> Process {
    let endpoints: Vec<SocketAddr> = mesh.data.iter().map(harness::Server::kv).collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/kv_clients.py");
    let args = [script.to_owned(), CLIENTS.to_string(), list(&endpoints)];
    Process::start("direct", mesh.path(), cli::python(), &args)
}

/// Clients of one endpoint that note every failure.
struct Calls {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    done: usize,
    failed: Vec<String>,
}

impl Calls {
    fn start(address: SocketAddr) -> Self {
        let (stop, noted) = (CancellationToken::new(), Arc::<Mutex<Noted>>::default());
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            tasks.spawn(call_on(address, client, stop.clone(), noted.clone()));
        }
        Self { tasks, stop, noted }
    }

    fn done(&self) -> usize {
        self.noted.lock().unwrap().done
    }

    fn failed(&self) -> Vec<String> {
        self.noted.lock().unwrap().failed.clone()
    }

    async fn stop(mut self) -> Vec<String> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.failed()
    }
}

/// Writes a key and reads it, for as long as the clients run.
async fn call_on(
    address: SocketAddr,
    client: usize,
    stop: CancellationToken,
    noted: Arc<Mutex<Noted>>,
) {
    let mut kv = KvClient::new(channel(address));
    let mut number = 0;
    while !stop.is_cancelled() {
        number += 1;
        let key = format!("calls/{client}/{number}");
        let called = write_and_read(&mut kv, &key).await;
        let mut noted = noted.lock().unwrap();
        match called {
            Ok(()) => noted.done += 1,
            Err(status) => noted.failed.push(format!("{key}: {status}")),
        }
    }
}

async fn write_and_read(
    kv: &mut KvClient<tonic::transport::Channel>,
    key: &str,
) -> Result<(), Status> {
    let put = PutRequest { key: key.to_owned().into(), ..PutRequest::default() };
    kv.put(within_deadline(put)).await?;
    let range = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
    let found = kv.range(within_deadline(range)).await?.into_inner();
    assert_eq!(found.count, 1, "{key} was acknowledged");
    Ok(())
}

fn within_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}
