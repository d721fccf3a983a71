//! What a server is told, checked as a whole before anything is opened.
//!
//! The flags are parsed one by one; this module looks at them together. Whatever it refuses ends
//! the process with exit code 2, and neither a port nor the data directory has been touched.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use mesh::MeshId;

use crate::{cli::ServeArgs, failure::Failure, values::Addresses};

#[cfg(test)]
mod tests;

/// A service that this binary can provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Disco,
    Data,
}

/// How a server without a mesh gets one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Forms a mesh of its own at once: single mode.
    Alone,
    /// Waits until `quorate init` forms a mesh of it and others.
    Formed,
    /// Joins the mesh of the DISCO servers that it is told.
    Joined,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) services: BTreeSet<Service>,
    pub(crate) data_dir: PathBuf,
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) zone: String,
    /// The mesh that the data directory must belong to, if any is demanded.
    pub(crate) mesh: Option<MeshId>,
    pub(crate) start: Start,
    pub(crate) listen: SocketAddr,
    /// Where others reach the mesh port; its port is zero when the system chooses it.
    pub(crate) advertise: SocketAddr,
    /// The etcd API, on servers with the data service.
    pub(crate) kv: Option<KvPort>,
    pub(crate) admin_listen: SocketAddr,
    /// Servers to greet at start, without this one.
    pub(crate) seeds: Vec<SocketAddr>,
    /// Where the data service finds DISCO, apart from this process.
    pub(crate) disco: Vec<SocketAddr>,
    /// How long a voter's node must be down before another one takes its seat.
    pub(crate) replace_after: Duration,
    pub(crate) shutdown_grace: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvPort {
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: SocketAddr,
}

impl Service {
    pub(crate) const ALL: [Self; 2] = [Self::Disco, Self::Data];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disco => "disco",
            Self::Data => "data",
        }
    }
}

impl Config {
    /// Checks the arguments together. `route` tells the local address from which another one is
    /// reached, see [`local_address_towards`].
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
            kv,
            admin_listen: args.admin_listen,
            seeds,
            replace_after: args.replace_after,
            shutdown_grace: args.shutdown_grace,
        })
    }

    pub(crate) fn provides(&self, service: Service) -> bool {
        self.services.contains(&service)
    }

    pub(crate) fn service_names(&self) -> BTreeSet<String> {
        self.services.iter().map(|service| service.name().to_owned()).collect()
    }

    /// Tells the effective configuration, once.
    pub(crate) fn tell(&self) {
        let kv = self.kv.map(|kv| (kv.listen.to_string(), kv.advertise.to_string()));
        let (kv_listen, kv_advertise) = kv.unwrap_or_default();
        tracing::info!(
            services = %self.service_names().into_iter().collect::<Vec<_>>().join(","),
            data_dir = %self.data_dir.display(),
            name = self.name,
            region = self.region,
            zone = self.zone,
            listen = %self.listen,
            advertise = %self.advertise,
            kv_listen,
            kv_advertise,
            admin_listen = %self.admin_listen,
            seeds = %Addresses(self.seeds.clone()),
            start = ?self.start,
            shutdown_grace = ?self.shutdown_grace,
            version = env!("CARGO_PKG_VERSION"),
            "configuration"
        );
    }
}

/// The local address from which packets to `target` would leave. Sends none: connecting a UDP
/// socket only looks up the route.
pub(crate) fn local_address_towards(target: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    Ok(socket.local_addr()?.ip())
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

/// What this machine calls itself.
pub(crate) fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unnamed".to_owned())
}
