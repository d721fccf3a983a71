//! `quorate register`: keeps an instance registered while this process, or the program that it
//! runs, lives.
//!
//! The end is the point: on SIGTERM the instance is set to draining first, the proxies get time to
//! send elsewhere, and only then is the program asked to stop. So no request meets a closed port.

mod health_check;
mod keeping;
mod program;
mod registration;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::Args;
use mesh::MeshId;
use proto::quorate::v1::{Health, Instance, Locality};
use tokio::time::Instant;

use self::{
    health_check::Check,
    keeping::Keeping,
    program::{Program, Signals},
    registration::{Condition, Registration},
};
use super::{client::Disco, options::OptionArgs};
use crate::{
    config::DEFAULT_DISCO,
    failure::Failure,
    machine::local_address_towards,
    output,
    telemetry::TelemetryArgs,
    values::{
        Addresses, ValueError, address, addresses, duration, instance_id, name, pair, service, ttl,
    },
};

/// How long one question to DISCO may take while there will be another.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);

/// Register an instance of a service, and keep it registered.
#[derive(Args, Debug)]
#[command(long_about = "\
Register an instance of a service, and keep it registered until SIGTERM.

  quorate register --service orders --address 10.0.0.7:8080

With a health check that this process runs: the instance is unhealthy until the first success. A
path alone is asked of the instance's address:
  quorate register --service orders --address 10.0.0.7:8080 --check http:/ready
Also --check tcp, --check grpc, --check grpc:orders.v1.Orders, and http://IP:PORT/PATH.

With a program that it runs: on SIGTERM the instance drains, then the program is stopped; when the
program ends, the instance is removed, and its exit code is passed on. A program whose --id another
living process holds at another address is stopped, with exit code 7; the place of one that has died
is taken as soon as its lease has run out:
  quorate register --service orders --address :8080 --check tcp -- ./orders --port 8080

What it asks of its service, unless somebody has said so with `quorate service set`; of several
instances the one is heard that registered last:
  quorate register --service orders --address :8080 --request-timeout 5s --option retries.attempts=2

Without an IP, as in :8080 or 0.0.0.0:8080, the address is the one from which this machine reaches DISCO.")]
pub(crate) struct RegisterArgs {
    /// The service, as in orders.
    #[arg(long, value_parser = service)]
    service: String,
    /// Where callers reach the instance; it may listen elsewhere, behind a sidecar.
    #[arg(long, value_name = "[IP]:PORT", value_parser = Place::parse)]
    address: Place,
    /// Name of this instance, unique in the service; random unless given.
    #[arg(long, value_parser = instance_id)]
    id: Option<String>,
    /// Region that the instance is in.
    #[arg(long, value_name = "NAME", value_parser = name)]
    region: Option<String>,
    /// Zone that the instance is in.
    #[arg(long, value_name = "NAME", value_parser = name)]
    zone: Option<String>,
    /// Share of the traffic within the zone.
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=128))]
    weight: u32,
    /// What the instance speaks; gRPC services say http2.
    #[arg(long, default_value = "http1", value_parser = ["http1", "http2", "tcp"])]
    protocol: String,
    /// A fact about the instance; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,
    #[command(flatten)]
    options: OptionArgs,
    /// How long DISCO should wait for a sign of life, 3s to 5m; longer in a very large mesh.
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Duration>,
    /// Health check to run: http:/PATH, http://IP:PORT/PATH, tcp, grpc or grpc:SERVICE.
    #[arg(long, value_parser = Check::parse)]
    check: Option<Check>,
    /// Time between checks, and the longest that an answer may take.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    check_interval: Duration,
    /// How long the proxies get to send elsewhere before the instance stops.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "3s")]
    drain: Duration,
    /// DISCO servers, as IP:PORT; any that answers will do.
    #[arg(long, value_name = "IP:PORT,…", value_parser = addresses, default_value = DEFAULT_DISCO)]
    disco: Addresses,
    /// Register in this mesh only; by default in that of the first server that answers.
    #[arg(long, value_name = "ID")]
    mesh: Option<MeshId>,
    /// How long the first registration may take, without a program to run.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    timeout: Duration,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    /// A program to run as the instance, with its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// An address whose IP may be left to the system.
#[derive(Clone, Copy, Debug)]
enum Place {
    At(SocketAddr),
    Here(u16),
}

impl Place {
    fn parse(text: &str) -> Result<Self, ValueError> {
        match text.strip_prefix(':').map(str::parse) {
            Some(Ok(port)) => Ok(Self::Here(port)),
            Some(Err(_)) => Err(ValueError::Address(text.to_owned())),
            None => address(text).map(|address| match address.ip().is_unspecified() {
                true => Self::Here(address.port()),
                false => Self::At(address),
            }),
        }
    }
}

impl RegisterArgs {
    pub(crate) fn telemetry(&self) -> &TelemetryArgs {
        &self.telemetry
    }

    pub(crate) async fn run(mut self) -> Result<u8, Failure> {
        if self.check_interval.is_zero() {
            return Err(Failure::usage("--check-interval is zero").hint("give it like 2s"));
        }
        let mut signals = Signals::install(!self.command.is_empty())
            .map_err(|error| Failure::other("cannot watch signals", &error))?;
        let instance = self.instance()?;
        let mesh = self.mesh.as_ref().map(MeshId::to_string).unwrap_or_default();
        let disco = Disco::new(self.disco.0.clone(), QUESTION_TIMEOUT).of_mesh(mesh);
        let mut registration = Registration::new(disco, instance, self.ttl.unwrap_or_default());
        let first = self.first_condition();
        let command = std::mem::take(&mut self.command);
        let program = if command.is_empty() {
            // Without a program there is nothing to keep alive while DISCO is not there.
            tokio::select! {
                registered = registration.register_by(Instant::now() + self.timeout, &first) => {
                    registered?;
                }
                _ = signals.next() => {
                    registration.deregister().await;
                    return Ok(0);
                }
            }
            let Instance { service, id, address, .. } = registration.instance();
            output::line(&format!("registered {id} of {service} at {address}"));
            None
        } else {
            Some(Program::start(&command)?)
        };
        let check = self.check.take().map(|check| (check, self.check_interval));
        let keeping = Keeping::start(registration, first, check);
        keeping.until_the_end(program, signals, self.drain).await
    }

    /// An instance with a check gets no traffic before it has passed it once.
    fn first_condition(&self) -> Condition {
        match self.check {
            Some(_) => Condition::new(Health::Unhealthy, "no check has passed yet"),
            None => Condition::new(Health::Healthy, ""),
        }
    }

    fn instance(&self) -> Result<Instance, Failure> {
        let address = match self.address {
            Place::At(address) => address,
            Place::Here(port) => SocketAddr::new(self.own_ip()?, port),
        };
        if address.port() == 0 {
            return Err(Failure::usage(format!(
                "--address {address} is not where anybody listens"
            ))
            .hint("give the port that callers use"));
        }
        let id = self.id.clone();
        Ok(Instance {
            service: self.service.clone(),
            id: id.unwrap_or_else(|| format!("{}-{:08x}", self.service, rand::random::<u32>())),
            address: address.to_string(),
            locality: Some(Locality {
                region: self.region.clone().unwrap_or_default(),
                zone: self.zone.clone().unwrap_or_default(),
            }),
            weight: self.weight,
            health: Health::Unspecified.into(),
            metadata: self.meta.iter().cloned().collect::<BTreeMap<_, _>>(),
            protocol: self.protocol.clone(),
            options: self.options.asked()?,
            ..Instance::default()
        })
    }

    fn own_ip(&self) -> Result<IpAddr, Failure> {
        self.disco.0.iter().find_map(|disco| local_address_towards(*disco).ok()).ok_or_else(|| {
            Failure::usage("no route leads to DISCO, so this machine's address is not known")
                .hint("give the IP: --address IP:PORT")
        })
    }
}
