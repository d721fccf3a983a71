//! Keeps one instance registered: renews its lease, tells its health, and registers it again when
//! DISCO has forgotten the lease.
//!
//! The task is level-triggered. It compares what DISCO was last told with what is so, and does the
//! one thing that is missing; a failure is retried and never ends the instance, since a registry
//! that is away must do no harm.

use std::{
    net::SocketAddr,
    pin::pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::{
    millis,
    quorate::v1::{
        DeregisterRequest, Health, Instance, RegisterRequest, RenewRequest, SetHealthRequest,
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::client::Disco,
    failure::{Code, Failure},
};

#[cfg(test)]
mod tests;

/// Characters of a reason.
const REASON: usize = 200;

/// First pause after a failure; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A holder that was heard so long after this process came lives; less may be the way of an answer.
const HEARD_MARGIN: Duration = Duration::from_millis(500);

/// Pause between two attempts while another process holds the place.
const PLACE_RETRY: Duration = Duration::from_secs(1);

/// How long it may take until it is noted that a lease has run out.
const NOTED: Duration = Duration::from_secs(10);

/// How long an answer is awaited at the end. A registration that takes effect after the instance
/// was given up would stay until its lease ends.
const LAST_ANSWER: Duration = Duration::from_millis(500);

/// All that DISCO is asked for one instance.
#[derive(Debug)]
pub(crate) struct Registration {
    disco: Disco,
    instance: Instance,
    ttl_wanted: Duration,
    /// Made here, so that what was registered can be given up also if the reply was lost.
    lease_id: u64,
    /// Whether DISCO may have the instance under that lease.
    may_hold: bool,
    /// Whether it ever had.
    has_held: bool,
    /// What is known of the lease while it holds.
    lease: Option<Lease>,
    /// Orders this process among those that register the id at this address.
    start: u64,
    /// Since when the id has been another's, and how long its lease lasted then.
    claimed: Option<(Instant, Duration)>,
}

#[derive(Clone, Debug)]
struct Lease {
    renew_at: Instant,
    /// What DISCO was told last.
    told: Condition,
}

/// How an instance is, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) health: Health,
    /// Why, if there is something to say.
    pub(crate) reason: String,
    /// Since when it has that health, by this machine's clock.
    pub(crate) since_unix_ms: u64,
}

impl Condition {
    /// From this moment on.
    pub(crate) fn new(health: Health, reason: &str) -> Self {
        Self { health, reason: plain(reason), since_unix_ms: unix_millis() }
    }

    /// The same health for another reason.
    pub(crate) fn because(&self, reason: &str) -> Self {
        Self { reason: plain(reason), ..self.clone() }
    }
}

/// A text as the registry takes it.
fn plain(text: &str) -> String {
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    text.chars().take(REASON).map(printable).collect()
}

impl Registration {
    pub(crate) fn new(disco: Disco, instance: Instance, ttl_wanted: Duration) -> Self {
        let lease_id = rand::random_range(1..=u64::MAX);
        Self {
            disco,
            instance,
            ttl_wanted,
            lease_id,
            may_hold: false,
            has_held: false,
            lease: None,
            start: unix_millis(),
            claimed: None,
        }
    }

    /// Registers once.
    pub(crate) async fn register(&mut self, condition: &Condition) -> Result<(), Failure> {
        self.instance.health = condition.health.into();
        self.instance.health_reason.clone_from(&condition.reason);
        self.instance.health_since_unix_ms = condition.since_unix_ms;
        let request = RegisterRequest {
            instance: Some(self.instance.clone()),
            lease_id: self.lease_id,
            ttl_ms: millis(self.ttl_wanted),
            mesh_id: self.disco.mesh_id().to_owned(),
            start: self.start,
        };
        // Before the question: it may take effect though nobody is left to hear the answer.
        self.may_hold = true;
        let asked = self
            .disco
            .ask(request, |mut registry, request| async move { registry.register(request).await });
        let reply = asked.await.map_err(|failure| {
            let refused = matches!(failure.code, Code::Usage | Code::Denied | Code::Refused);
            self.may_hold = !refused || failure.retryable();
            self.judge_holder(failure)
        })?;
        self.claimed = None;
        self.disco.settle(reply.meta.as_ref());
        self.lease_id = reply.lease_id;
        self.has_held = true;
        self.lease = Some(Lease { renew_at: renew_at(reply.ttl_ms), told: condition.clone() });
        tracing::info!(
            service = self.instance.service,
            id = self.instance.id,
            address = self.instance.address,
            "registered"
        );
        Ok(())
    }

    /// Decides whether the place may become free that another process holds: it is waited for until
    /// the other is heard again, or its lease has run out.
    fn judge_holder(&mut self, failure: Failure) -> Failure {
        let Some(holder) = failure.holder else { return failure };
        let now = Instant::now();
        let (since, _) = *self.claimed.get_or_insert((now, holder.left));
        let waited = now.duration_since(since);
        let lives = holder.heard_ago.is_some_and(|ago| ago + HEARD_MARGIN < waited);
        if lives || self.has_held { failure } else { failure.passing() }
    }

    /// Keeps the instance registered until shutdown. `told` follows `health` once DISCO knows it.
    ///
    /// # Errors
    ///
    /// If the instance can never be registered, or its id is another's from the beginning. An id
    /// that is lost later is waited for: the program goes on, and the other may go.
    pub(crate) async fn keep(
        &mut self,
        mut health: watch::Receiver<Condition>,
        told: watch::Sender<Option<Health>>,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let mut retry = RETRY_MIN;
        loop {
            let wanted = health.borrow_and_update().clone();
            let Some(converged) = self.converge_until(&shutdown, &wanted).await else {
                return Ok(());
            };
            let next = match converged {
                Ok(()) => {
                    retry = RETRY_MIN;
                    told.send_replace(self.told());
                    self.lease.as_ref().map_or_else(Instant::now, |lease| lease.renew_at)
                }
                Err(failure) if self.is_final(&failure) => return Err(failure),
                Err(failure) => {
                    let reason = failure.message;
                    if failure.holder.is_some() && !self.has_held {
                        tracing::warn!(reason, "waiting for the place of a silent holder");
                        retry = PLACE_RETRY;
                    } else if failure.code == Code::Refused {
                        tracing::error!(reason, "refused; trying again");
                    } else {
                        tracing::warn!(reason, "DISCO does not answer; trying again");
                    }
                    let next = Instant::now() + retry;
                    retry = (retry * 2).min(RETRY_MAX);
                    next
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = sleep_until(next) => {}
                changed = health.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// Removes the instance, if it is this process that holds it. A failure is of no consequence:
    /// the lease ends by itself.
    pub(crate) async fn deregister(&self) {
        if !self.may_hold {
            return;
        }
        let request = DeregisterRequest {
            service: self.instance.service.clone(),
            id: self.instance.id.clone(),
            lease_id: self.lease_id,
            mesh_id: self.disco.mesh_id().to_owned(),
        };
        let asked = self.disco.ask(request, |mut registry, request| async move {
            registry.deregister(request).await
        });
        match asked.await {
            Ok(reply) if reply.existed => tracing::info!(id = self.instance.id, "deregistered"),
            Ok(_) => tracing::info!(id = self.instance.id, "no longer held, so not deregistered"),
            Err(failure) => tracing::warn!(
                reason = failure.message,
                "could not deregister; the instance goes when its lease ends"
            ),
        }
    }

    /// Registers, and tries again until the deadline while DISCO does not answer.
    pub(crate) async fn register_by(
        &mut self,
        deadline: Instant,
        condition: &Condition,
    ) -> Result<(), Failure> {
        let mut no_quorum = None;
        loop {
            let failure = match self.register(condition).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            // A silent holder gives way once its lease has run out and that is noted.
            let free = self.claimed.map(|(since, left)| since + left + NOTED);
            let until = free.map_or(deadline, |free| deadline.max(free));
            if !failure.retryable() || Instant::now() + RETRY_MIN >= until {
                // Of a quorum that is missing a server tells only now and then; in between it does
                // not answer in time.
                let told = no_quorum.filter(|_| failure.code == Code::Timeout);
                return Err(told.unwrap_or(failure));
            }
            if failure.code == Code::Unreachable {
                no_quorum = Some(failure);
            }
            sleep(RETRY_MIN).await;
        }
    }

    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The health that DISCO was told last; none while the instance is not registered.
    pub(crate) fn told(&self) -> Option<Health> {
        self.lease.as_ref().map(|lease| lease.told.health)
    }

    /// Where this instance is registered, for checks.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.instance.address.parse().ok()
    }

    /// Completes with nothing if it was cut short.
    async fn converge_until(
        &mut self,
        shutdown: &CancellationToken,
        wanted: &Condition,
    ) -> Option<Result<(), Failure>> {
        let mut converging = pin!(self.converge(wanted));
        tokio::select! {
            () = shutdown.cancelled() => {}
            converged = &mut converging => return Some(converged),
        }
        let _ = timeout(LAST_ANSWER, converging).await;
        None
    }

    /// Does what is missing: register, renew, or tell the health.
    async fn converge(&mut self, wanted: &Condition) -> Result<(), Failure> {
        match self.lease.clone() {
            None => return self.register(wanted).await,
            Some(lease) if Instant::now() >= lease.renew_at => self.renew(lease).await?,
            Some(_) => {}
        }
        match self.lease.clone() {
            None => self.register(wanted).await,
            Some(lease) if lease.told != *wanted => self.set_health(lease, wanted).await,
            Some(_) => Ok(()),
        }
    }

    async fn renew(&mut self, lease: Lease) -> Result<(), Failure> {
        let request = RenewRequest {
            lease_ids: vec![self.lease_id],
            mesh_id: self.disco.mesh_id().to_owned(),
            ..RenewRequest::default()
        };
        let reply = self
            .disco
            .ask(request, |mut registry, request| async move { registry.renew(request).await })
            .await?;
        self.lease = if reply.unknown.contains(&self.lease_id) {
            tracing::warn!("the lease had ended; registering again");
            None
        } else {
            Some(Lease { renew_at: renew_at(reply.ttl_ms), ..lease })
        };
        Ok(())
    }

    async fn set_health(&mut self, lease: Lease, wanted: &Condition) -> Result<(), Failure> {
        let request = SetHealthRequest {
            service: self.instance.service.clone(),
            id: self.instance.id.clone(),
            lease_id: self.lease_id,
            health: wanted.health.into(),
            mesh_id: self.disco.mesh_id().to_owned(),
            reason: wanted.reason.clone(),
            since_unix_ms: wanted.since_unix_ms,
        };
        let asked = self.disco.ask(request, |mut registry, request| async move {
            registry.set_health(request).await
        });
        match asked.await {
            Ok(_) => {
                let (health, reason) = (wanted.health.as_str_name(), &wanted.reason);
                tracing::info!(health, reason, "health told");
                self.lease = Some(Lease { told: wanted.clone(), ..lease });
                Ok(())
            }
            // The instance or its lease is gone: registering tells the health as well.
            Err(failure) if failure.code == Code::NoneFound => {
                self.lease = None;
                // Who says goodbye does not take the place back from its successor.
                if wanted.health == Health::Draining { Ok(()) } else { self.register(wanted).await }
            }
            Err(failure) => Err(failure),
        }
    }

    /// Whether trying again is of no use.
    fn is_final(&self, failure: &Failure) -> bool {
        let is_clash = failure.code == Code::Refused && !failure.retryable();
        matches!(failure.code, Code::Usage | Code::Denied) || is_clash && !self.has_held
    }
}

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

fn renew_at(ttl_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ttl_ms / 3).max(Duration::from_millis(50))
}
