//! One resource type on one stream: its subscription, and its responses and answers.

use std::sync::Arc;

use envoy_types::pb::google::rpc::Status;

use super::rejections::{Quarantine, Rejections, Suspects, WHOLE_SET};
use super::subscription::{Batch, Form, Subscription};
use super::{Notice, PATIENCE, ProtocolVariant, Receipt};
use crate::lease::Time;
use crate::resource::{Name, Resource, ResourceType, Version};
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub(super) struct Channel {
    kind: ResourceType,
    form: Form,
    pub(super) subscription: Subscription,
    unanswered: Option<Unanswered>,
    /// The number of the latest response, answered or not. Nonces are the numbers of a stream's
    /// responses.
    latest: Option<u64>,
    rejections: Rejections,
    /// Whether the last response was a trial. Trials and other responses alternate, so that neither
    /// starves the other.
    was_trial: bool,
    /// Full sets: the client has accepted none since one that lacked a removed resource.
    owes_removals: bool,
}

/// A response that the client has neither accepted nor rejected.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) nonce: u64,
    pub(super) revision: u64,
    pub(super) sent_at: Time,
    pub(super) puts: Arc<[Resource]>,
    pub(super) gone: Arc<[Name]>,
    pub(super) precedes_users: bool,
}

/// The part of a request that answers a response.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    nonce: &'a str,
    error: Option<Status>,
}

impl<'a> Answer<'a> {
    pub(super) const fn new(nonce: &'a str, error: Option<Status>) -> Self {
        Self { nonce, error }
    }

    /// The number of the response that this answers, if a stream could have given it.
    fn number(&self) -> Option<u64> {
        let is_canonical = !self.nonce.starts_with(['0', '+']);
        self.nonce.parse().ok().filter(|_| is_canonical)
    }
}

impl Channel {
    pub(super) fn new(kind: ResourceType, variant: ProtocolVariant) -> Self {
        let form = match variant {
            ProtocolVariant::Delta => Form::Difference,
            ProtocolVariant::Sotw if kind.has_wildcard() => Form::FullSet,
            ProtocolVariant::Sotw => Form::Part,
        };
        Self {
            kind,
            form,
            subscription: Subscription::new(kind, form),
            unanswered: None,
            latest: None,
            rejections: Rejections::default(),
            was_trial: false,
            owes_removals: false,
        }
    }

    /// Handles an ACK or a NACK, if it answers the current response. A NACK is recognized by its
    /// error alone, never by a version.
    pub(super) fn handle_answer(
        &mut self,
        answer: &Answer<'_>,
        snapshot: &Snapshot,
        now: Time,
        notices: &mut Vec<Notice>,
    ) -> Option<Receipt> {
        let unanswered = self.unanswered.take_if(|it| Some(it.nonce) == answer.number())?;
        let (kind, revision) = (self.kind, unanswered.revision);
        let Some(error) = &answer.error else {
            self.accept(unanswered, snapshot, notices);
            return Some(Receipt::Acked { kind, revision });
        };
        let reason = &*error.message;
        let names = if self.subscription.holds_unknown() {
            self.reject_whole(unanswered, reason, now, notices)
        } else {
            self.reject(unanswered, snapshot, reason, now, notices)
        };
        Some(Receipt::Nacked { kind, revision, names, reason: reason.to_owned() })
    }

    fn accept(&mut self, unanswered: Unanswered, snapshot: &Snapshot, notices: &mut Vec<Notice>) {
        let kind = self.kind;
        let is_at_once = unanswered.revision == snapshot.revision()
            && self.subscription.is_accepted_at_once()
            && self.rejections.is_empty();
        let puts = if is_at_once { &[] } else { &*unanswered.puts };
        for resource in puts {
            let (name, version) = (resource.name(), resource.version());
            self.subscription.accept(name, version, snapshot);
            if self.rejections.accept(name, version) {
                notices.push(Notice::Recovered { kind, name: name.clone() });
            }
        }
        if self.form == Form::FullSet {
            self.owes_removals = false;
            self.subscription.accept_set();
            if self.rejections.accept_set() {
                notices.push(Notice::Recovered { kind, name: WHOLE_SET });
            }
        }
    }

    fn reject(
        &mut self,
        unanswered: Unanswered,
        snapshot: &Snapshot,
        reason: &str,
        now: Time,
        notices: &mut Vec<Notice>,
    ) -> Vec<Name> {
        let Unanswered { puts, gone, .. } = unanswered;
        let size = puts.len() + gone.len();
        let mut suspects = Vec::new();
        for resource in &*puts {
            let (name, version) = (resource.name(), resource.version());
            if self.subscription.reject(name, version, snapshot) {
                suspects.push((name.clone(), version));
            }
        }
        let names: Vec<Name> = suspects.iter().map(|(name, _)| name.clone()).collect();
        // Removals are repeated only if the response also had resources. If a client rejects
        // nothing but removals, repeating them would be rejected again.
        match self.form {
            Form::Difference if !puts.is_empty() => {
                for name in &*gone {
                    self.subscription.reject_removal(name, snapshot);
                }
            }
            // A set without the suspects follows, which also lacks what is removed.
            Form::FullSet => {
                self.owes_removals |= !gone.is_empty();
                if self.owes_removals && !names.is_empty() {
                    self.subscription.require_response();
                }
            }
            Form::Difference | Form::Part => {}
        }
        if !suspects.is_empty() {
            let had_more = self.form != Form::FullSet && suspects.len() < size;
            let suspects = Suspects { names: suspects, had_more, reason };
            let blamed = self.rejections.add(suspects, now);
            self.report(blamed, reason, notices);
        }
        names
    }

    /// Handles the rejection of a full set by a reconnected client. It may hold any of the names,
    /// and would delete those that a smaller set leaves out. So the set is not split, and is tried
    /// again as it is.
    fn reject_whole(
        &mut self,
        unanswered: Unanswered,
        reason: &str,
        now: Time,
        notices: &mut Vec<Notice>,
    ) -> Vec<Name> {
        let blamed = self.rejections.quarantine(&WHOLE_SET, Version::default(), reason, now);
        self.report(blamed, reason, notices);
        unanswered.puts.iter().map(|it| it.name().clone()).collect()
    }

    fn report(
        &self,
        blamed: impl IntoIterator<Item = Name>,
        reason: &str,
        notices: &mut Vec<Notice>,
    ) {
        let kind = self.kind;
        notices.extend(blamed.into_iter().map(|name| Notice::Quarantined {
            kind,
            name,
            reason: reason.into(),
        }));
    }

    /// Drops trials that no longer hold anything to send.
    pub(super) fn prune(&mut self, snapshot: &Snapshot) {
        self.rejections.prune(&self.subscription, snapshot);
    }

    /// SotW: whether the request was made before the client saw the latest response. A nonce that
    /// this stream has not used is ignored: some clients send one from an earlier stream.
    pub(super) fn is_stale(&self, answer: &Answer<'_>, nonces: u64) -> bool {
        let given = answer.number().filter(|it| (1..=nonces).contains(it));
        self.latest.is_some() && given.is_some() && given != self.latest
    }

    /// Takes the content of the next response; None if none is due, or if one is unanswered.
    pub(super) fn take(&mut self, snapshot: &Snapshot, retire: bool, now: Time) -> Option<Batch> {
        if self.is_unanswered() {
            return None;
        }
        if !self.was_trial
            && let Some(batch) = self.take_trial(snapshot, now)
        {
            self.was_trial = true;
            return Some(batch);
        }
        self.was_trial = false;
        let fresh = self.subscription.take(snapshot, retire);
        fresh.or_else(|| self.take_trial(snapshot, now))
    }

    fn take_trial(&mut self, snapshot: &Snapshot, now: Time) -> Option<Batch> {
        while let Some(names) = self.rejections.next_trial(now) {
            let batch = if names.contains(&WHOLE_SET) {
                self.subscription.require_response();
                self.subscription.take(snapshot, false)
            } else {
                self.subscription.take_trial(&names, snapshot)
            };
            if batch.is_some() {
                return batch;
            }
        }
        None
    }

    pub(super) fn sent(&mut self, response: Unanswered) {
        self.latest = Some(response.nonce);
        self.unanswered = Some(response);
    }

    /// Whether the client has accepted everything, so that only a change or a request matters.
    pub(super) fn is_at_rest(&self) -> bool {
        self.unanswered.is_none() && self.rejections.is_empty() && self.subscription.is_at_rest()
    }

    pub(super) const fn kind(&self) -> ResourceType {
        self.kind
    }

    pub(super) const fn is_full_set(&self) -> bool {
        matches!(self.form, Form::FullSet)
    }

    pub(super) const fn is_unanswered(&self) -> bool {
        self.unanswered.is_some()
    }

    /// When the unanswered response was sent.
    pub(super) fn unanswered_since(&self) -> Option<Time> {
        self.unanswered.as_ref().map(|it| it.sent_at)
    }

    /// Whether a response has been unanswered for so long that nothing waits for it any more.
    pub(super) fn is_overdue(&self, now: Time) -> bool {
        self.unanswered_since().is_some_and(|at| now >= at + PATIENCE)
    }

    /// Whether the client has accepted everything of the type.
    pub(super) fn is_settled(&self, now: Time) -> bool {
        self.is_overdue(now)
            || (self.unanswered.is_none()
                && !self.rejections.has_trials()
                && !self.subscription.has_due())
    }

    /// Whether nothing is left to be sent.
    pub(super) fn is_sent(&self, now: Time) -> bool {
        self.is_overdue(now) || !self.subscription.has_due()
    }

    /// Whether something can be sent now.
    pub(super) fn has_due(&self) -> bool {
        !self.is_unanswered() && (self.rejections.has_trials() || self.subscription.has_due())
    }

    pub(super) fn must_precede(&self, now: Time) -> bool {
        !self.is_overdue(now)
            && (self.unanswered.as_ref().is_some_and(|it| it.precedes_users)
                || self.rejections.has_trials()
                || self.subscription.has_due_before_users())
    }

    /// When the next response becomes due by time alone.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        match self.unanswered_since() {
            Some(at) => Some(at + PATIENCE),
            None => self.rejections.next_retry(),
        }
    }

    pub(super) fn quarantined(&self) -> impl Iterator<Item = (&Name, &Quarantine)> {
        self.rejections.quarantined()
    }
}
