//! One type on one stream: the subscription, and the exchange of responses and answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use envoy_types::pb::google::rpc::Status;

use super::subscription::{Batch, Form, Subscription};
use super::{Receipt, Variant};
use crate::resource::{Resource, ResourceType, Version};
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub(super) struct Channel {
    kind: ResourceType,
    form: Form,
    pub(super) subscription: Subscription,
    unanswered: Option<Unanswered>,
    /// The nonce of the latest response, answered or not.
    latest: Option<String>,
    /// The resources of rejected responses in parts, each to be sent again by itself.
    retries: VecDeque<Vec<Arc<str>>>,
    /// Retries and fresh content take turns, so that neither starves the other.
    was_retry: bool,
}

/// A response that the client has neither accepted nor rejected.
#[derive(Debug)]
struct Unanswered {
    nonce: String,
    revision: u64,
    puts: Vec<(Arc<str>, Version)>,
    gone: Vec<Arc<str>>,
    precedes_users: bool,
}

/// The half of a request that answers a response.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    nonce: &'a str,
    error: Option<Status>,
}

impl<'a> Answer<'a> {
    pub(super) const fn new(nonce: &'a str, error: Option<Status>) -> Self {
        Self { nonce, error }
    }
}

impl Channel {
    pub(super) fn new(kind: ResourceType, variant: Variant) -> Self {
        let form = match variant {
            Variant::Delta => Form::Difference,
            Variant::Sotw if kind.has_wildcard() => Form::FullSet,
            Variant::Sotw => Form::Part,
        };
        Self {
            kind,
            form,
            subscription: Subscription::new(kind, form),
            unanswered: None,
            latest: None,
            retries: VecDeque::new(),
            was_retry: false,
        }
    }

    /// Takes an ACK or a NACK, if the answer is one to the response that waits for it. A NACK is
    /// told by its error alone, never by a version.
    pub(super) fn settle(&mut self, answer: &Answer<'_>) -> Option<Receipt> {
        let unanswered = self.unanswered.take_if(|it| it.nonce == answer.nonce)?;
        let (kind, revision) = (self.kind, unanswered.revision);
        let Some(error) = &answer.error else {
            for (name, version) in unanswered.puts {
                self.subscription.accept(&name, version);
            }
            return Some(Receipt::Acked { kind, revision });
        };

        let size = unanswered.puts.len();
        let mut names: Vec<Arc<str>> = Vec::new();
        for (name, version) in unanswered.puts {
            if self.subscription.reject(&name, version) {
                names.push(name);
            }
        }
        if self.form != Form::FullSet {
            self.retry(&names, size + unanswered.gone.len());
        }
        // Who rejects nothing but removals is not told again.
        if self.form == Form::Difference && size > 0 {
            for name in unanswered.gone {
                self.subscription.reject_removal(&name);
            }
        }
        Some(Receipt::Nacked { kind, revision, names, reason: error.message.clone() })
    }

    /// Plans responses with the resources of a rejected one, which held `size` in all. Each holds
    /// less than that one did, so this ends.
    fn retry(&mut self, names: &[Arc<str>], size: usize) {
        if names.len() < size {
            self.retries.push_back(names.to_vec());
        } else if size > 1 {
            let (left, right) = names.split_at(size / 2);
            self.retries.push_back(left.to_vec());
            self.retries.push_back(right.to_vec());
        }
    }

    /// Drops retries that have nothing to say any more.
    pub(super) fn prune(&mut self, snapshot: &Snapshot) {
        let subscription = &self.subscription;
        self.retries
            .retain(|names| names.iter().any(|it| subscription.rejected(it, snapshot).is_some()));
    }

    /// SotW: whether the request was made before the client saw the latest response. A nonce that
    /// this stream never gave out is none: clients have been seen to carry them over from an
    /// earlier stream.
    pub(super) fn is_stale(&self, answer: &Answer<'_>, nonces: u64) -> bool {
        let Some(latest) = &self.latest else {
            return false;
        };
        let was_given = answer.nonce.parse::<u64>().is_ok_and(|it| (1..=nonces).contains(&it));
        was_given && answer.nonce != latest
    }

    /// Takes what the next response holds, or None if none is owed or one is unanswered.
    pub(super) fn take(
        &mut self,
        snapshot: &Snapshot,
        retire: bool,
        retained: &BTreeMap<Arc<str>, Resource>,
    ) -> Option<Batch> {
        if self.is_unanswered() {
            return None;
        }
        if !self.was_retry
            && let Some(batch) = self.take_retry(snapshot)
        {
            self.was_retry = true;
            return Some(batch);
        }
        self.was_retry = false;
        let fresh = self.subscription.take(snapshot, retire, retained);
        fresh.or_else(|| self.take_retry(snapshot))
    }

    fn take_retry(&mut self, snapshot: &Snapshot) -> Option<Batch> {
        while let Some(names) = self.retries.pop_front() {
            let batch = self.subscription.take_again(names, snapshot);
            if !batch.is_empty() {
                return Some(batch);
            }
        }
        None
    }

    pub(super) fn sent(&mut self, nonce: String, batch: &Batch, revision: u64) {
        self.latest = Some(nonce.clone());
        self.unanswered = Some(Unanswered {
            nonce,
            revision,
            puts: batch.puts.iter().map(|it| (Arc::clone(it.name()), it.version())).collect(),
            gone: batch.gone.clone(),
            precedes_users: batch.precedes_users,
        });
    }

    pub(super) const fn kind(&self) -> ResourceType {
        self.kind
    }

    pub(super) const fn is_unanswered(&self) -> bool {
        self.unanswered.is_some()
    }

    pub(super) fn is_settled(&self, snapshot: &Snapshot) -> bool {
        self.unanswered.is_none() && self.retries.is_empty() && !self.subscription.has_due(snapshot)
    }

    pub(super) fn must_precede(&self, snapshot: &Snapshot) -> bool {
        self.unanswered.as_ref().is_some_and(|it| it.precedes_users)
            || !self.retries.is_empty()
            || self.subscription.has_due_before_users(snapshot)
    }
}
