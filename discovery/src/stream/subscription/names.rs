//! The names, and the wildcard, that the client asks for.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Held, LastSent, Subscription, WILDCARD};
use crate::resource::Version;
use crate::snapshot::Snapshot;

impl Subscription {
    /// State of the world: the request holds the full list of names.
    pub(crate) fn replace(&mut self, names: &[String], snapshot: &Snapshot) {
        let names: BTreeSet<&str> =
            names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        self.named |= !names.is_empty();

        // "How the client specifies what resources to return": as long as no request gave a name,
        // the empty list is a wildcard; afterwards it ends all subscriptions.
        let wildcard = self.kind.has_wildcard() && (names.contains(WILDCARD) || !self.named);
        if wildcard && !self.wildcard {
            self.ask_for_all(snapshot);
        }

        let dropped: Vec<Arc<str>> =
            self.names.iter().filter(|name| !names.contains(&***name)).cloned().collect();
        for name in dropped {
            self.drop_name(&name);
        }
        if !wildcard {
            self.drop_wildcard();
        }
        for name in names {
            if !self.is_wildcard_name(name) && !self.names.contains(name) {
                self.ask(name);
            }
        }
    }

    /// Delta: the request holds names to subscribe to and names to unsubscribe from.
    pub(crate) fn adjust(
        &mut self,
        subscribe: &[String],
        unsubscribe: &[String],
        snapshot: &Snapshot,
    ) {
        for name in unsubscribe {
            if self.is_wildcard_name(name) {
                // A name in both lists stays subscribed.
                if !subscribe.contains(name) {
                    self.drop_wildcard();
                }
            } else {
                self.drop_name(name);
            }
        }
        for name in subscribe.iter().filter(|name| !name.is_empty()) {
            self.named = true;
            if self.is_wildcard_name(name) {
                self.ask_for_all(snapshot);
            } else {
                self.ask(name);
            }
        }
    }

    /// Handles a first request of a type that names nothing: the legacy form of the wildcard.
    pub(crate) fn begin_unnamed(&mut self, snapshot: &Snapshot) {
        if self.kind.has_wildcard() && !self.named {
            self.ask_for_all(snapshot);
        }
    }

    /// Takes over what the client claims to hold from an earlier stream, except for names in
    /// `doubted`.
    pub(crate) fn claim<'a>(
        &mut self,
        versions: impl IntoIterator<Item = (&'a str, &'a str)>,
        doubted: &BTreeSet<Arc<str>>,
    ) {
        for (name, version) in versions {
            if !(self.wildcard || self.names.contains(name)) {
                continue;
            }
            let last_sent = match Version::parse(version) {
                Some(version) if !doubted.contains(name) => LastSent::Version(version),
                _ => LastSent::Unknown,
            };
            let name = Arc::from(name);
            self.held.insert(Arc::clone(&name), Held { last_sent, acked: None });
            self.pending.insert(name);
        }
    }

    fn is_wildcard_name(&self, name: &str) -> bool {
        self.kind.has_wildcard() && name == WILDCARD
    }

    /// "Subscribing to resources": every name asked for is answered, whatever the client was sent
    /// of it before.
    fn ask(&mut self, name: &str) {
        let name: Arc<str> = name.into();
        self.mark_unknown(&name);
        self.names.insert(name);
    }

    fn ask_for_all(&mut self, snapshot: &Snapshot) {
        self.wildcard = true;
        self.response_required = true;
        for resource in snapshot.resources(self.kind).filter(|it| it.in_wildcard()) {
            self.mark_unknown(resource.name());
        }
    }

    fn drop_name(&mut self, name: &str) {
        let Some(name) = self.names.take(name) else {
            return;
        };
        if self.wildcard {
            // "Unsubscribing from resources": under a wildcard the server answers with the
            // resource or with its removal, since the client has dropped it.
            self.mark_unknown(&name);
        } else {
            self.held.remove(&name);
            self.pending.remove(&name);
        }
    }

    fn drop_wildcard(&mut self) {
        if self.wildcard {
            self.wildcard = false;
            self.response_required = false;
            self.held.retain(|name, _| self.names.contains(name));
            self.pending.retain(|name| self.names.contains(name));
        }
    }
}
