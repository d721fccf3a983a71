//! The body of a stream's HTTP response, which runs the stream.
//!
//! The conversation with a client is an asynchronous function; this polls it whenever the connection
//! wants more, and passes on what it sends. So a stream is one task, the connection's own: no queue
//! stands between the two, and a client that does not read is not served, because nobody asks.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Status, codegen::http::HeaderMap};

use crate::clients::Reading;

/// Where a conversation puts what it sends.
#[derive(Clone, Debug, Default)]
pub(super) struct Outlet(Arc<Mutex<VecDeque<Bytes>>>);

/// A conversation, as the body of a response.
pub(super) struct StreamBody {
    conversation: Pin<Box<dyn Future<Output = Status> + Send>>,
    outlet: Outlet,
    reading: Reading,
    state: State,
    /// Counts the stream among those that a stop of the server waits for.
    _running: TaskTrackerToken,
}

enum State {
    Running,
    /// What was sent last is still to be passed on, and then the status.
    Ending(Status),
    Ended,
}

impl Outlet {
    pub(super) fn push(&self, bytes: Bytes) {
        self.lock().push_back(bytes);
    }

    /// Waits until the connection has taken everything.
    pub(super) async fn taken(&self) {
        std::future::poll_fn(|_| match self.lock().is_empty() {
            true => Poll::Ready(()),
            // The body is polled when there is room for more, and polls this again.
            false => Poll::Pending,
        })
        .await;
    }

    fn pop(&self) -> Option<Bytes> {
        self.lock().pop_front()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamBody {
    pub(super) fn new(
        conversation: impl Future<Output = Status> + Send + 'static,
        outlet: Outlet,
        reading: Reading,
        running: TaskTrackerToken,
    ) -> Self {
        Self {
            conversation: Box::pin(conversation),
            outlet,
            reading,
            state: State::Running,
            _running: running,
        }
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.reading.has_read();
        if matches!(self.state, State::Running)
            && self.outlet.is_empty()
            && let Poll::Ready(status) = self.conversation.as_mut().poll(context)
        {
            self.state = State::Ending(status);
        }
        if let Some(bytes) = self.outlet.pop() {
            self.reading.must_read();
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Running => {
                self.state = State::Running;
                Poll::Pending
            }
            State::Ending(status) => {
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers)?;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            State::Ended => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body::Body as _;
    use mesh::hangup::Line;
    use tokio::time::Instant;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::clients::Clients;

    /// The next frame of a body: its data, or the code of its status.
    async fn next(body: &mut Pin<Box<StreamBody>>) -> Option<Result<Bytes, String>> {
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await?;
        Some(frame.unwrap().into_data().map_err(|frame| {
            let trailers = frame.into_trailers().unwrap();
            trailers["grpc-status"].to_str().unwrap().to_owned()
        }))
    }

    #[tokio::test]
    async fn the_status_comes_after_what_was_sent() {
        let (clients, tracker) = (Arc::new(Clients::default()), TaskTracker::new());
        let guard = clients.open_stream(Line::default()).unwrap();
        let outlet = Outlet::default();
        let sends = outlet.clone();
        let conversation = async move {
            sends.push(Bytes::from_static(b"one"));
            sends.push(Bytes::from_static(b"two"));
            sends.taken().await;
            sends.push(Bytes::from_static(b"three"));
            Status::unavailable("the end")
        };
        let reading = guard.reading(Instant::now());
        let mut body = Box::pin(StreamBody::new(conversation, outlet, reading, tracker.token()));
        for part in ["one", "two", "three"] {
            assert_eq!(next(&mut body).await, Some(Ok(part.into())));
            assert!(!body.is_end_stream());
        }
        assert_eq!(next(&mut body).await, Some(Err("14".to_owned())));
        assert!(body.is_end_stream());
        assert_eq!(next(&mut body).await, None);
        assert_eq!(tracker.len(), 1);
        drop(body);
        assert_eq!(tracker.len(), 0);
    }
}
