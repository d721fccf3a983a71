//! Who is to be told of a change.
//!
//! Streams say what they want ([`Wish`]), and a new snapshot marks those that want what it changes.
//! So a change costs what it changes times who wants it, however many streams there are. A marked
//! stream finds the snapshot before the first change that it was not told of, so that it need not
//! keep one alive while nothing concerns it.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use crate::resource::{Name, ResourceType};
use crate::snapshot::Snapshot;
use crate::stream::{Latest, Wish};

#[cfg(test)]
mod tests;

/// The number of an open stream. It is given again once the stream is closed.
pub type StreamNumber = u32;

/// What each open stream wants, and the latest snapshot.
#[derive(Debug)]
pub struct Interest {
    latest: Snapshot,
    types: [Wanting; ResourceType::COUNT],
    /// By stream: the snapshot before the first change that it wants to know and does not.
    since: Vec<Option<Snapshot>>,
    open: RoaringBitmap,
}

/// The streams that want resources of one type.
#[derive(Debug, Default)]
struct Wanting {
    all: RoaringBitmap,
    names: BTreeMap<Name, RoaringBitmap>,
}

impl Interest {
    pub fn new(latest: Snapshot) -> Self {
        Self { latest, types: Default::default(), since: Vec::new(), open: RoaringBitmap::new() }
    }

    /// Adds a stream that wants nothing.
    pub fn open(&mut self) -> StreamNumber {
        let number = match self.open.max() {
            None => 0,
            Some(last) if u64::from(last) + 1 == self.open.len() => last + 1,
            // The rank of a number tells whether all before it are in use.
            Some(last) => self.first_free(last),
        };
        self.open.insert(number);
        let at = number as usize;
        if at == self.since.len() {
            self.since.push(None);
        }
        number
    }

    /// The first number below `last`, which is in use, that is free.
    fn first_free(&self, last: StreamNumber) -> StreamNumber {
        let (mut low, mut high) = (0, last);
        while low < high {
            let middle = low + (high - low) / 2;
            // All numbers up to the middle are in use if there are as many.
            if self.open.rank(middle) == u64::from(middle) + 1 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Removes a stream. Its wishes must have been taken back.
    pub fn close(&mut self, stream: StreamNumber) {
        self.open.remove(stream);
        if let Some(since) = self.since.get_mut(stream as usize) {
            *since = None;
        }
    }

    /// Changes what a stream wants. The stream has decided this by the snapshot `seen`; if there is
    /// a later one, the stream is marked, and this returns true.
    pub fn wish(&mut self, stream: StreamNumber, wishes: Vec<Wish>, seen: &Snapshot) -> bool {
        for wish in wishes {
            match wish {
                Wish::Name(kind, name) => {
                    self.types[kind.index()].names.entry(name).or_default().insert(stream);
                }
                Wish::NoName(kind, name) => self.types[kind.index()].drop_name(&name, stream),
                Wish::All(kind) => {
                    self.types[kind.index()].all.insert(stream);
                }
                Wish::NotAll(kind) => {
                    self.types[kind.index()].all.remove(stream);
                }
            }
        }
        let is_behind = self.latest.revision() != seen.revision();
        let since = &mut self.since[stream as usize];
        if is_behind && since.as_ref().is_none_or(|it| it.revision() > seen.revision()) {
            *since = Some(seen.clone());
        }
        is_behind
    }

    /// Takes the next snapshot. Returns the streams that it concerns and that were not marked.
    pub fn publish(&mut self, next: Snapshot) -> Vec<StreamNumber> {
        let mut concerned = RoaringBitmap::new();
        for kind in ResourceType::all() {
            let wanting = &self.types[kind.index()];
            if wanting.is_empty() {
                continue;
            }
            for name in next.changed_since(&self.latest, kind).iter() {
                let mut resources =
                    [&next, &self.latest].into_iter().flat_map(|it| it.get(kind, name));
                if resources.any(|it| it.in_wildcard()) {
                    concerned |= &wanting.all;
                }
                if let Some(streams) = wanting.names.get(name) {
                    concerned |= streams;
                }
            }
        }
        let before = std::mem::replace(&mut self.latest, next);
        let mut marked = Vec::new();
        for stream in concerned {
            let since = &mut self.since[stream as usize];
            if since.is_none() {
                *since = Some(before.clone());
                marked.push(stream);
            }
        }
        marked
    }

    /// The latest snapshot for a stream, which is not marked any more.
    pub fn take(&mut self, stream: StreamNumber) -> Latest {
        let since = self.since.get_mut(stream as usize).and_then(Option::take);
        Latest { snapshot: self.latest.clone(), since }
    }

    /// Whether there is a change that a stream wants to know and does not.
    pub fn is_marked(&self, stream: StreamNumber) -> bool {
        self.since.get(stream as usize).is_some_and(Option::is_some)
    }

    pub const fn latest(&self) -> &Snapshot {
        &self.latest
    }
}

impl Wanting {
    fn is_empty(&self) -> bool {
        self.all.is_empty() && self.names.is_empty()
    }

    fn drop_name(&mut self, name: &Name, stream: StreamNumber) {
        if let Some(streams) = self.names.get_mut(name) {
            streams.remove(stream);
            if streams.is_empty() {
                self.names.remove(name);
            }
        }
    }
}
