//! A real etcd of one member, a peer to compare with.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::{
    Process,
    address::{free, next_ip},
    cli, eventually,
    kv::Kv,
    wait::LATE,
};

/// A running etcd, which ends with the test.
#[derive(Debug)]
pub struct Etcd {
    pub address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Etcd {
    /// Starts one and awaits that it answers.
    pub async fn start() -> Self {
        let directory = TempDir::new().expect("a directory can be made");
        let ip = next_ip();
        let (client, peer) = (free(ip, 2379), free(ip, 2380));
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let data = directory.path().join("data").display().to_string();
        let args = [
            ["--data-dir", &data],
            ["--log-level", "error"],
            ["--listen-client-urls", &client_url],
            ["--advertise-client-urls", &client_url],
            ["--listen-peer-urls", &peer_url],
            ["--initial-advertise-peer-urls", &peer_url],
            ["--initial-cluster", &format!("default={peer_url}")],
        ];
        let args = args.concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
        let process = Process::start("etcd", directory.path(), cli::etcd(), &args);
        let mut kv = Kv::at(client);
        eventually("etcd answers", LATE, async || kv.get("a").await.is_ok()).await;
        Self { address: client, _process: process, _directory: directory }
    }
}
