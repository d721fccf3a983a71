//! `quorate envoy bootstrap`: what an Envoy needs to find DISCO.

mod bootstrap;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use clap::{Args, Subcommand};
use futures::future::join_all;
use mesh::{MeshId, ParseMeshIdError};
use tokio::time::timeout;

use self::bootstrap::{Bootstrap, Inbound, Role, Variant};
use super::init::identify;
use crate::{
    config::DEFAULT_DISCO,
    failure::Failure,
    machine::host_name,
    output::{self, progress},
    values::{Addresses, ValueError, address, addresses, name},
};

/// How long a DISCO server may take to say which mesh it is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Make configurations for Envoy.
#[derive(Args, Debug)]
pub(crate) struct EnvoyArgs {
    #[command(subcommand)]
    command: EnvoyCommand,
}

#[derive(Debug, Subcommand)]
enum EnvoyCommand {
    Bootstrap(Box<BootstrapArgs>),
}

/// Print the bootstrap of an Envoy sidecar or front proxy.
#[derive(Args, Debug)]
#[command(long_about = "\
Print the bootstrap of an Envoy sidecar or front proxy, as YAML.

A sidecar beside the application `web`: local ports for all services (see `quorate services`), and
its own port 8080, on which calls for the application at 127.0.0.1:3000 arrive:
  quorate envoy bootstrap --disco 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400 \\
    --service web --inbound 0.0.0.0:8080=127.0.0.1:3000 > envoy.yaml
  envoy -c envoy.yaml

A second sidecar on a host leaves the local ports to the first, which serves them for all:
  quorate envoy bootstrap … --service api --inbound 0.0.0.0:8081=127.0.0.1:3001 --inbound-only

A front proxy: port 8080 for services (by host name), 12379 for the etcd API (to the leader), both on
loopback. A port is open to others only with an address; the etcd API asks nobody who they are:
  quorate envoy bootstrap --disco 10.0.0.1:7400 --front 8080,12379 > envoy.yaml
  quorate envoy bootstrap --disco 10.0.0.1:7400 --front 0.0.0.0:8080,127.0.0.1:12379 > envoy.yaml")]
struct BootstrapArgs {
    /// DISCO servers, as IP:PORT; name them all.
    #[arg(long, value_name = "IP:PORT,…", value_parser = addresses, default_value = DEFAULT_DISCO)]
    disco: Addresses,
    /// The service that this Envoy stands for; `front` for a front proxy unless given.
    #[arg(long, value_parser = name, required_unless_present = "front")]
    service: Option<String>,
    /// Tells this Envoy from others; service and host name unless given.
    #[arg(long, value_name = "ID", value_parser = name)]
    node_id: Option<String>,
    /// Region that the Envoy is in.
    #[arg(long, value_name = "NAME", value_parser = name)]
    region: Option<String>,
    /// Zone that the Envoy is in.
    #[arg(long, value_name = "NAME", value_parser = name)]
    zone: Option<String>,
    /// The mesh that the Envoy belongs to, or `none`; DISCO is asked unless it is given. Servers of
    /// another mesh refuse the Envoy, so that it keeps what it has if addresses are used again.
    #[arg(long, value_name = "ID", value_parser = mesh_or_none)]
    mesh: Option<String>,
    /// Port of Envoy's own admin interface, on loopback; or an address.
    #[arg(long, value_name = "PORT", value_parser = on_loopback, default_value = "9901")]
    admin_port: SocketAddr,
    /// Where a sidecar takes calls, and where its application listens.
    #[arg(long, value_name = "LISTEN=APP", value_parser = inbound, conflicts_with = "front")]
    inbound: Option<Inbound>,
    /// Take no local ports for services: another sidecar of this host has them.
    #[arg(long, requires = "inbound")]
    inbound_only: bool,
    /// Form of ADS.
    #[arg(long, value_enum, default_value = "delta")]
    variant: Variant,
    /// Make a front proxy with these two ports, on loopback; each may be an address, as IP:PORT.
    #[arg(long, value_name = "HTTP_PORT,KV_PORT", value_parser = front)]
    front: Option<Role>,
}

impl EnvoyArgs {
    pub(crate) async fn run(self) -> Result<u8, Failure> {
        match self.command {
            EnvoyCommand::Bootstrap(args) => args.run().await,
        }
    }
}

impl BootstrapArgs {
    async fn run(self) -> Result<u8, Failure> {
        if self.disco.0.is_empty() {
            return Err(Failure::usage("--disco names no server")
                .hint("an Envoy finds DISCO by IP: --disco IP:PORT,…"));
        }
        let mesh = match self.mesh {
            Some(mesh) => mesh,
            None => mesh_of(&self.disco.0).await?,
        };
        let service = self.service.unwrap_or_else(|| "front".to_owned());
        let node_id = self.node_id.unwrap_or_else(|| format!("{service}-{}", host_name()));
        let role = self
            .front
            .unwrap_or(Role::Sidecar { inbound: self.inbound, outbound: !self.inbound_only });
        if let Some(warning) = warning(role) {
            progress(&warning);
        }
        let bootstrap = Bootstrap {
            node_id,
            service,
            region: self.region.unwrap_or_default(),
            zone: self.zone.unwrap_or_default(),
            mesh,
            disco: self.disco.0,
            admin: self.admin_port,
            variant: self.variant,
            role,
        };
        output::line(bootstrap.to_string().trim_end());
        Ok(0)
    }
}

/// What an operator may not know of the ports that are open to others.
fn warning(role: Role) -> Option<String> {
    let Role::Front { kv, .. } = role else { return None };
    (!kv.ip().is_loopback()).then(|| {
        format!(
            "WARN the etcd API is open at {kv}: whoever reaches it may read and write everything; \
             a port alone stays on loopback"
        )
    })
}

/// The mesh of the DISCO servers, as far as they answer; empty if none says.
async fn mesh_of(disco: &[SocketAddr]) -> Result<String, Failure> {
    let asking = disco.iter().map(|address| timeout(ANSWER_TIMEOUT, identify(*address)));
    let answers = join_all(asking).await;
    let meshes: BTreeSet<String> = answers
        .into_iter()
        .filter_map(|answer| Some(answer.ok()?.ok()?.mesh_id))
        .filter(|mesh| !mesh.is_empty())
        .collect();
    if meshes.len() > 1 {
        let meshes: Vec<_> = meshes.into_iter().collect();
        let message = format!("the DISCO servers belong to several meshes: {}", meshes.join(", "));
        return Err(Failure::refused(message).hint("name servers of one mesh with --disco"));
    }
    let mesh = meshes.into_iter().next().unwrap_or_default();
    if mesh.is_empty() {
        progress(
            "note: no DISCO server said which mesh it is, so the bootstrap names none, and the Envoy \
             would follow servers of another mesh at these addresses; --mesh names it",
        );
    }
    Ok(mesh)
}

/// A mesh id, or nothing for `none`.
fn mesh_or_none(text: &str) -> Result<String, ParseMeshIdError> {
    if text == "none" { Ok(String::new()) } else { Ok(text.parse::<MeshId>()?.to_string()) }
}

fn inbound(text: &str) -> Result<Inbound, ValueError> {
    let (listen, application) =
        text.split_once('=').ok_or_else(|| ValueError::Pair(text.to_owned()))?;
    Ok(Inbound { listen: address(listen)?, application: address(application)? })
}

fn front(text: &str) -> Result<Role, ValueError> {
    let (http, kv) = text.split_once(',').ok_or_else(|| ValueError::Ports(text.to_owned()))?;
    Ok(Role::Front { http: on_loopback(http)?, kv: on_loopback(kv)? })
}

fn on_loopback(text: &str) -> Result<SocketAddr, ValueError> {
    match text.trim().parse() {
        Ok(port) => Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        Err(_) => address(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_proxy_is_open_to_others_only_by_an_address() {
        let Role::Front { http, kv } = front("8080,12379").expect("two ports") else { panic!() };
        assert!(http.ip().is_loopback() && kv.ip().is_loopback());
        assert_eq!(warning(Role::Front { http, kv }), None);

        let open = front("0.0.0.0:8080,0.0.0.0:12379").expect("two addresses");
        let warned = warning(open).expect("an etcd port that is open");
        assert!(warned.starts_with("WARN ") && warned.contains("0.0.0.0:12379"), "{warned}");
        let guarded = front("0.0.0.0:8080,12379").expect("an address and a port");
        assert_eq!(warning(guarded), None);
    }
}
