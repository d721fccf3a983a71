//! The names, and the wildcard, that the client asks for.

use std::collections::BTreeSet;

use super::{Entry, Form, Held, LastSent, Subscription, WILDCARD};
use crate::resource::{Name, Resource, Version};
use crate::snapshot::Snapshot;
use crate::stream::Wish;

impl Subscription {
    /// State of the world: the request holds the full list of names.
    pub(crate) fn replace(
        &mut self,
        names: &[String],
        snapshot: &Snapshot,
        wishes: &mut Vec<Wish>,
    ) {
        let names: BTreeSet<&str> =
            names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        self.named |= !names.is_empty();

        // "How the client specifies what resources to return": as long as no request gave a name,
        // the empty list is a wildcard; afterwards it ends all subscriptions.
        let wildcard = self.kind.has_wildcard() && (names.contains(WILDCARD) || !self.named);
        if wildcard && !self.wildcard {
            self.ask_for_all(snapshot, wishes);
        }

        let dropped: Vec<Name> =
            self.names.iter().filter(|name| !names.contains(name.as_str())).cloned().collect();
        for name in dropped {
            self.drop_name(&name, snapshot, wishes);
        }
        if !wildcard {
            self.drop_wildcard(wishes);
        }
        let added = names
            .into_iter()
            .filter(|name| !self.is_wildcard_name(name) && !self.names.contains(name))
            .collect();
        self.ask(added, snapshot, wishes);
    }

    /// Delta: the request holds names to subscribe to and names to unsubscribe from.
    pub(crate) fn adjust(
        &mut self,
        subscribe: &[String],
        unsubscribe: &[String],
        snapshot: &Snapshot,
        wishes: &mut Vec<Wish>,
    ) {
        for name in unsubscribe {
            if self.is_wildcard_name(name) {
                // A name in both lists stays subscribed.
                if !subscribe.contains(name) {
                    self.drop_wildcard(wishes);
                }
            } else {
                self.drop_name(name, snapshot, wishes);
            }
        }
        let mut names: Vec<&str> =
            subscribe.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        self.named |= !names.is_empty();
        if names.iter().any(|name| self.is_wildcard_name(name)) {
            names.retain(|name| !self.is_wildcard_name(name));
            self.ask_for_all(snapshot, wishes);
        }
        names.sort_unstable();
        names.dedup();
        self.ask(names, snapshot, wishes);
    }

    /// Handles a first request of a type that names nothing: the legacy form of the wildcard.
    pub(crate) fn begin_unnamed(&mut self, snapshot: &Snapshot, wishes: &mut Vec<Wish>) {
        if self.kind.has_wildcard() && !self.named {
            self.ask_for_all(snapshot, wishes);
        }
    }

    /// Takes over what the client claims to hold from an earlier stream, except for names in
    /// `doubted`.
    pub(crate) fn claim<'a>(
        &mut self,
        versions: impl IntoIterator<Item = (&'a str, &'a str)>,
        doubted: &BTreeSet<Name>,
        snapshot: &Snapshot,
    ) {
        for (text, version) in versions {
            if !(self.wildcard || self.names.contains(text)) {
                continue;
            }
            let name = self.name(text, snapshot);
            match Version::parse(version) {
                Some(version) if !doubted.contains(text) => {
                    self.open(&name, Held::new(LastSent::Version(version)), snapshot);
                }
                _ => self.open(&name, Held::new(LastSent::Unknown), snapshot),
            }
        }
    }

    /// What takes back all wishes.
    pub(crate) fn withdraw(&self) -> impl Iterator<Item = Wish> {
        let all = self.wildcard.then_some(Wish::NotAll(self.kind));
        self.names.iter().map(|it| Wish::NoName(self.kind, it.clone())).chain(all)
    }

    /// State of the world: whether a list of names, given by its hash, is the one of the latest
    /// request. Each answer repeats the list.
    pub(crate) fn is_repeated(&mut self, list: u64) -> bool {
        self.list.replace(list) == Some(list)
    }

    /// The name with this text, shared with those who have it already.
    fn name(&self, text: &str, snapshot: &Snapshot) -> Name {
        let known = snapshot.name(self.kind, text).or_else(|| self.names.get(text));
        known.cloned().unwrap_or_else(|| Name::from(text))
    }

    fn is_wildcard_name(&self, name: &str) -> bool {
        self.kind.has_wildcard() && name == WILDCARD
    }

    /// "Subscribing to resources": every name asked for is answered, whatever the client was sent
    /// of it before. The names come in order, each once.
    fn ask(&mut self, texts: Vec<&str>, snapshot: &Snapshot, wishes: &mut Vec<Wish>) {
        let found = snapshot.find(self.kind, &texts);
        let (mut names, mut entries) = (Vec::new(), Vec::new());
        for (text, found) in texts.into_iter().zip(found) {
            let name = match found {
                Some((name, _)) => name.clone(),
                None => self.names.get(text).cloned().unwrap_or_else(|| Name::from(text)),
            };
            let acked = self.acked(&name, snapshot);
            entries.push((name.clone(), unknown(acked, found.map(|it| it.1))));
            if !self.names.contains(text) {
                wishes.push(Wish::Name(self.kind, name.clone()));
                names.push(name);
            }
        }
        self.open.extend(entries);
        self.names.extend(names);
    }

    fn ask_for_all(&mut self, snapshot: &Snapshot, wishes: &mut Vec<Wish>) {
        if !self.wildcard {
            wishes.push(Wish::All(self.kind));
        }
        let all = snapshot.resources(self.kind).filter(|it| it.in_wildcard());
        let entry =
            |it: &Resource| (it.name().clone(), unknown(self.acked(it.name(), snapshot), Some(it)));
        let entries = all.map(entry).collect();
        self.wildcard = true;
        self.response_required = true;
        self.open.extend(entries);
    }

    /// Full sets: the version that the client accepted last. A client that asked for nothing before
    /// has nothing.
    fn acked(&self, name: &Name, snapshot: &Snapshot) -> Option<Version> {
        let is_first = self.names.len() == 0 && !self.wildcard;
        (self.form == Form::FullSet && !is_first).then(|| self.held(name, snapshot).acked)?
    }

    fn drop_name(&mut self, name: &str, snapshot: &Snapshot, wishes: &mut Vec<Wish>) {
        let Some(name) = self.names.remove(name) else {
            return;
        };
        if self.wildcard {
            // "Unsubscribing from resources": under a wildcard the server answers with the
            // resource or with its removal, since the client has dropped it.
            self.mark_unknown(&name, snapshot);
        } else {
            self.open.remove(&name);
        }
        wishes.push(Wish::NoName(self.kind, name));
    }

    fn drop_wildcard(&mut self, wishes: &mut Vec<Wish>) {
        if self.wildcard {
            wishes.push(Wish::NotAll(self.kind));
            self.wildcard = false;
            self.response_required = false;
            let names = &self.names;
            self.open.retain(|name| names.contains(name));
        }
    }
}

/// A name that the client waits for.
fn unknown(acked: Option<Version>, wanted: Option<&Resource>) -> Entry {
    let held = Held { last_sent: LastSent::Unknown, acked };
    Entry { due: held.due(wanted), held }
}
