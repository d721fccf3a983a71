//! The health check of an instance, run by the process that registers it: HTTP, TCP or gRPC.
//!
//! Checks are asked of IP addresses only. One success makes an instance healthy; it takes
//! [`FAILURES`] in a row to make it unhealthy, so that one slow answer moves no traffic.

use std::{io, net::SocketAddr, time::Duration};

use proto::quorate::v1::Health;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tonic::transport::Endpoint;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::values::{ValueError, address};

#[cfg(test)]
mod tests;

/// Failures in a row that make an instance unhealthy.
const FAILURES: u32 = 2;

/// Pause between checks until the first success, so that traffic comes as soon as it can.
const IMPATIENT: Duration = Duration::from_millis(250);

/// How much of an HTTP answer is read: the status line is at its beginning.
const STATUS_LINE: usize = 64;

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
    #[error("the answer ended early")]
    Exchange(#[source] io::Error),
    #[error("it answered `{0}`")]
    Status(String),
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

    /// Asks once.
    pub(crate) async fn ask(&self, instance: SocketAddr, limit: Duration) -> Result<(), Unhealthy> {
        let asked = async {
            match self {
                Self::Http { address, path } => http(address.unwrap_or(instance), path).await,
                Self::Tcp { address } => tcp(address.unwrap_or(instance)).await.map(drop),
                Self::Grpc { address, service } => grpc(address.unwrap_or(instance), service).await,
            }
        };
        timeout(limit, asked).await.unwrap_or(Err(Unhealthy::Timeout))
    }

    /// Asks again and again, and tells every change. Ends when nobody listens.
    pub(crate) async fn watch(
        self,
        instance: SocketAddr,
        every: Duration,
        health: watch::Sender<Health>,
    ) {
        let mut failures = 0;
        let mut pause = every.min(IMPATIENT);
        while !health.is_closed() {
            let health_now = match self.ask(instance, every).await {
                Ok(()) => {
                    failures = 0;
                    pause = every;
                    Health::Healthy
                }
                Err(reason) => {
                    failures = FAILURES.min(failures + 1);
                    tracing::debug!(
                        reason = crate::failure::chain(&reason),
                        failures,
                        "check failed"
                    );
                    if failures < FAILURES { *health.borrow() } else { Health::Unhealthy }
                }
            };
            health.send_if_modified(|health| {
                let changed = *health != health_now;
                *health = health_now;
                changed
            });
            sleep(pause).await;
        }
    }
}

async fn tcp(address: SocketAddr) -> Result<TcpStream, Unhealthy> {
    TcpStream::connect(address).await.map_err(Unhealthy::Connect)
}

async fn http(address: SocketAddr, path: &str) -> Result<(), Unhealthy> {
    let mut connection = tcp(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: quorate\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await.map_err(Unhealthy::Exchange)?;
    let mut answer = Vec::new();
    connection
        .take(STATUS_LINE as u64)
        .read_to_end(&mut answer)
        .await
        .map_err(Unhealthy::Exchange)?;
    let answer = String::from_utf8_lossy(&answer);
    let line = answer.lines().next().unwrap_or_default();
    if line.starts_with("HTTP/1.") && line.split(' ').nth(1).is_some_and(|it| it.starts_with('2')) {
        Ok(())
    } else {
        Err(Unhealthy::Status(line.to_owned()))
    }
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
