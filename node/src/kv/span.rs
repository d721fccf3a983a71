//! A key or a range of keys, as a request names it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use raft::rows::{Read, StorageError};

use super::layout::Revision;
use super::layout::{
    KeyRecord, corrupt, current_end, current_key, current_row, history_after, history_end,
    history_from, history_row,
};

/// The keys that a request names with `key` and `range_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span<'a> {
    /// One key: `range_end` is empty.
    Key(&'a [u8]),
    /// From the first on, and before the second.
    Range(&'a [u8], &'a [u8]),
    /// From this one on: `range_end` is one zero byte.
    From(&'a [u8]),
}

impl<'a> Span<'a> {
    pub(super) fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        match range_end {
            [] => Self::Key(key),
            [0] => Self::From(key),
            _ => Self::Range(key, range_end),
        }
    }

    /// Where the history rows of these keys begin and end. For one key only those from `since` on.
    pub(super) fn history(&self, since: Revision) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::Key(key) => (history_row(key, since), history_after(key)),
            Self::Range(key, end) => (history_from(key), history_from(end)),
            Self::From(key) => (history_from(key), history_end()),
        }
    }

    /// Visits the keys that there are, in order, with their records. `visit` returns false to stop.
    pub(super) fn each_current(
        &self,
        rows: &dyn Read,
        visit: &mut dyn FnMut(&[u8], KeyRecord<'_>) -> bool,
    ) -> Result<(), StorageError> {
        let (start, end) = match self {
            Self::Key(key) => {
                let row = current_row(key);
                if let Some(bytes) = rows.get(&row)? {
                    let record =
                        KeyRecord::decode(&bytes).ok_or_else(|| corrupt("current", &row))?;
                    visit(key, record);
                }
                return Ok(());
            }
            Self::Range(key, end) => (current_row(key), current_row(end)),
            Self::From(key) => (current_row(key), current_end()),
        };
        if end <= start {
            return Ok(());
        }
        let mut bad = None;
        rows.scan(&start, Some(&end), false, &mut |row, bytes| match KeyRecord::decode(bytes) {
            Some(record) => visit(current_key(row), record),
            None => {
                bad = Some(corrupt("current", row));
                false
            }
        })?;
        bad.map_or(Ok(()), Err)
    }
}

/// Keys that a number of spans cover together.
///
/// Nested transactions may hold very many operations, so the spans are not compared pairwise.
#[derive(Debug, Default)]
pub(super) struct SpanSet<'a> {
    keys: BTreeSet<&'a [u8]>,
    /// The end of each range by its start; no two ranges touch.
    ranges: BTreeMap<&'a [u8], &'a [u8]>,
    from: Option<&'a [u8]>,
}

impl<'a> SpanSet<'a> {
    pub(super) fn insert(&mut self, span: Span<'a>) {
        match span {
            Span::Key(key) => {
                self.keys.insert(key);
            }
            Span::From(key) => self.from = Some(self.from.map_or(key, |from| from.min(key))),
            Span::Range(start, end) if start < end => self.insert_range(start, end),
            Span::Range(..) => {}
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
        for (start, end) in other.ranges {
            self.insert_range(start, end);
        }
        if let Some(from) = other.from {
            self.insert(Span::From(from));
        }
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(key)
            || self.from.is_some_and(|from| from <= key)
            || self.range_before(key).is_some_and(|(_, end)| key < end)
    }

    fn insert_range(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        // Ranges that touch this one become part of it: first the one that begins before it, then
        // those that begin within it.
        if let Some((before, its_end)) = self.range_before(start)
            && its_end >= start
        {
            (start, end) = (before, end.max(its_end));
        }
        let within = (Bound::Included(start), Bound::Included(end));
        let touching: Vec<_> =
            self.ranges.range::<[u8], _>(within).map(|(start, end)| (*start, *end)).collect();
        for (its_start, its_end) in touching {
            self.ranges.remove(its_start);
            end = end.max(its_end);
        }
        self.ranges.insert(start, end);
    }

    /// The last range that begins at or before a key.
    fn range_before(&self, key: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        self.ranges.range::<[u8], _>(upto).next_back().map(|(start, end)| (*start, *end))
    }
}
