//! How many commands a server accepts at once. It refuses more, as etcd does: in a longer queue
//! every client would wait until its deadline.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Commands that are proposed and not applied. The same limit as etcd's.
pub(super) const COMMANDS: usize = 5_000;
/// Bytes of those commands.
const BYTES: usize = 256 << 20;

/// The commands that are under way on this server. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admission(Arc<Mutex<Load>>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Load {
    commands: usize,
    bytes: usize,
}

/// One admitted command. Dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Admission,
    bytes: usize,
}

impl Load {
    fn has_room(self, bytes: usize) -> bool {
        self.commands < COMMANDS && self.bytes + bytes <= BYTES
    }
}

impl Admission {
    /// None if the limit is reached.
    pub(crate) fn admit(&self, bytes: usize) -> Option<Permit> {
        let mut load = self.lock();
        if !load.has_room(bytes) {
            return None;
        }
        load.commands += 1;
        load.bytes += bytes;
        Some(Permit { admission: self.clone(), bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Load> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut load = self.admission.lock();
        load.commands -= 1;
        load.bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_bounded_in_number_and_room_comes_back() {
        let admission = Admission::default();
        let mut held: Vec<Permit> = (0..COMMANDS).map_while(|_| admission.admit(1)).collect();
        assert_eq!(held.len(), COMMANDS);
        assert!(admission.admit(1).is_none());
        held.pop();
        assert!(admission.admit(1).is_some());
        held.clear();
        assert_eq!(*admission.lock(), Load::default());
    }

    #[test]
    fn commands_are_bounded_in_bytes() {
        let admission = Admission::default();
        let large = BYTES / 100;
        let held: Vec<Permit> = (0..1_000).map_while(|_| admission.admit(large)).collect();
        assert_eq!(held.len(), 100);
        assert!(admission.admit(large).is_none());
    }
}
