//! The etcd v3 API as a client sees it, and a steady stream of writes to it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use proto::{
    etcdserverpb::{
        HashKvRequest, HashKvResponse, PutRequest, RangeRequest, StatusRequest, StatusResponse,
        kv_client::KvClient, maintenance_client::MaintenanceClient,
    },
    mvccpb::KeyValue,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

/// After this a request has failed, and a write's outcome is unknown.
const DEADLINE: Duration = Duration::from_secs(2);

/// Acknowledgements that the test has not looked at yet; a writer waits beyond.
const ACKNOWLEDGED_QUEUE: usize = 1 << 16;

/// A client of one endpoint: a data node, or an Envoy in front of them.
#[derive(Clone, Debug)]
pub struct Kv {
    kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

/// One key of the namespace, and where it stands in the order of revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub value: String,
    pub revision: i64,
}

impl Kv {
    pub fn at(address: SocketAddr) -> Self {
        let channel = channel(address);
        Self { kv: KvClient::new(channel.clone()), maintenance: MaintenanceClient::new(channel) }
    }

    /// Writes a key and returns the revision of the write.
    ///
    /// # Errors
    ///
    /// As the server or the way to it answers; the write may have happened nevertheless.
    pub async fn put(&mut self, key: &str, value: &str) -> Result<i64, Status> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        let reply = self.kv.put(timed(request)).await?.into_inner();
        Ok(reply.header.map_or(0, |header| header.revision))
    }

    /// Reads a key, linearizably.
    ///
    /// # Errors
    ///
    /// As the server or the way to it answers.
    pub async fn get(&mut self, key: &str) -> Result<Option<Stored>, Status> {
        let request = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        let reply = self.kv.range(timed(request)).await?.into_inner();
        Ok(reply.kvs.into_iter().next().map(stored).map(|(_, stored)| stored))
    }

    /// Reads every key that begins with `prefix`.
    ///
    /// # Errors
    ///
    /// As the server or the way to it answers.
    pub async fn all(
        &mut self,
        prefix: &str,
        serializable: bool,
    ) -> Result<BTreeMap<String, Stored>, Status> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().expect("a prefix is not empty") += 1;
        let request = RangeRequest {
            key: prefix.to_owned().into(),
            range_end: end.into(),
            serializable,
            ..RangeRequest::default()
        };
        let reply = self.kv.range(timed(request)).await?.into_inner();
        Ok(reply.kvs.into_iter().map(stored).collect())
    }

    /// How the member behind this endpoint sees itself.
    ///
    /// # Errors
    ///
    /// As the server or the way to it answers.
    pub async fn status(&mut self) -> Result<StatusResponse, Status> {
        Ok(self.maintenance.status(timed(StatusRequest {})).await?.into_inner())
    }

    /// A hash over what the replica behind this endpoint held at a revision.
    ///
    /// # Errors
    ///
    /// As the server or the way to it answers; also if the replica has not come so far.
    pub async fn hash_at(&mut self, revision: i64) -> Result<HashKvResponse, Status> {
        let request = timed(HashKvRequest { revision });
        Ok(self.maintenance.hash_kv(request).await?.into_inner())
    }
}

/// A channel that connects when it is used, and again after it broke.
pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address makes a URI")
        .connect_timeout(Duration::from_secs(1))
        .connect_lazy()
}

/// A request that both ends give up after the deadline.
pub fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn stored(pair: KeyValue) -> (String, Stored) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&pair.key), Stored { value: text(&pair.value), revision: pair.mod_revision })
}

/// A write that the server acknowledged.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    pub key: String,
    pub stored: Stored,
    pub sent: Instant,
    pub answered: Instant,
}

/// Clients that write one new key after the other and never stop for an error.
#[derive(Debug)]
pub struct Writers {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    acknowledged: mpsc::Receiver<Acknowledged>,
    /// What was acknowledged so far, by key.
    pub written: BTreeMap<String, Stored>,
}

impl Writers {
    /// Starts `count` writers whose keys begin with `prefix`.
    pub fn start(address: SocketAddr, prefix: &str, count: usize) -> Self {
        let (tx, acknowledged) = mpsc::channel(ACKNOWLEDGED_QUEUE);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for writer in 0..count {
            let writing = write(Kv::at(address), format!("{prefix}{writer}/"), tx.clone());
            let stopping = stop.clone();
            tasks.spawn(async move {
                stopping.run_until_cancelled(writing).await;
            });
        }
        Self { tasks, stop, acknowledged, written: BTreeMap::new() }
    }

    /// The first acknowledgement of a write that was sent after `instant`.
    pub async fn first_after(&mut self, instant: Instant, deadline: Duration) -> Acknowledged {
        let wanted = async {
            loop {
                let one = self.acknowledged.recv().await.expect("the writers run");
                self.written.insert(one.key.clone(), one.stored.clone());
                if one.sent >= instant {
                    return one;
                }
            }
        };
        let found = tokio::time::timeout(deadline, wanted).await;
        found.unwrap_or_else(|_| panic!("no write was acknowledged for {deadline:?}"))
    }

    /// Stops the writers and returns everything that was acknowledged.
    pub async fn stop(mut self) -> BTreeMap<String, Stored> {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        while let Ok(one) = self.acknowledged.try_recv() {
            self.written.insert(one.key, one.stored);
        }
        self.written
    }
}

async fn write(mut kv: Kv, prefix: String, tx: mpsc::Sender<Acknowledged>) {
    for number in 0_u64.. {
        let key = format!("{prefix}{number:08}");
        let value = format!("value {number}");
        let sent = Instant::now();
        match kv.put(&key, &value).await {
            Ok(revision) => {
                let stored = Stored { value, revision };
                let one = Acknowledged { key, stored, sent, answered: Instant::now() };
                if tx.send(one).await.is_err() {
                    return;
                }
            }
            // A write that failed may have happened; its key is not used again.
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
