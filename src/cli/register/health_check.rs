//! The health check of an instance, run by the process that registers it: HTTP, TCP or gRPC.
//!
//! Checks are asked of IP addresses only. One success makes an instance healthy; it takes
//! [`FAILURES`] in a row to make it unhealthy, so that one slow answer moves no traffic.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use futures::{FutureExt, future::FusedFuture};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use proto::quorate::v1::Health;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::registration::Condition;
use crate::values::{ValueError, address};

#[cfg(test)]
mod tests;

/// Failures in a row that make an instance unhealthy.
const FAILURES: u32 = 2;

/// Pause between checks until the first success, so that traffic comes as soon as it can.
const IMPATIENT: Duration = Duration::from_millis(250);

/// How much of an HTTP answer's body is read, so that the application may end what it has begun.
/// Closing a connection on bytes that nobody has read resets it.
const BODY_READ: usize = 256 * 1024;

/// How long the rest of an answer is read: a stream of events has no end.
const BODY_TIME: Duration = Duration::from_millis(500);

/// Pause between two reasons for the same health: each is a write for the registry.
const REASON_EVERY: Duration = Duration::from_secs(30);

/// What is asked. Without an address it is asked of the instance's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Http { address: Option<SocketAddr>, path: String },
    Tcp { address: Option<SocketAddr> },
    Grpc { address: Option<SocketAddr>, service: String },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Unhealthy {
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("no HTTP answer")]
    Exchange(#[source] hyper::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("`{0}` is no path")]
    Path(String),
    #[error("no gRPC connection")]
    Grpc(#[source] tonic::transport::Error),
    #[error("it answered {}", .0.code())]
    GrpcStatus(Box<tonic::Status>),
    #[error("it does not serve")]
    NotServing,
    #[error("no answer in time")]
    Timeout,
}

impl Check {
    pub(crate) fn parse(text: &str) -> Result<Self, ValueError> {
        let refused = || ValueError::Check(text.to_owned());
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let (at, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (at, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
                (Some(address(at)?), path)
            }
            None => (None, rest),
        };
        match kind {
            "http" if path.starts_with('/') && !path.contains(char::is_whitespace) => {
                Ok(Self::Http { address: at, path: path.to_owned() })
            }
            "http" if path.is_empty() && at.is_some() => {
                Ok(Self::Http { address: at, path: "/".to_owned() })
            }
            "tcp" if path.is_empty() => Ok(Self::Tcp { address: at }),
            "grpc" => {
                let service = path.trim_start_matches('/').to_owned();
                Ok(Self::Grpc { address: at, service })
            }
            _ => Err(refused()),
        }
    }

    /// Asks once. The limit is for the answer; what comes behind an HTTP status is read for a
    /// moment longer.
    pub(crate) async fn ask(&self, instance: SocketAddr, limit: Duration) -> Result<(), Unhealthy> {
        let at = |address: &Option<SocketAddr>| address.unwrap_or(instance);
        match self {
            Self::Http { address, path } => http(at(address), path, limit).await,
            Self::Tcp { address } => in_time(limit, tcp(at(address))).await.map(drop),
            Self::Grpc { address, service } => in_time(limit, grpc(at(address), service)).await,
        }
    }

    /// Asks again and again, and tells every change. Ends when nobody listens.
    pub(crate) async fn watch(
        self,
        instance: SocketAddr,
        every: Duration,
        health: watch::Sender<Condition>,
    ) {
        let mut failures = 0;
        let mut reason_told = None;
        let mut pause = every.min(IMPATIENT);
        while !health.is_closed() {
            let now = match self.ask(instance, every).await {
                Ok(()) => {
                    failures = 0;
                    pause = every;
                    (Health::Healthy, String::new())
                }
                Err(reason) => {
                    failures = FAILURES.min(failures + 1);
                    let reason = crate::failure::chain(&reason);
                    tracing::debug!(reason, failures, "check failed");
                    if failures < FAILURES {
                        sleep(pause).await;
                        continue;
                    }
                    (Health::Unhealthy, reason)
                }
            };
            tell(&health, now, &mut reason_told);
            sleep(pause).await;
        }
    }
}

/// Tells a change of health at once, and another reason for the same one now and then.
fn tell(
    condition: &watch::Sender<Condition>,
    (health, reason): (Health, String),
    told: &mut Option<Instant>,
) {
    condition.send_if_modified(|condition| {
        let next = if condition.health == health {
            condition.because(&reason)
        } else {
            *told = None;
            Condition::new(health, &reason)
        };
        let is_due = told.is_none_or(|at| at.elapsed() >= REASON_EVERY);
        let changed = next != *condition && is_due;
        if changed {
            (*condition, *told) = (next, Some(Instant::now()));
        }
        changed
    });
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, Unhealthy> {
    TcpStream::connect(address).await.map_err(Unhealthy::Connect)
}

async fn in_time<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, Unhealthy>>,
) -> Result<T, Unhealthy> {
    timeout(limit, asked).await.unwrap_or(Err(Unhealthy::Timeout))
}

async fn http(address: SocketAddr, path: &str, limit: Duration) -> Result<(), Unhealthy> {
    let deadline = Instant::now() + limit;
    let stream = TokioIo::new(in_time(limit, tcp(address)).await?);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(Unhealthy::Exchange)?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, concat!("quorate/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Unhealthy::Path(path.to_owned()))?;
    let mut asking = pin!(async {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = in_time(left, async {
            sender.send_request(request).await.map_err(Unhealthy::Exchange)
        });
        let answer = answer.await?;
        let status = answer.status();
        // The status is the answer. What the body says, or that it is longer, changes nothing.
        let _ = timeout(BODY_TIME, Limited::new(answer.into_body(), BODY_READ).collect()).await;
        if status.is_success() { Ok(()) } else { Err(Unhealthy::Status(status)) }
    });
    // The connection moves the bytes of both directions, and closes in order.
    let mut connection = pin!(connection.fuse());
    let asked = tokio::select! {
        asked = &mut asking => asked,
        _ = &mut connection => asking.await,
    };
    if !connection.is_terminated() {
        let _ = timeout(BODY_TIME, connection).await;
    }
    asked
}

async fn grpc(address: SocketAddr, service: &str) -> Result<(), Unhealthy> {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .expect("an IP address and a port make a valid URI")
        .connect()
        .await
        .map_err(Unhealthy::Grpc)?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let reply = HealthClient::new(channel)
        .check(request)
        .await
        .map_err(|status| Unhealthy::GrpcStatus(Box::new(status)))?;
    match reply.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        ServingStatus::Unknown | ServingStatus::NotServing | ServingStatus::ServiceUnknown => {
            Err(Unhealthy::NotServing)
        }
    }
}
