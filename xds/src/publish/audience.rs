//! The streams of discovery, and the snapshot that they are told of.
//!
//! [`Interest`] knows whom a change concerns; here the tasks of these streams are woken. All others
//! sleep on.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use discovery::{
    interest::{Interest, StreamNumber},
    snapshot::Snapshot,
    stream::{Latest, Wish},
};
use futures::task::AtomicWaker;

/// Everybody who is told of snapshots.
#[derive(Debug)]
pub(crate) struct Audience {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    interest: Interest,
    /// By the number of the stream.
    bells: Vec<Arc<Bell>>,
}

/// Wakes the task of one stream.
#[derive(Debug, Default)]
struct Bell {
    is_rung: AtomicBool,
    waker: AtomicWaker,
}

/// The place of one stream in the audience. Its wishes must be taken back before it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    audience: Arc<Audience>,
    number: StreamNumber,
    bell: Arc<Bell>,
}

impl Audience {
    pub(crate) fn new(latest: Snapshot) -> Self {
        let state = State { interest: Interest::new(latest), bells: Vec::new() };
        Self { state: Mutex::new(state) }
    }

    /// Publishes a snapshot, and wakes the streams that it concerns.
    pub(crate) fn publish(&self, next: Snapshot) {
        let mut state = self.lock();
        for number in state.interest.publish(next) {
            state.bells[number as usize].ring();
        }
    }

    /// Calls every stream, because something else than the snapshot has changed.
    pub(crate) fn call_all(&self) {
        for bell in &self.lock().bells {
            bell.ring();
        }
    }

    pub(crate) fn latest(&self) -> Snapshot {
        self.lock().interest.latest().clone()
    }

    pub(crate) fn join(self: &Arc<Self>) -> Seat {
        let mut state = self.lock();
        let number = state.interest.open();
        let bell = Arc::<Bell>::default();
        match state.bells.get_mut(number as usize) {
            Some(known) => *known = Arc::clone(&bell),
            None => state.bells.push(Arc::clone(&bell)),
        }
        drop(state);
        Seat { audience: Arc::clone(self), number, bell }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bell {
    fn ring(&self) {
        self.is_rung.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Seat {
    /// Waits for a change that concerns the stream, or for [`Audience::call_all`].
    pub(crate) fn poll_called(&self, context: &Context<'_>) -> Poll<()> {
        self.bell.waker.register(context.waker());
        match self.bell.is_rung.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Takes the latest snapshot. The stream is called again at the next change that concerns it.
    pub(crate) fn take(&self) -> Latest {
        let mut state = self.audience.lock();
        self.bell.is_rung.store(false, Ordering::Release);
        state.interest.take(self.number)
    }

    pub(crate) fn latest(&self) -> Snapshot {
        self.audience.latest()
    }

    /// Changes what the stream wants. It has decided this by the snapshot `seen`; if there is a
    /// later one, it is called.
    pub(crate) fn wish(&self, wishes: Vec<Wish>, seen: &Snapshot) {
        if !wishes.is_empty() && self.audience.lock().interest.wish(self.number, wishes, seen) {
            self.bell.ring();
        }
    }

    /// Takes back what the stream wants.
    pub(crate) fn withdraw(&self, wishes: Vec<Wish>) {
        let mut state = self.audience.lock();
        let latest = state.interest.latest().clone();
        state.interest.wish(self.number, wishes, &latest);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.audience.lock().interest.close(self.number);
    }
}

#[cfg(test)]
mod tests {
    use discovery::resource::{Resource, ResourceChange, ResourceType};
    use envoy_types::pb::envoy::config::listener::v3::Listener;

    use super::*;

    const KIND: ResourceType = ResourceType::Listener;

    fn is_called(seat: &Seat) -> bool {
        seat.poll_called(&Context::from_waker(futures::task::noop_waker_ref())).is_ready()
    }

    fn next(audience: &Audience, revision: u64) -> Snapshot {
        let listener = Listener { name: revision.to_string(), ..Listener::default() };
        let put = ResourceChange::Put(Resource::new(KIND, "a", &listener));
        audience.latest().with_changes(revision, [put])
    }

    #[test]
    fn only_who_wants_a_change_is_called() {
        let audience = Arc::new(Audience::new(Snapshot::empty()));
        let [wants, sleeps] = [(); 2].map(|()| audience.join());
        wants.wish(vec![Wish::Name(KIND, "a".into())], &wants.latest());
        audience.publish(next(&audience, 1));
        assert!(is_called(&wants) && !is_called(&sleeps));
        assert_eq!(wants.take().since.map(|it| it.revision()), Some(0));
        assert!(!is_called(&wants));

        audience.call_all();
        assert!(is_called(&wants) && is_called(&sleeps));
        assert!(sleeps.take().since.is_none(), "no change concerns it");
    }

    #[test]
    fn a_wish_that_crosses_a_change_is_called() {
        let audience = Arc::new(Audience::new(Snapshot::empty()));
        let seat = audience.join();
        let seen = seat.take().snapshot;
        audience.publish(next(&audience, 1));
        seat.wish(vec![Wish::All(KIND)], &seen);
        assert!(is_called(&seat));
    }

    #[test]
    fn a_seat_is_free_again() {
        let audience = Arc::new(Audience::new(Snapshot::empty()));
        let seat = audience.join();
        let number = seat.number;
        seat.wish(vec![Wish::All(KIND)], &seat.latest());
        seat.withdraw(vec![Wish::NotAll(KIND)]);
        drop(seat);
        let other = audience.join();
        assert_eq!(other.number, number);
        audience.publish(next(&audience, 1));
        assert!(!is_called(&other));
    }
}
