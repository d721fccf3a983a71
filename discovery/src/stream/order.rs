//! The order in which a client is sent what is due, and what waits for what.

use std::sync::Arc;

use super::channel::Unanswered;
use super::subscription::Batch;
use super::{Between, Latest, PATIENCE, Response, Stream};
use crate::lease::Time;
use crate::resource::{Name, Part, Reference, Resource, ResourceType};
use crate::snapshot::{Snapshot, version_of};

impl Stream {
    // === Snapshots ===

    pub(super) fn update_snapshot(&mut self, latest: &Latest, now: Time) {
        self.now = now;
        let snapshot = latest.snapshot.clone();
        match (&mut self.between, &latest.since) {
            (Some(between), None) => between.latest = snapshot,
            (Some(between), Some(_)) => {
                let earlier = std::mem::replace(&mut between.latest, snapshot);
                self.compare_fresh(&earlier);
            }
            // Nothing that concerns a client at rest has changed.
            (None, None) => {
                self.between = Some(Between { seen: snapshot.clone(), latest: snapshot });
            }
            (None, Some(since)) => {
                self.between = Some(Between { seen: since.clone(), latest: snapshot });
                self.compare_fresh(since);
            }
        }
        self.switch_if_all_sent();
    }

    /// Switches to the latest snapshot if everything of the current one has been sent. Returns
    /// whether it did.
    fn switch_if_all_sent(&mut self) -> bool {
        let is_behind = self.between.as_ref().is_some_and(Between::is_behind);
        let may = is_behind && self.is_all_sent();
        if may {
            self.switch_to_latest();
        }
        may
    }

    /// Makes the latest snapshot the one that the client is sent.
    pub(super) fn switch_to_latest(&mut self) {
        let Some(between) = &mut self.between else { return };
        let earlier = std::mem::replace(&mut between.seen, between.latest.clone());
        self.compare(&earlier, |kind| !kind.is_fresh());
    }

    fn compare_fresh(&mut self, earlier: &Snapshot) {
        self.compare(earlier, ResourceType::is_fresh);
    }

    /// Tells subscriptions which names changed from an earlier snapshot to the latest.
    fn compare(&mut self, earlier: &Snapshot, of: impl Fn(ResourceType) -> bool) {
        let Some(between) = &self.between else { return };
        for channel in self.channels.iter_mut().flatten().filter(|it| of(it.kind())) {
            let changed = between.latest.changed_since(earlier, channel.kind());
            channel.subscription.changed(&changed, earlier, &between.latest);
        }
    }

    /// Lets go of the snapshots once the client has everything. The next change that concerns it
    /// comes with the snapshot before.
    fn rest(&mut self) {
        let is_behind = self.between.as_ref().is_some_and(Between::is_behind);
        let channels = self.channels.iter().flatten();
        if !is_behind && self.unasked.is_empty() && channels.into_iter().all(|it| it.is_at_rest()) {
            self.between = None;
        }
    }

    // === Responses ===

    /// Sends what may be sent. If that was everything, switches to the latest snapshot and sends
    /// what may be sent of that.
    pub(super) fn advance(&mut self) -> Vec<Response> {
        let mut responses = Vec::new();
        if self.between.is_some() {
            self.flush(&mut responses);
            if self.switch_if_all_sent() {
                self.flush(&mut responses);
            }
            self.rest();
        }
        responses
    }

    fn is_all_sent(&self) -> bool {
        let mut channels = self.channels.iter().flatten().filter(|it| !it.kind().is_fresh());
        channels.all(|it| it.is_sent(self.now))
    }

    /// Sends what may be sent, in make-before-break order.
    fn flush(&mut self, responses: &mut Vec<Response>) {
        let now = self.now;
        self.unasked.retain(|_, at| now < *at + PATIENCE);
        let users_return = self.postpone_removals(Part::User, false);
        self.postpone_removals(Part::Used, users_return);
        let is_held_up = self.has_removal_due() && !self.are_users_settled();
        let removals = self.wait(is_held_up, self.removals_wait);
        self.removals_wait = removals.since;
        for kind in ResourceType::all().into_iter().filter(|it| it.part() != Part::User) {
            let retire = removals.is_over || self.is_unused(kind);
            responses.extend(self.send(kind, retire));
        }

        let users = || ResourceType::all().into_iter().filter(|it| it.part() == Part::User);
        let are_waiting = self.must_wait() && users().any(|it| self.has_due(it));
        let wait = self.wait(are_waiting, self.users_wait);
        self.users_wait = wait.since;
        if !self.must_wait() || wait.is_over {
            for kind in users() {
                let retire = removals.is_over || self.is_unused(kind);
                responses.extend(self.send(kind, retire));
            }
        }
    }

    /// Determines which removals of these types wait for the next snapshot. Returns whether any do.
    fn postpone_removals(&mut self, part: Part, are_used: bool) -> bool {
        let Some(between) = &self.between else { return false };
        let mut any_wait = false;
        for channel in self.channels.iter_mut().flatten().filter(|it| it.kind().part() == part) {
            let snapshot = between.of(channel.kind());
            channel.prune(snapshot);
            channel.subscription.postpone_removals(&between.latest, are_used);
            any_wait |= channel.subscription.has_postponed();
        }
        any_wait
    }

    fn send(&mut self, kind: ResourceType, retire: bool) -> Option<Response> {
        let snapshot = self.between.as_ref()?.of(kind).clone();
        let channel = self.channels[kind.index()].as_mut()?;
        let mut batch = channel.take(&snapshot, retire, self.now)?;
        let references = std::mem::take(&mut batch.references);
        let response = self.respond(kind, batch, &snapshot);
        self.follow(&references);
        Some(response)
    }

    fn respond(&mut self, kind: ResourceType, batch: Batch, snapshot: &Snapshot) -> Response {
        let nonce = self.next_nonce();
        let mut version = snapshot.type_version(kind);
        let resources: Arc<[Resource]> = batch.puts.into();
        let removed: Arc<[Name]> = batch.gone.into();
        if let Some(channel) = &mut self.channels[kind.index()] {
            if channel.is_full_set() {
                version = version_of(&*resources);
            }
            channel.sent(Unanswered {
                nonce,
                revision: snapshot.revision(),
                sent_at: self.now,
                puts: Arc::clone(&resources),
                gone: Arc::clone(&removed),
                precedes_users: batch.precedes_users,
            });
        }
        Response {
            type_url: kind.type_url().into(),
            version,
            nonce: nonce.to_string(),
            control_plane: Arc::clone(&self.control_plane),
            resources,
            removed,
        }
    }

    /// The client was sent what refers to these resources. It requests them if it has not, and
    /// waits for some of them even if it has them.
    fn follow(&mut self, references: &[Reference]) {
        for (kind, name) in references {
            let channel = self.channels[kind.index()].as_mut();
            let has_asked = channel.as_ref().is_some_and(|it| it.subscription.has_asked(name));
            match (channel, &self.between) {
                (Some(channel), Some(between)) if has_asked && kind.is_sent_again() => {
                    channel.subscription.send_again(name, between.of(*kind));
                }
                _ if has_asked => {}
                _ => {
                    self.unasked.insert((*kind, name.clone()), self.now);
                }
            }
        }
    }

    // === Who waits for what ===

    /// Whether the client has accepted everything of a type.
    fn is_settled(&self, kind: ResourceType) -> bool {
        let channel = self.channels[kind.index()].as_ref();
        channel.is_none_or(|it| it.is_settled(self.now))
    }

    /// Whether nothing that the client has uses what the snapshot does not have of a type.
    fn is_unused(&self, kind: ResourceType) -> bool {
        kind.retired_after().iter().all(|it| self.is_settled(*it))
            && (kind.part() != Part::Used || self.are_users_known())
    }

    /// Whether the client's listeners and routes are those of the snapshot, so that it uses only
    /// what the snapshot uses.
    fn are_users_settled(&self) -> bool {
        let mut users = ResourceType::all().into_iter().filter(|it| it.part() == Part::User);
        users.all(|it| self.is_settled(it)) && self.are_users_known()
    }

    /// Whether the client has asked for everything that its listeners lead to.
    fn are_users_known(&self) -> bool {
        use ResourceType::{Listener, Route};

        let is_asked = |kind: ResourceType| self.channels[kind.index()].is_some();
        (!self.is_reconnected || (is_asked(Listener) && is_asked(Route)))
            && (!is_asked(Route) || !self.has_unasked(Route))
    }

    /// Whether users wait for what they may use.
    fn must_wait(&self) -> bool {
        let channels = self.channels.iter().flatten();
        let mut used = channels.filter(|it| it.kind().part() == Part::Used);
        used.any(|it| {
            let kind = it.kind();
            it.must_precede(self.now) || (kind.is_sent_again() && self.has_unasked(kind))
        })
    }

    fn has_unasked(&self, kind: ResourceType) -> bool {
        let first = (kind, Name::new());
        self.unasked.range(first..).next().is_some_and(|((of, _), _)| *of == kind)
    }

    fn has_due(&self, kind: ResourceType) -> bool {
        self.channels[kind.index()].as_ref().is_some_and(|it| it.has_due())
    }

    /// Whether the removal of something that others may use is due.
    fn has_removal_due(&self) -> bool {
        let channels = self.channels.iter().flatten();
        let mut used = channels.filter(|it| !it.kind().retired_after().is_empty());
        used.any(|it| it.subscription.has_removal_due())
    }

    /// The state of a wait that began at `since`, or begins now.
    fn wait(&self, is_waiting: bool, since: Option<Time>) -> Wait {
        let since = is_waiting.then(|| since.unwrap_or(self.now));
        Wait { since, is_over: since.is_some_and(|at| self.now >= at + PATIENCE) }
    }
}

/// A wait, which ends after [`PATIENCE`].
struct Wait {
    since: Option<Time>,
    is_over: bool,
}
