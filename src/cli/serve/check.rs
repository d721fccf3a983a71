//! The flags of a server, checked as a whole before anything is opened.
//!
//! They are parsed one by one; this module looks at them together. Whatever it refuses ends the
//! process with exit code 2, and neither a port nor the data directory has been touched.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use mesh::MeshId;

use super::ServeArgs;
use crate::{
    config::{Config, KvPort, Service, Start},
    failure::Failure,
    machine::host_name,
};

#[cfg(test)]
mod tests;

impl Config {
    /// Checks the arguments together. `route` tells the local address from which another one is
    /// reached, see [`local_address_towards`](crate::machine::local_address_towards).
    pub(crate) fn check(
        args: &ServeArgs,
        route: impl Fn(SocketAddr) -> io::Result<IpAddr>,
    ) -> Result<Self, Failure> {
        let services = services(args.services.as_deref())?;
        let start = start(&services, args)?;
        let mut seeds = args.peers.0.clone();
        seeds.extend(args.disco.0.iter().filter(|it| !args.peers.0.contains(it)));
        let advertise = advertise(args, &seeds, route)?;
        seeds.retain(|seed| *seed != advertise);
        let kv =
            if services.contains(&Service::Data) { Some(kv_port(args, advertise)?) } else { None };
        no_port_clash(args, kv.is_some())?;
        let mesh = args.mesh.as_deref().map(mesh_id).transpose()?;
        let disco = if services.contains(&Service::Disco) { &seeds } else { &args.disco.0 };
        Ok(Self {
            disco: disco.clone(),
            services,
            data_dir: args.data_dir.clone(),
            name: args.name.clone().unwrap_or_else(host_name),
            region: args.region.clone().unwrap_or_default(),
            zone: args.zone.clone().unwrap_or_default(),
            mesh,
            start,
            listen: args.listen,
            advertise,
            advertise_is_derived: args.advertise.is_none() && args.listen.ip().is_unspecified(),
            kv,
            admin_listen: args.admin_listen,
            seeds,
            accept_losses: args.accept_loss.0.clone(),
            replace_after: args.replace_after,
            latch_patience: args.latch_patience,
            stale_streams_after: args.stale_streams_after,
            shutdown_grace: args.shutdown_grace,
        })
    }
}

fn services(text: Option<&str>) -> Result<BTreeSet<Service>, Failure> {
    const CHOICES: &str = "choose from disco, data (comma separated) or all: --services, \
                           QUORATE_SERVICES, or `services` in the configuration file";
    let names: Vec<_> =
        text.unwrap_or_default().split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
    if names.is_empty() {
        let message = "told no services to run, so this server does not start (services is empty)";
        return Err(Failure::usage(message).hint(CHOICES));
    }
    let mut services = BTreeSet::new();
    for name in names {
        match Service::ALL.into_iter().find(|service| service.name() == name) {
            Some(service) => _ = services.insert(service),
            None if name == "all" => services.extend(Service::ALL),
            None => {
                let message = format!("services names `{name}`, which is unknown");
                return Err(Failure::usage(message).hint(CHOICES));
            }
        }
    }
    Ok(services)
}

fn start(services: &BTreeSet<Service>, args: &ServeArgs) -> Result<Start, Failure> {
    let told_of_others = !args.peers.0.is_empty() || !args.disco.0.is_empty();
    if services.contains(&Service::Disco) {
        // A DISCO server that knows of others never forms a mesh by itself.
        return Ok(if told_of_others { Start::Formed } else { Start::Alone });
    }
    if !args.disco.0.is_empty() {
        return Ok(Start::Joined);
    }
    if told_of_others {
        return Ok(Start::Formed);
    }
    Err(Failure::usage("a data server needs --disco or --peers, and was given neither").hint(
        "name the DISCO servers with --disco IP:PORT,…; or, to run without DISCO, the other data \
         servers with --peers; or run everything in one process with --services all",
    ))
}

fn advertise(
    args: &ServeArgs,
    seeds: &[SocketAddr],
    route: impl Fn(SocketAddr) -> io::Result<IpAddr>,
) -> Result<SocketAddr, Failure> {
    let address = match args.advertise {
        Some(address) if address.ip().is_unspecified() => {
            let message = format!("--advertise {address} is no address that others can reach");
            return Err(Failure::usage(message).hint("give an IP of this machine"));
        }
        Some(address) => address,
        None if !args.listen.ip().is_unspecified() => args.listen,
        None => SocketAddr::new(derived_ip(args.listen, seeds, route)?, args.listen.port()),
    };
    let unreachable_from = seeds.iter().find(|seed| !seed.ip().is_loopback());
    match unreachable_from {
        Some(seed) if address.ip().is_loopback() => Err(Failure::usage(format!(
            "this server would advertise {address}, which {seed} cannot reach"
        ))
        .hint("listen on an address of the network: --listen 0.0.0.0:7400, or --listen IP:7400")),
        _ => Ok(address),
    }
}

/// The one local address that leads to all seeds. Guesses nothing when there are several.
fn derived_ip(
    listen: SocketAddr,
    seeds: &[SocketAddr],
    route: impl Fn(SocketAddr) -> io::Result<IpAddr>,
) -> Result<IpAddr, Failure> {
    const FIX: &str = "say where others reach this server: --advertise IP:PORT";
    let found: BTreeSet<IpAddr> = seeds
        .iter()
        .filter_map(|seed| route(*seed).ok())
        .filter(|ip| !ip.is_unspecified())
        .collect();
    let mut ips = found.iter();
    match (ips.next(), ips.next()) {
        (Some(ip), None) => Ok(*ip),
        (None, _) => {
            let message = format!("--listen {listen} is every address, and none to advertise");
            Err(Failure::usage(message).hint(FIX))
        }
        (Some(_), Some(_)) => {
            let found: Vec<_> = found.iter().map(IpAddr::to_string).collect();
            let message = format!(
                "this machine reaches its peers from several addresses: {}",
                found.join(", ")
            );
            Err(Failure::usage(message).hint(FIX))
        }
    }
}

fn kv_port(args: &ServeArgs, mesh: SocketAddr) -> Result<KvPort, Failure> {
    let listen = args.kv_listen;
    let advertise = match args.kv_advertise {
        Some(address) if address.ip().is_unspecified() => {
            let message = format!("--kv-advertise {address} is no address that others can reach");
            return Err(Failure::usage(message).hint("give an IP of this machine"));
        }
        Some(address) => address,
        None if listen.ip().is_unspecified() => SocketAddr::new(mesh.ip(), listen.port()),
        None => listen,
    };
    Ok(KvPort { listen, advertise })
}

fn no_port_clash(args: &ServeArgs, has_kv: bool) -> Result<(), Failure> {
    let mut ports = vec![("--listen", args.listen), ("--admin-listen", args.admin_listen)];
    if has_kv {
        ports.push(("--kv-listen", args.kv_listen));
    }
    for (position, (name, address)) in ports.iter().enumerate() {
        for (other_name, other) in &ports[position + 1..] {
            if clash(*address, *other) {
                let message =
                    format!("{name} {address} and {other_name} {other} are the same port");
                return Err(Failure::usage(message).hint("give each its own port"));
            }
        }
    }
    Ok(())
}

fn clash(left: SocketAddr, right: SocketAddr) -> bool {
    let overlap =
        left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified();
    left.port() != 0 && left.port() == right.port() && overlap
}

fn mesh_id(text: &str) -> Result<MeshId, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(format!("--mesh `{text}` is no mesh id"))
            .hint("a mesh id is printed by `quorate init` and by `quorate members`")
    })
}
