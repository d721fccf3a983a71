//! Services of the command's own in a registry: registered, renewed, changed, and removed again.
//!
//! The instances are at addresses where nothing listens. A change gives the first instance of a
//! service another weight.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, TryStreamExt, stream};
use proto::{
    millis,
    quorate::v1::{
        Instance, RegisterRequest, RemoveServiceRequest, RenewRequest,
        registry_client::RegistryClient,
    },
};
use tokio::time::{sleep, timeout};
use tonic::{Code as GrpcCode, Status, transport::Channel};

use crate::{
    cli::client::connect,
    failure::{Code, Failure},
};

/// Calls under way at once.
const CALLS: usize = 64;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);

/// How often a call is tried that fails for reasons that pass, and the pause before the next try.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(100);

/// Leases last as long as they may, and are renewed well before that.
const RENEWED: Duration = Duration::from_secs(60);

/// Leases in one renewal.
const RENEWED_AT_ONCE: u64 = 10_000;

const PORT: u16 = 8080;

/// A registry, and the services that this command has in it.
#[derive(Clone, Debug)]
pub(super) struct Registrar {
    address: SocketAddr,
    client: RegistryClient<Channel>,
    services: u32,
    instances: u32,
    /// The leases of all instances follow this number.
    first_lease: u64,
    start: u64,
}

impl Registrar {
    /// Finds a registry that answers. `services` of `instances` each are what it will be told.
    pub(super) async fn find(
        addresses: &[SocketAddr],
        services: u32,
        instances: u32,
    ) -> Result<Self, Failure> {
        let mut last = Failure::usage("no registry is named");
        for address in addresses {
            match connect(*address).await {
                Ok(channel) => {
                    return Ok(Self {
                        address: *address,
                        client: RegistryClient::new(channel),
                        services,
                        instances,
                        first_lease: rand::random_range(1..u64::MAX / 2),
                        start: unix_millis(),
                    });
                }
                Err(failure) => last = failure,
            }
        }
        Err(last)
    }

    pub(super) fn service(number: u32) -> String {
        format!("bench-{number}")
    }

    /// Registers everything. `told` hears how many instances there are so far.
    pub(super) async fn register_all(&self, mut told: impl FnMut(u32)) -> Result<(), Failure> {
        // The first instance of every service before the second of any: a service is made once, and
        // calls that follow each other belong to different ones.
        let all = (0..self.instances)
            .flat_map(|instance| (0..self.services).map(move |service| (service, instance)));
        let mut registered = stream::iter(all)
            .map(|(service, instance)| self.register(service, instance, 1))
            .buffer_unordered(CALLS);
        let mut count = 0;
        while registered.try_next().await?.is_some() {
            count += 1;
            told(count);
        }
        Ok(())
    }

    /// Changes a service, so that one of its endpoints has this weight.
    pub(super) async fn change(&self, service: u32, weight: u32) -> Result<(), Failure> {
        self.register(service, 0, weight).await
    }

    /// Renews all leases, again and again. Ends only if the registry does not take that.
    pub(super) async fn keep(&self) -> Failure {
        loop {
            sleep(RENEWED).await;
            let end = self.first_lease + u64::from(self.services) * u64::from(self.instances);
            let mut begin = self.first_lease;
            while begin < end {
                let next = end.min(begin + RENEWED_AT_ONCE);
                let request =
                    RenewRequest { lease_ids: (begin..next).collect(), ..RenewRequest::default() };
                let renewed = self.tried(|mut client| {
                    let request = request.clone();
                    async move { client.renew(request).await.map(|_| ()) }
                });
                if let Err(failure) = renewed.await {
                    return failure;
                }
                begin = next;
            }
        }
    }

    /// Removes everything.
    pub(super) async fn remove_all(&self, mut told: impl FnMut(u32)) -> Result<(), Failure> {
        let removal = |service| {
            self.tried(move |mut client| async move {
                let name = Self::service(service);
                let request =
                    RemoveServiceRequest { name, force: true, ..RemoveServiceRequest::default() };
                client.remove_service(request).await.map(|_| ())
            })
        };
        let mut removed = stream::iter(0..self.services).map(removal).buffer_unordered(CALLS);
        let mut count = 0;
        while removed.try_next().await?.is_some() {
            count += 1;
            told(count);
        }
        Ok(())
    }

    async fn register(&self, service: u32, instance: u32, weight: u32) -> Result<(), Failure> {
        let number = u64::from(service) * u64::from(self.instances) + u64::from(instance);
        let request = RegisterRequest {
            instance: Some(Instance {
                service: Self::service(service),
                id: format!("{instance}"),
                address: address(number).to_string(),
                weight,
                ..Instance::default()
            }),
            lease_id: self.first_lease + number,
            ttl_ms: millis(xds::MAX_TTL),
            start: self.start,
            ..RegisterRequest::default()
        };
        self.tried(|mut client| {
            let request = request.clone();
            async move { client.register(request).await.map(|_| ()) }
        })
        .await
    }

    /// Makes a call until it succeeds. All calls here may be made twice.
    async fn tried<F>(&self, call: impl Fn(RegistryClient<Channel>) -> F) -> Result<(), Failure>
    where
        F: Future<Output = Result<(), Status>>,
    {
        let mut tries = 1;
        loop {
            let failure = match timeout(CALL, call(self.client.clone())).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(status)) if !passes(&status) || tries == TRIES => {
                    return Err(Failure::from_status(self.address, &status));
                }
                Ok(Err(_)) => None,
                Err(_) => Some(Failure::new(
                    Code::Timeout,
                    format!("{}: the registry does not answer in time", self.address),
                )),
            };
            if let Some(failure) = failure.filter(|_| tries == TRIES) {
                return Err(failure);
            }
            tries += 1;
            sleep(PAUSE).await;
        }
    }
}

/// Whether a call may succeed if it is made again. A write whose outcome is unknown is one of them.
fn passes(status: &Status) -> bool {
    matches!(
        status.code(),
        GrpcCode::Unavailable
            | GrpcCode::DeadlineExceeded
            | GrpcCode::ResourceExhausted
            | GrpcCode::Aborted
            | GrpcCode::Cancelled
            | GrpcCode::Unknown
    )
}

/// The address of an instance, in a network that is nobody's.
fn address(number: u64) -> SocketAddr {
    let [.., high, middle, low] = number.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, high, middle, low)), PORT)
}

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
