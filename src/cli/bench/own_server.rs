//! A server of the command's own: the same binary as a process of its own, alone in a mesh, with its
//! data in a directory that is removed with it.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    process::Stdio,
};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{
    failure::{Code, Failure},
    listener,
};

/// What it logs: registrations by the thousand are no news.
const LOG: &str = "warn,openraft=error";

/// Lines of its log that are shown if it ends.
const SHOWN_LINES: usize = 5;

/// A running server, which ends when this is dropped.
///
/// Fields end in their order: the process before its directory.
#[derive(Debug)]
pub(super) struct OwnServer {
    child: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl OwnServer {
    pub(super) fn start() -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::other("cannot start a server to measure", &error);
        let directory = TempDir::with_prefix("quorate-bench-").map_err(failed)?;
        let [address, admin] = free_ports().map_err(failed)?;
        let log = File::create(directory.path().join("log")).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["serve", "--services", "disco", "--log", LOG]);
        command.arg("--data-dir").arg(directory.path().join("data"));
        command.arg("--listen").arg(address.to_string());
        command.arg("--admin-listen").arg(admin.to_string());
        // Flags of this command that are variables are not meant for the server.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QUORATE_") {
                command.env_remove(name);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self { child, address, directory })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn pid(&self) -> Result<u32, Failure> {
        self.child.id().ok_or_else(|| Failure::new(Code::Other, "the measured server has ended"))
    }

    /// Fails if the server has ended, with what it said last.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        let Ok(Some(status)) = self.child.try_wait() else { return Ok(()) };
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("; ");
        let message = format!("the measured server has ended ({status}): {last}");
        Err(Failure::new(Code::Other, message)
            .hint("its data is in the directory for temporary files; TMPDIR names another"))
    }

    /// Ends the process before its directory goes.
    pub(super) async fn stop(mut self) {
        // Whatever goes wrong, its end is what counts, and dropping it is another try.
        let _ = self.child.kill().await;
    }
}

/// Ports of loopback that nobody has at this moment.
fn free_ports() -> io::Result<[SocketAddr; 2]> {
    let (mesh, admin) = (listener::loopback()?, listener::loopback()?);
    Ok([mesh.local_addr()?, admin.local_addr()?])
}
