//! One `quorate serve`: its addresses, its data directory, and the process while it runs.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
};

use nix::sys::signal::Signal;

use crate::{
    Process,
    address::{free, list, next_ip},
    cli, http,
};

/// A server of a mesh, running or stopped. Its data directory outlives the process.
#[derive(Debug)]
pub struct Server {
    pub name: String,
    services: String,
    directory: PathBuf,
    /// Where this server finds the others: `--peers` or `--disco`, and the addresses.
    seeds: Option<(&'static str, Vec<SocketAddr>)>,
    addresses: Addresses,
    process: Option<Process>,
}

/// Where one server listens.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    mesh: SocketAddr,
    kv: SocketAddr,
    admin: SocketAddr,
}

impl Addresses {
    fn on(ip: IpAddr) -> Self {
        Self { mesh: free(ip, 7400), kv: free(ip, 2379), admin: free(ip, 8400) }
    }
}

impl Server {
    /// A server that is not started yet, on an address of its own.
    pub fn new(directory: &Path, name: &str, services: &str) -> Self {
        Self {
            name: name.to_owned(),
            services: services.to_owned(),
            directory: directory.to_owned(),
            seeds: None,
            addresses: Addresses::on(next_ip()),
            process: None,
        }
    }

    /// Tells the server of others: `flag` is `--peers` or `--disco`.
    pub fn seeded(mut self, flag: &'static str, addresses: &[SocketAddr]) -> Self {
        self.seeds = Some((flag, addresses.to_vec()));
        self
    }

    pub fn mesh(&self) -> SocketAddr {
        self.addresses.mesh
    }

    pub fn kv(&self) -> SocketAddr {
        self.addresses.kv
    }

    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.join(format!("{}.data", self.name))
    }

    /// The process id, while the server runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Everything that the server has written, over all its starts.
    pub fn output(&self) -> String {
        let path = self.directory.join(format!("{}.log", self.name));
        fs::read_to_string(path).unwrap_or_default()
    }

    pub fn args(&self) -> Vec<String> {
        let mut args = vec!["serve".to_owned()];
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        flag("--services", self.services.clone());
        flag("--name", self.name.clone());
        flag("--data-dir", self.data_dir().display().to_string());
        flag("--listen", self.addresses.mesh.to_string());
        flag("--admin-listen", self.addresses.admin.to_string());
        if self.services != "disco" {
            flag("--kv-listen", self.addresses.kv.to_string());
        }
        if let Some((name, addresses)) = &self.seeds {
            flag(name, list(addresses));
        }
        args
    }

    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let process = Process::start(&self.name, &self.directory, cli::binary(), &self.args());
        self.process = Some(process);
    }

    /// Ends the server as a power cut would.
    pub fn kill(&mut self) {
        self.running().kill();
    }

    /// Stops the server cleanly.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.running().terminate().await
    }

    /// Freezes the server, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("the server runs").signal(signal);
    }

    /// Gives a stopped server an address that nobody has had.
    pub fn relocate(&mut self) {
        assert!(self.process.is_none(), "{} still runs", self.name);
        self.addresses = Addresses::on(next_ip());
    }

    /// Tells a stopped server of other seeds.
    pub fn reseed(&mut self, addresses: &[SocketAddr]) {
        if let Some(seeds) = &mut self.seeds {
            seeds.1 = addresses.to_vec();
        }
    }

    /// Gives a stopped server an empty disk.
    pub fn wipe(&mut self) {
        assert!(self.process.is_none(), "{} still runs", self.name);
        fs::remove_dir_all(self.data_dir()).expect("a server has a data directory");
    }

    /// Whether the server says that it serves.
    pub async fn is_ready(&self) -> bool {
        http::get(self.addresses.admin, "admin", "/ready")
            .await
            .is_ok_and(|answer| answer.status == 200)
    }

    /// Whether the server answers at all.
    pub async fn is_alive(&self) -> bool {
        http::get(self.addresses.admin, "admin", "/healthz")
            .await
            .is_ok_and(|answer| answer.status == 200)
    }

    fn running(&mut self) -> Process {
        self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name))
    }
}
