//! Keeps one instance registered: renews its lease, tells its health, and registers it again when
//! DISCO has forgotten the lease.
//!
//! The task is level-triggered. It compares what DISCO was last told with what is so, and does the
//! one thing that is missing; a failure is retried and never ends the instance, since a registry
//! that is away must do no harm.

use std::{net::SocketAddr, pin::pin, time::Duration};

use proto::quorate::v1::{
    DeregisterRequest, Health, Instance, RegisterRequest, RenewRequest, SetHealthRequest,
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

/// First pause after a failure; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

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
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    renew_at: Instant,
    /// What DISCO was told last.
    health: Health,
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
        }
    }

    /// Registers once.
    pub(crate) async fn register(&mut self, health: Health) -> Result<(), Failure> {
        self.instance.health = health.into();
        let request = RegisterRequest {
            instance: Some(self.instance.clone()),
            lease_id: self.lease_id,
            ttl_ms: millis(self.ttl_wanted),
            mesh_id: self.disco.mesh_id().to_owned(),
        };
        // Before the question: it may take effect though nobody is left to hear the answer.
        self.may_hold = true;
        let asked = self
            .disco
            .ask(request, |mut registry, request| async move { registry.register(request).await });
        let reply = asked.await.inspect_err(|failure| {
            let refused = matches!(failure.code, Code::Usage | Code::Denied | Code::Refused);
            self.may_hold = !refused || failure.retryable();
        })?;
        self.disco.settle(reply.meta.as_ref());
        self.lease_id = reply.lease_id;
        self.has_held = true;
        self.lease = Some(Lease { renew_at: renew_at(reply.ttl_ms), health });
        tracing::info!(
            service = self.instance.service,
            id = self.instance.id,
            address = self.instance.address,
            "registered"
        );
        Ok(())
    }

    /// Keeps the instance registered until shutdown. `told` follows `health` once DISCO knows it.
    ///
    /// # Errors
    ///
    /// If the instance can never be registered, or its id is another's from the beginning. An id
    /// that is lost later is waited for: the program goes on, and the other may go.
    pub(crate) async fn keep(
        &mut self,
        mut health: watch::Receiver<Health>,
        told: watch::Sender<Option<Health>>,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let mut retry = RETRY_MIN;
        loop {
            let wanted = *health.borrow_and_update();
            let Some(converged) = self.converge_until(&shutdown, wanted).await else {
                return Ok(());
            };
            let next = match converged {
                Ok(()) => {
                    retry = RETRY_MIN;
                    told.send_replace(self.told());
                    self.lease.map_or_else(Instant::now, |lease| lease.renew_at)
                }
                Err(failure) if self.is_final(&failure) => return Err(failure),
                Err(failure) => {
                    let reason = failure.message;
                    if failure.code == Code::Refused {
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
        health: Health,
    ) -> Result<(), Failure> {
        loop {
            match self.register(health).await {
                Err(failure) if failure.retryable() && Instant::now() + RETRY_MIN < deadline => {
                    sleep(RETRY_MIN).await;
                }
                outcome => return outcome,
            }
        }
    }

    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The health that DISCO was told last; none while the instance is not registered.
    pub(crate) fn told(&self) -> Option<Health> {
        self.lease.map(|lease| lease.health)
    }

    /// Where this instance is registered, for checks.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.instance.address.parse().ok()
    }

    /// Completes with nothing if it was cut short.
    async fn converge_until(
        &mut self,
        shutdown: &CancellationToken,
        wanted: Health,
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
    async fn converge(&mut self, wanted: Health) -> Result<(), Failure> {
        match self.lease {
            None => return self.register(wanted).await,
            Some(lease) if Instant::now() >= lease.renew_at => self.renew(lease).await?,
            Some(_) => {}
        }
        match self.lease {
            None => self.register(wanted).await,
            Some(lease) if lease.health != wanted => self.set_health(lease, wanted).await,
            Some(_) => Ok(()),
        }
    }

    async fn renew(&mut self, lease: Lease) -> Result<(), Failure> {
        let request = RenewRequest {
            lease_ids: vec![self.lease_id],
            mesh_id: self.disco.mesh_id().to_owned(),
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

    async fn set_health(&mut self, lease: Lease, health: Health) -> Result<(), Failure> {
        let request = SetHealthRequest {
            service: self.instance.service.clone(),
            id: self.instance.id.clone(),
            lease_id: self.lease_id,
            health: health.into(),
            mesh_id: self.disco.mesh_id().to_owned(),
        };
        let asked = self.disco.ask(request, |mut registry, request| async move {
            registry.set_health(request).await
        });
        match asked.await {
            Ok(_) => {
                tracing::info!(health = health.as_str_name(), "health told");
                self.lease = Some(Lease { health, ..lease });
                Ok(())
            }
            // The instance or its lease is gone: registering tells the health as well.
            Err(failure) if failure.code == Code::NoneFound => {
                self.lease = None;
                self.register(health).await
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

fn renew_at(ttl_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ttl_ms / 3).max(Duration::from_millis(50))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
