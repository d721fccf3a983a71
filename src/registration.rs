//! Keeps one instance registered: renews its lease, tells its health, and registers it again when
//! DISCO has forgotten the lease.
//!
//! The task is level-triggered. It compares what DISCO was last told with what is so, and does the
//! one thing that is missing; a failure is retried and never ends the instance, since a registry
//! that is away must do no harm.

use std::{net::SocketAddr, time::Duration};

use proto::quorate::v1::{
    DeregisterRequest, Health, Instance, RegisterRequest, RenewRequest, SetHealthRequest,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::Disco,
    failure::{Code, Failure},
};

#[cfg(test)]
mod tests;

/// First pause after a failure; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// All that DISCO is asked for one instance.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    disco: Disco,
    instance: Instance,
    ttl_wanted: Duration,
    lease: Option<Lease>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    id: u64,
    renew_at: Instant,
    /// What DISCO was told last.
    health: Health,
}

impl Registration {
    pub(crate) fn new(disco: Disco, instance: Instance, ttl_wanted: Duration) -> Self {
        Self { disco, instance, ttl_wanted, lease: None }
    }

    /// Registers once.
    pub(crate) async fn register(&mut self, health: Health) -> Result<(), Failure> {
        self.instance.health = health.into();
        let request = RegisterRequest {
            instance: Some(self.instance.clone()),
            lease_id: self.lease.map_or(0, |lease| lease.id),
            ttl_ms: millis(self.ttl_wanted),
            ..RegisterRequest::default()
        };
        let reply = self
            .disco
            .ask(request, |mut registry, request| async move { registry.register(request).await })
            .await?;
        self.lease = Some(Lease { id: reply.lease_id, renew_at: renew_at(reply.ttl_ms), health });
        tracing::info!(
            service = self.instance.service,
            id = self.instance.id,
            address = self.instance.address,
            "registered"
        );
        Ok(())
    }

    /// Keeps the instance registered until shutdown. `told` follows `health` once DISCO knows it.
    pub(crate) async fn keep(
        mut self,
        mut health: watch::Receiver<Health>,
        told: watch::Sender<Option<Health>>,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let mut retry = RETRY_MIN;
        loop {
            let wanted = *health.borrow_and_update();
            let next = match self.converge(wanted).await {
                Ok(()) => {
                    retry = RETRY_MIN;
                    told.send_replace(self.lease.map(|lease| lease.health));
                    self.lease.map_or_else(Instant::now, |lease| lease.renew_at)
                }
                Err(failure) if is_final(&failure) => return Err(failure),
                Err(failure) => {
                    tracing::warn!(reason = failure.message, "DISCO does not answer; trying again");
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

    /// Removes the instance. A failure is of no consequence: the lease ends by itself.
    pub(crate) async fn deregister(&self) {
        let request = DeregisterRequest {
            service: self.instance.service.clone(),
            id: self.instance.id.clone(),
            ..DeregisterRequest::default()
        };
        let asked = self.disco.ask(request, |mut registry, request| async move {
            registry.deregister(request).await
        });
        match asked.await {
            Ok(_) => tracing::info!(id = self.instance.id, "deregistered"),
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

    /// Where this instance is registered, for checks.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.instance.address.parse().ok()
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
        let request = RenewRequest { lease_ids: vec![lease.id], ..RenewRequest::default() };
        let reply = self
            .disco
            .ask(request, |mut registry, request| async move { registry.renew(request).await })
            .await?;
        self.lease = if reply.unknown.contains(&lease.id) {
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
            lease_id: lease.id,
            health: health.into(),
            ..SetHealthRequest::default()
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
            Err(failure) if matches!(failure.code, Code::Refused | Code::NoneFound) => {
                self.lease = None;
                self.register(health).await
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Whether the same request can never succeed.
fn is_final(failure: &Failure) -> bool {
    matches!(failure.code, Code::Usage | Code::Denied)
}

fn renew_at(ttl_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ttl_ms / 3).max(Duration::from_millis(50))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
