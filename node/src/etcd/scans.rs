//! Reads that may take long: on threads of their own, few at once, and given up when their caller
//! leaves.
//!
//! Without a bound, a burst of large ranges would take every thread that may block, and commands
//! are applied on such threads. If reads were not given up, those whose callers have left would
//! still use the processors.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use raft::rows::{Read, StorageError};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tonic::Status;

use super::refusal;
use crate::kv::KvError;

/// Reads at once for each processor; one may wait for the disk while another computes.
const PER_PROCESSOR: usize = 2;

/// The long reads of this node. Clones share the bound.
#[derive(Clone, Debug)]
pub(super) struct Scans(Arc<Semaphore>);

/// Whether the caller of a read has left.
#[derive(Clone, Debug, Default)]
pub(super) struct Abandoned(Arc<AtomicBool>);

impl Scans {
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        Self(Arc::new(Semaphore::new(processors * PER_PROCESSOR)))
    }

    /// Reads once there is room. If the caller leaves while it waits, the read never begins.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Abandoned) -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, Status> {
        let broken = |_| Status::internal("etcdserver: the read broke off");
        let permit = self.0.clone().acquire_owned().await.map_err(|_| broken(()))?;
        let caller = AbandonOnDrop(Abandoned::default());
        let abandoned = caller.0.clone();
        let reading = spawn_blocking(move || {
            let answer = read(&abandoned);
            drop(permit);
            answer
        });
        reading.await.map_err(|_| broken(()))?.map_err(refusal::of_kv)
    }
}

impl Abandoned {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Marks a read as abandoned when its caller is dropped, or done.
struct AbandonOnDrop(Abandoned);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Rows whose scans end when the caller of the read has left.
pub(super) struct CancellableRows<'a> {
    pub(super) rows: &'a dyn Read,
    pub(super) abandoned: &'a Abandoned,
}

impl Read for CancellableRows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.rows.get(key)
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        let mut given_up = false;
        self.rows.scan(start, end, reverse, &mut |key, value| {
            given_up = self.abandoned.is_set();
            !given_up && visit(key, value)
        })?;
        // The caller has left, so this error is not read.
        if given_up { Err(StorageError::new("the caller has left")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, sync::mpsc, task::Poll};

    use raft::{MemoryRows, rows::Write};

    use super::*;

    fn rows(count: u32) -> MemoryRows {
        let mut rows = MemoryRows::new();
        for number in 0..count {
            rows.put(number.to_be_bytes().to_vec(), Vec::new());
        }
        rows
    }

    #[test]
    fn a_scan_ends_when_its_caller_leaves() {
        let (rows, caller) = (rows(100), AbandonOnDrop(Abandoned::default()));
        let abandoned = caller.0.clone();
        let wanted = CancellableRows { rows: &rows, abandoned: &abandoned };
        let (mut caller, mut visited) = (Some(caller), 0);
        let scanned = wanted.scan(&[], None, false, &mut |_, _| {
            visited += 1;
            if visited == 10 {
                drop(caller.take());
            }
            true
        });
        assert!(scanned.is_err());
        assert_eq!(visited, 10);
    }

    #[tokio::test]
    async fn reads_wait_for_room_and_those_that_leave_are_never_begun() {
        let scans = Scans(Arc::new(Semaphore::new(1)));
        let (go_on, blocked) = mpsc::channel::<()>();
        let first = scans.clone();
        let mut first = pin!(first.run(move |_| {
            let _ = blocked.recv();
            Ok(1)
        }));
        // Polled once, so that it holds the room.
        poll_fn(|context| {
            assert!(first.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        {
            let mut second = pin!(scans.run(|_| -> Result<i32, KvError> { unreachable!() }));
            poll_fn(|context| {
                assert!(second.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        go_on.send(()).unwrap();
        assert_eq!(first.await.unwrap(), 1);
        assert_eq!(scans.run(|_| Ok(3)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_read_learns_that_its_caller_has_left() {
        let scans = Scans(Arc::new(Semaphore::new(1)));
        let (told, leaves) = mpsc::channel();
        {
            let mut reading = pin!(scans.run(move |abandoned| {
                while !abandoned.is_set() {
                    thread::yield_now();
                }
                told.send(()).unwrap();
                Ok(())
            }));
            poll_fn(|context| {
                assert!(reading.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        spawn_blocking(move || leaves.recv().unwrap()).await.unwrap();
    }
}
