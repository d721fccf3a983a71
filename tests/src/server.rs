//! One `quorate serve`: its addresses, its data directory, and the process while it runs.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use nix::sys::signal::Signal;

use crate::{
    Process,
    address::{free, list, next_ip},
    cli, disk, http,
    wait::LATE,
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
    /// Flags beside the usual ones.
    flags: Vec<String>,
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
            flags: Vec::new(),
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

    /// Whether it has the data service.
    pub fn kv_is_served(&self) -> bool {
        self.services != "disco"
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
        args.extend(self.flags.iter().cloned());
        args
    }

    /// Gives a stopped server flags beside the usual ones, in place of those that it had.
    pub fn with_flags(&mut self, flags: &[&str]) {
        assert!(self.process.is_none(), "{} still runs", self.name);
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
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

    /// Awaits that the server ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        self.running().wait(LATE).await
    }

    /// How the server ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.ended()?;
        self.process = None;
        Some(status)
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

    /// Copies the disk of a stopped server, as a backup does.
    pub fn back_up(&self) {
        assert!(self.process.is_none(), "{} still runs", self.name);
        let backup = self.backup();
        if backup.exists() {
            fs::remove_dir_all(&backup).expect("a backup is a directory");
        }
        disk::copy(&self.data_dir(), &backup);
    }

    /// Puts a stopped server's disk back to what it was at the backup, and says that this copy of
    /// it is the one that is kept.
    pub fn restore(&mut self) {
        self.wipe();
        disk::copy(&self.backup(), &self.data_dir());
        let mut reclaim = Command::new(cli::binary());
        let reclaimed = reclaim.args(["reclaim", "--data-dir"]).arg(self.data_dir()).status();
        assert!(reclaimed.expect("quorate runs").success(), "{} is not reclaimed", self.name);
    }

    /// Awaits that the server ends by itself.
    pub async fn ends(&mut self) -> ExitStatus {
        let mut process = self.running();
        process.wait(LATE).await
    }

    /// Whether the process is there, and has not ended by itself.
    pub fn goes_on(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().is_none())
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

    fn backup(&self) -> PathBuf {
        self.directory.join(format!("{}.backup", self.name))
    }

    fn running(&mut self) -> Process {
        self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name))
    }
}
