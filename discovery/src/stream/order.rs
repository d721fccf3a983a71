//! The order in which a client is sent what is due, and what waits for what.

use std::sync::Arc;

use super::subscription::Batch;
use super::{PATIENCE, Response, Stream};
use crate::lease::Time;
use crate::resource::ResourceType;
use crate::snapshot::{Snapshot, version_of};

impl Stream {
    // === Snapshots ===

    pub(super) fn update_snapshot(&mut self, snapshot: &Snapshot, now: Time) {
        self.now = now;
        let earlier = std::mem::replace(&mut self.latest, snapshot.clone());
        self.compare(ResourceType::Endpoints, &earlier);
        self.switch_if_all_sent();
    }

    /// Switches to the latest snapshot if everything of the current one has been sent. Returns
    /// whether it did.
    fn switch_if_all_sent(&mut self) -> bool {
        let may = self.seen.revision() != self.latest.revision() && self.is_all_sent();
        if may {
            self.switch_to_latest();
        }
        may
    }

    /// Makes the latest snapshot the one that the client is sent.
    pub(super) fn switch_to_latest(&mut self) {
        let earlier = std::mem::replace(&mut self.seen, self.latest.clone());
        for kind in [ResourceType::Cluster, ResourceType::Listener, ResourceType::Route] {
            self.compare(kind, &earlier);
        }
    }

    /// Tells the subscription which names changed since an earlier snapshot.
    fn compare(&mut self, kind: ResourceType, earlier: &Snapshot) {
        if let Some(channel) = &mut self.channels[kind.index()] {
            let names = self.latest.changed_since(earlier, kind);
            channel.subscription.changed(names, earlier);
        }
    }

    pub(super) const fn snapshot(&self, kind: ResourceType) -> &Snapshot {
        match kind {
            ResourceType::Endpoints => &self.latest,
            ResourceType::Cluster | ResourceType::Listener | ResourceType::Route => &self.seen,
        }
    }

    // === Responses ===

    /// Sends what may be sent. If that was everything, switches to the latest snapshot and sends
    /// what may be sent of that.
    pub(super) fn advance(&mut self) -> Vec<Response> {
        let mut responses = self.flush();
        if self.switch_if_all_sent() {
            responses.extend(self.flush());
        }
        responses
    }

    fn is_all_sent(&self) -> bool {
        let channels = self.channels.iter().flatten();
        channels
            .filter(|it| it.kind() != ResourceType::Endpoints)
            .all(|it| it.is_sent(&self.seen, self.now))
    }

    /// Sends what may be sent, in make-before-break order.
    fn flush(&mut self) -> Vec<Response> {
        use ResourceType::{Cluster, Endpoints, Listener, Route};

        let now = self.now;
        self.unasked.retain(|_, at| now < *at + PATIENCE);
        let users_return = self.postpone_removals([Listener, Route], false);
        self.postpone_removals([Cluster, Endpoints], users_return);
        let mut responses = Vec::new();
        let unused = self.are_users_settled();
        let removals = self.wait(!unused && self.has_removal_due(), self.removals_wait);
        self.removals_wait = removals.since;
        responses.extend(self.send(Cluster, unused || removals.is_over));
        let unused = unused && self.is_settled(Cluster);
        responses.extend(self.send(Endpoints, unused || removals.is_over));

        let are_waiting = self.must_wait() && [Listener, Route].iter().any(|it| self.has_due(*it));
        let users = self.wait(are_waiting, self.users_wait);
        self.users_wait = users.since;
        if !self.must_wait() || users.is_over {
            responses.extend(self.send(Listener, true));
            let unused = self.is_settled(Listener) || removals.is_over;
            responses.extend(self.send(Route, unused));
        }
        responses
    }

    /// Determines which removals of these types wait for the next snapshot. Returns whether any do.
    fn postpone_removals(&mut self, kinds: [ResourceType; 2], are_used: bool) -> bool {
        let mut any_wait = false;
        for kind in kinds {
            let snapshot = self.snapshot(kind).clone();
            if let Some(channel) = &mut self.channels[kind.index()] {
                channel.prune(&snapshot);
                channel.subscription.postpone_removals(&snapshot, &self.latest, are_used);
                any_wait |= channel.subscription.has_postponed();
            }
        }
        any_wait
    }

    fn send(&mut self, kind: ResourceType, retire: bool) -> Option<Response> {
        let (snapshot, now) = (self.snapshot(kind).clone(), self.now);
        let channel = self.channels[kind.index()].as_mut()?;
        let batch = channel.take(&snapshot, retire, now)?;
        match kind {
            ResourceType::Cluster => self.warm(&batch.awaits),
            ResourceType::Listener => self.note_unasked(ResourceType::Route, &batch.awaits),
            ResourceType::Endpoints | ResourceType::Route => {}
        }
        Some(self.respond(kind, batch, &snapshot))
    }

    fn respond(&mut self, kind: ResourceType, batch: Batch, snapshot: &Snapshot) -> Response {
        let nonce = self.next_nonce();
        let mut version = snapshot.type_version(kind);
        if let Some(channel) = &mut self.channels[kind.index()] {
            channel.sent(nonce.clone(), &batch, snapshot.revision(), self.now);
            if channel.is_full_set() {
                version = version_of(&batch.puts);
            }
        }
        Response {
            type_url: kind.type_url().into(),
            version,
            nonce,
            control_plane: Arc::clone(&self.control_plane),
            resources: batch.puts,
            removed: batch.gone,
        }
    }

    /// The client waits for these load assignments.
    fn warm(&mut self, load_assignments: &[Arc<str>]) {
        if let Some(channel) = &mut self.channels[ResourceType::Endpoints.index()] {
            for name in load_assignments {
                channel.subscription.send_again(name);
            }
        }
        self.note_unasked(ResourceType::Endpoints, load_assignments);
    }

    fn note_unasked(&mut self, kind: ResourceType, names: &[Arc<str>]) {
        let channel = self.channels[kind.index()].as_ref();
        for name in names {
            if !channel.is_some_and(|it| it.subscription.has_asked(name)) {
                self.unasked.insert((kind, Arc::clone(name)), self.now);
            }
        }
    }

    // === Who waits for what ===

    /// Whether the client has accepted everything of a type.
    fn is_settled(&self, kind: ResourceType) -> bool {
        let channel = self.channels[kind.index()].as_ref();
        channel.is_none_or(|it| it.is_settled(self.snapshot(kind), self.now))
    }

    /// Whether the client's listeners and routes are those of the snapshot, so that it uses only
    /// what the snapshot uses.
    fn are_users_settled(&self) -> bool {
        use ResourceType::{Listener, Route};

        let users = [Listener, Route];
        let is_asked = |kind: &ResourceType| self.channels[kind.index()].is_some();
        users.iter().all(|it| self.is_settled(*it))
            && (!self.is_reconnected || users.iter().all(is_asked))
            && (!is_asked(&Route) || !self.has_unasked(Route))
    }

    /// Whether listeners and routes wait for clusters or endpoints.
    fn must_wait(&self) -> bool {
        use ResourceType::{Cluster, Endpoints};

        let endpoints = &self.channels[Endpoints.index()];
        [Cluster, Endpoints].into_iter().any(|kind| {
            let channel = self.channels[kind.index()].as_ref();
            channel.is_some_and(|it| it.must_precede(self.snapshot(kind), self.now))
        }) || (endpoints.is_some() && self.has_unasked(Endpoints))
    }

    fn has_unasked(&self, kind: ResourceType) -> bool {
        self.unasked.keys().any(|(of, _)| *of == kind)
    }

    fn has_due(&self, kind: ResourceType) -> bool {
        let channel = self.channels[kind.index()].as_ref();
        channel.is_some_and(|it| it.has_due(self.snapshot(kind)))
    }

    fn has_removal_due(&self) -> bool {
        self.channels.iter().flatten().any(|it| {
            it.kind() != ResourceType::Listener
                && it.subscription.has_removal_due(self.snapshot(it.kind()))
        })
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
