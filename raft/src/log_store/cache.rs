//! The newest entries of one group, in memory.
//!
//! The cache is the tail of the log without a hole. It ends with the last entry and holds at least
//! every entry that is not yet on disk, so entries before it can always be read from disk.

use std::collections::VecDeque;

use openraft::EntryPayload;

use crate::types::{Command, Entry};

/// Bytes of entries kept per group once they are on disk.
pub(super) const KEEP_BYTES: usize = 4 << 20;
/// Assumed size of an entry without its command.
const ENTRY_OVERHEAD: usize = 64;

#[derive(Default)]
pub(super) struct EntryCache {
    /// Consecutive entries, each with the number of the write that stores it.
    entries: VecDeque<(u64, Entry)>,
    bytes: usize,
}

impl EntryCache {
    /// Adds the entry that follows the last one, stored by the write numbered `write`.
    pub(super) fn push(&mut self, write: u64, entry: Entry) {
        self.bytes += weight(&entry);
        self.entries.push_back((write, entry));
    }

    /// Removes every entry from `index` on.
    pub(super) fn truncate_from(&mut self, index: u64) {
        while self.entries.back().is_some_and(|(_, entry)| entry.log_id.index >= index) {
            self.pop_back();
        }
    }

    /// Removes every entry up to `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while self.entries.front().is_some_and(|(_, entry)| entry.log_id.index <= index) {
            self.pop_front();
        }
    }

    /// Removes old entries until the rest is small enough. Entries whose write is later than
    /// `written` stay: they are not on disk.
    pub(super) fn evict(&mut self, written: u64) {
        while self.bytes > KEEP_BYTES
            && self.entries.front().is_some_and(|(write, _)| *write <= written)
        {
            self.pop_front();
        }
    }

    /// The index of the first cached entry.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|(_, entry)| entry.log_id.index)
    }

    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.first_index()?)?;
        self.entries.get(usize::try_from(offset).ok()?).map(|(_, entry)| entry)
    }

    fn pop_front(&mut self) {
        if let Some((_, entry)) = self.entries.pop_front() {
            self.bytes -= weight(&entry);
        }
    }

    fn pop_back(&mut self) {
        if let Some((_, entry)) = self.entries.pop_back() {
            self.bytes -= weight(&entry);
        }
    }
}

/// Approximate size of an entry in memory or in a message.
pub(super) fn weight(entry: &Entry) -> usize {
    ENTRY_OVERHEAD
        + match &entry.payload {
            EntryPayload::Blank => 0,
            EntryPayload::Normal(Command::Machine(command)) => command.bytes.len(),
            EntryPayload::Normal(Command::RaiseLevel(_)) => 0,
            EntryPayload::Membership(membership) => membership.nodes().count() * 32,
        }
}

#[cfg(test)]
mod tests;
