//! What a client has of the names that it does not have as the snapshot does, and what is due.

use std::collections::BTreeMap;

use crate::resource::{Name, Resource, Version};

/// The open names, with what is due for each.
#[derive(Debug, Default)]
pub(super) struct Open {
    names: BTreeMap<Name, Entry>,
    /// How many resources are due, and how many removals and answers that there is none.
    puts: usize,
    gone: usize,
}

/// An open name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) held: Held,
    pub(super) due: Due,
}

/// What the client has of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) last_sent: LastSent,
    /// Full sets: the version of the last response with this name that the client accepted.
    pub(super) acked: Option<Version>,
}

/// What the client was last sent of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastSent {
    /// Nothing, or a removal that the client does not wait for.
    Nothing,
    /// It may have dropped what it was sent, and waits for an answer.
    Unknown,
    /// This content.
    Version(Version),
    /// This content, in a response that it rejected. It may have applied it or not. The same
    /// content is sent again only as a trial.
    Rejected(Version),
    /// That the resource does not exist.
    Missing,
}

/// What is to be sent of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// The resource.
    Put(Resource),
    /// The answer that there is no such resource.
    Absent,
    /// The removal of something the client has.
    Retire,
}

impl Held {
    pub(super) const fn new(last_sent: LastSent) -> Self {
        Self { last_sent, acked: None }
    }

    /// Whether the client was sent this content last, or accepted it last.
    pub(super) fn has(&self, version: Version) -> bool {
        self.last_sent == LastSent::Version(version) || self.acked == Some(version)
    }

    /// Compares what the client has with what it wants and the snapshot has.
    pub(super) fn due(&self, wanted: Option<&Resource>) -> Due {
        match (wanted, self.last_sent) {
            (Some(resource), LastSent::Version(version) | LastSent::Rejected(version))
                if version == resource.version() =>
            {
                Due::Nothing
            }
            (Some(resource), _) => Due::Put(resource.clone()),
            (None, LastSent::Unknown) => Due::Absent,
            (None, LastSent::Version(_) | LastSent::Rejected(_)) => Due::Retire,
            (None, LastSent::Missing | LastSent::Nothing) => Due::Nothing,
        }
    }
}

impl Open {
    pub(super) fn insert(&mut self, name: Name, entry: Entry) {
        self.count(&entry.due, 1);
        if let Some(before) = self.names.insert(name, entry) {
            self.count(&before.due, -1);
        }
    }

    /// Adds names that come in order, each once.
    pub(super) fn extend(&mut self, entries: Vec<(Name, Entry)>) {
        if !self.names.is_empty() {
            for (name, entry) in entries {
                self.insert(name, entry);
            }
            return;
        }
        for (_, entry) in &entries {
            self.count(&entry.due, 1);
        }
        self.names = entries.into_iter().collect();
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Entry> {
        let entry = self.names.remove(name)?;
        self.count(&entry.due, -1);
        Some(entry)
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Name) -> bool) {
        self.names.retain(|name, _| keep(name));
        let due = |is_of: fn(&Due) -> bool| self.names.values().filter(|it| is_of(&it.due)).count();
        (self.puts, self.gone) = (due(Due::is_put), due(Due::is_gone));
    }

    /// Takes everything, to put back what stays open.
    pub(super) fn take(&mut self) -> BTreeMap<Name, Entry> {
        (self.puts, self.gone) = (0, 0);
        std::mem::take(&mut self.names)
    }

    /// The client accepted this content. Returns false if the name is not open.
    pub(super) fn accept(&mut self, name: &str, version: Version) -> bool {
        let Some(entry) = self.names.get_mut(name) else { return false };
        entry.held.acked = Some(version);
        // If nothing is due, what was sent last is what the snapshot has.
        if entry.due == Due::Nothing && entry.held.last_sent == LastSent::Version(version) {
            self.names.remove(name);
        }
        true
    }

    pub(super) fn held(&self, name: &str) -> Option<Held> {
        self.names.get(name).map(|it| it.held)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) const fn has_puts(&self) -> bool {
        self.puts > 0
    }

    pub(super) const fn has_due(&self) -> bool {
        self.puts > 0 || self.gone > 0
    }

    /// The resources that are due.
    pub(super) fn puts(&self) -> impl Iterator<Item = (&Name, &Entry)> {
        let names = (self.puts > 0).then_some(&self.names);
        names.into_iter().flatten().filter(|(_, it)| it.due.is_put())
    }

    /// The removals that are due, and the answers that there is none.
    pub(super) fn gone(&self) -> impl Iterator<Item = (&Name, &Entry)> {
        let names = (self.gone > 0).then_some(&self.names);
        names.into_iter().flatten().filter(|(_, it)| it.due.is_gone())
    }

    fn count(&mut self, due: &Due, change: isize) {
        let counted = match due {
            Due::Nothing => return,
            Due::Put(_) => &mut self.puts,
            Due::Absent | Due::Retire => &mut self.gone,
        };
        *counted = counted.saturating_add_signed(change);
    }
}

impl Due {
    const fn is_put(&self) -> bool {
        matches!(self, Self::Put(_))
    }

    const fn is_gone(&self) -> bool {
        matches!(self, Self::Absent | Self::Retire)
    }
}
