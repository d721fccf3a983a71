//! The clients that are connected, as an operator sees them.
//!
//! Each stream keeps its own entry up to date, so that counting needs no answer from thousands of
//! tasks.

mod stream_policy;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use discovery::{
    lease::Time,
    resource::{Name, ResourceType},
    stream::PATIENCE,
};
use mesh::hangup::{Hangup, Line};
use tokio::time::Instant;
use tonic::Status;

pub(crate) use self::stream_policy::{Redirected, ServerQuorum, StreamPolicy};

/// Streams that this server serves at once. Each holds memory, whatever its client does.
const MOST_STREAMS: usize = 1 << 14;

/// Streams that one connection of a client may have open. A client needs one.
const MOST_STREAMS_OF_A_CONNECTION: usize = 100;

/// Stands for no time, when nothing is unanswered.
const NEVER: u64 = u64::MAX;

/// A resource that a client rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedResource {
    pub client: String,
    pub kind: ResourceType,
    /// `*` for a whole set.
    pub name: String,
    /// The client's reason, as it gave it.
    pub reason: String,
}

/// What the streams count together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamFigures {
    pub(crate) open: usize,
    /// Streams whose client has not answered a response for long.
    pub(crate) unanswered: usize,
    /// How long the oldest unanswered response has waited.
    pub(crate) oldest_unanswered: Time,
    /// Resources that clients reject at present.
    pub(crate) rejected: usize,
    /// Responses that were rejected since the start.
    pub(crate) rejections: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Clients {
    table: Mutex<Table>,
    rejections: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Arc<Entry>>,
    by_connection: BTreeMap<SocketAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    client: Mutex<String>,
    /// When the oldest unanswered response was sent, in milliseconds since the server's start.
    unanswered_since: AtomicU64,
    rejected: Mutex<Vec<Rejected>>,
    /// Since when the connection has not taken what was sent, in milliseconds since the server's
    /// start.
    unread_since: AtomicU64,
    hangup: Hangup,
}

/// A resource that a client rejects: its type, its name, and the client's reason.
type Rejected = (ResourceType, Name, Arc<str>);

/// Notes whether the connection of a stream takes what is sent.
#[derive(Debug)]
pub(crate) struct Reading {
    entry: Arc<Entry>,
    started: Instant,
}

/// One stream in the table, which is removed from it when this is dropped.
#[derive(Debug)]
pub(crate) struct StreamGuard {
    clients: Arc<Clients>,
    pub(crate) number: u64,
    connection: Option<SocketAddr>,
    entry: Arc<Entry>,
}

impl Clients {
    /// Lets a stream in, if there is room.
    pub(crate) fn open_stream(self: &Arc<Self>, line: Line) -> Result<StreamGuard, Status> {
        let connection = line.remote;
        let mut table = lock(&self.table);
        if table.entries.len() >= MOST_STREAMS {
            return Err(Status::resource_exhausted(format!(
                "this server has {MOST_STREAMS} streams of discovery open, which is the limit; try \
                 another server"
            )));
        }
        if let Some(connection) = connection {
            let open = table.by_connection.entry(connection).or_default();
            if *open >= MOST_STREAMS_OF_A_CONNECTION {
                return Err(Status::resource_exhausted(format!(
                    "this connection has {MOST_STREAMS_OF_A_CONNECTION} streams of discovery open, \
                     which is the limit; one is enough"
                )));
            }
            *open += 1;
        }
        let number = table.next;
        table.next += 1;
        let entry = Arc::new(Entry {
            client: Mutex::default(),
            unanswered_since: AtomicU64::new(NEVER),
            rejected: Mutex::default(),
            unread_since: AtomicU64::new(NEVER),
            hangup: line.hangup,
        });
        table.entries.insert(number, Arc::clone(&entry));
        Ok(StreamGuard { clients: Arc::clone(self), number, connection, entry })
    }

    pub(crate) fn figures(&self, now: Time) -> StreamFigures {
        let entries: Vec<Arc<Entry>> = lock(&self.table).entries.values().cloned().collect();
        let mut figures = StreamFigures {
            open: entries.len(),
            rejections: self.rejections.load(Ordering::Relaxed),
            ..StreamFigures::default()
        };
        for entry in entries {
            figures.rejected += lock(&entry.rejected).len();
            let since = entry.unanswered_since.load(Ordering::Relaxed);
            if since != NEVER {
                let age = now.saturating_sub(Time::from_millis(since));
                figures.oldest_unanswered = figures.oldest_unanswered.max(age);
                figures.unanswered += usize::from(age >= PATIENCE);
            }
        }
        figures
    }

    /// Ends the connections that have not taken what was sent for a time. Returns their clients.
    pub(crate) fn hang_up_unread(&self, now: Time, patience: Duration) -> Vec<String> {
        let is_unread = |entry: &&Arc<Entry>| {
            let since = entry.unread_since.load(Ordering::Relaxed);
            since != NEVER && now.saturating_sub(Time::from_millis(since)) >= patience
        };
        let unread: Vec<Arc<Entry>> =
            lock(&self.table).entries.values().filter(is_unread).cloned().collect();
        let clients = unread.iter().map(|entry| {
            entry.unread_since.store(NEVER, Ordering::Relaxed);
            entry.hangup.hang_up();
            lock(&entry.client).clone()
        });
        clients.collect()
    }

    /// The resources that clients reject, at most `limit`.
    pub(crate) fn rejected(&self, limit: usize) -> Vec<RejectedResource> {
        let entries: Vec<Arc<Entry>> = lock(&self.table).entries.values().cloned().collect();
        let mut found = Vec::new();
        for entry in entries {
            let client = lock(&entry.client).clone();
            for (kind, name, reason) in &*lock(&entry.rejected) {
                if found.len() == limit {
                    return found;
                }
                found.push(RejectedResource {
                    client: client.clone(),
                    kind: *kind,
                    name: name.to_string(),
                    reason: reason.to_string(),
                });
            }
        }
        found
    }
}

impl Reading {
    /// The connection was given something, and is busy until it asks for more.
    pub(crate) fn must_read(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER);
        self.entry.unread_since.store(now, Ordering::Relaxed);
    }

    pub(crate) fn has_read(&self) {
        self.entry.unread_since.store(NEVER, Ordering::Relaxed);
    }
}

impl StreamGuard {
    /// `started` is the server's start.
    pub(crate) fn reading(&self, started: Instant) -> Reading {
        Reading { entry: Arc::clone(&self.entry), started }
    }

    pub(crate) fn set_client(&self, id: &str) {
        id.clone_into(&mut lock(&self.entry.client));
    }

    pub(crate) fn set_unanswered_since(&self, since: Option<Time>) {
        let since = since.map_or(NEVER, |it| u64::try_from(it.as_millis()).unwrap_or(NEVER));
        self.entry.unanswered_since.store(since, Ordering::Relaxed);
    }

    pub(crate) fn count_rejection(&self) {
        self.clients.rejections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_rejected(&self, rejected: impl IntoIterator<Item = Rejected>) {
        let mut known = lock(&self.entry.rejected);
        known.clear();
        known.extend(rejected);
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let mut table = lock(&self.clients.table);
        table.entries.remove(&self.number);
        if let Some(connection) = self.connection
            && let Some(open) = table.by_connection.get_mut(&connection)
        {
            *open -= 1;
            if *open == 0 {
                table.by_connection.remove(&connection);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(port: u16) -> Line {
        Line { remote: Some(SocketAddr::from(([127, 0, 0, 1], port))), ..Line::default() }
    }

    #[test]
    fn a_connection_has_a_limit_of_its_own() {
        let clients = Arc::new(Clients::default());
        let mut open: Vec<_> =
            (0..MOST_STREAMS_OF_A_CONNECTION).map(|_| clients.open_stream(connection(1))).collect();
        let refused = clients.open_stream(connection(1)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("one is enough"), "{refused}");
        assert!(clients.open_stream(connection(2)).is_ok());
        open.pop();
        assert!(clients.open_stream(connection(1)).is_ok());
    }

    #[test]
    fn a_server_has_a_limit() {
        let clients = Arc::new(Clients::default());
        let open: Vec<_> =
            (0..MOST_STREAMS).map(|_| clients.open_stream(Line::default())).collect();
        let refused = clients.open_stream(connection(1)).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop(open);
        assert!(clients.open_stream(connection(1)).is_ok());
        assert_eq!(clients.figures(Time::ZERO).open, 0);
        assert!(lock(&clients.table).by_connection.is_empty());
    }

    #[tokio::test]
    async fn who_does_not_read_is_hung_up() {
        let patience = Duration::from_secs(30);
        let clients = Arc::new(Clients::default());
        let [stuck, reads, quiet] = [1, 2, 3].map(|port| {
            let guard = clients.open_stream(connection(port)).unwrap();
            guard.set_client(&port.to_string());
            let reading = guard.reading(Instant::now());
            (guard, reading)
        });
        stuck.1.must_read();
        reads.1.must_read();
        reads.1.has_read();
        assert_eq!(clients.hang_up_unread(patience, patience), ["1"]);
        assert_eq!(clients.hang_up_unread(patience, patience), [""; 0], "once is enough");
        drop((stuck, reads, quiet));
    }

    #[test]
    fn an_operator_sees_who_does_not_answer_and_what_is_rejected() {
        let clients = Arc::new(Clients::default());
        let stream = clients.open_stream(Line::default()).unwrap();
        stream.set_client("front");
        stream.set_unanswered_since(Some(Duration::from_secs(5)));
        stream.count_rejection();
        stream.set_rejected(vec![(ResourceType::Listener, "l".into(), "in use".into())]);
        let figures = clients.figures(Duration::from_secs(20));
        let wanted = StreamFigures {
            open: 1,
            unanswered: 1,
            oldest_unanswered: Duration::from_secs(15),
            rejected: 1,
            rejections: 1,
        };
        assert_eq!(figures, wanted);
        assert_eq!(clients.rejected(0), []);
        assert_eq!(clients.rejected(9)[0].client, "front");
        drop(stream);
        assert_eq!(clients.rejected(9), []);
        assert_eq!(clients.figures(Duration::ZERO).rejections, 1);
    }
}
