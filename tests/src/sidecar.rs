//! An Envoy beside an application.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    Mesh, Process,
    address::{free, list, next_ip},
    cli,
    envoy::{Endpoint, clusters, page, start, stat},
    eventually,
    wait::SOON,
};

/// An Envoy beside an application.
#[derive(Debug)]
pub struct Sidecar {
    _process: Process,
    /// Takes calls for the application, if it has one.
    pub inbound: SocketAddr,
    admin: SocketAddr,
}

impl Sidecar {
    /// Starts one with local ports for services, and a way in for an application if there is one.
    pub async fn start(mesh: &Mesh, name: &str, application: Option<SocketAddr>) -> Self {
        Self::with(mesh, name, application, &[]).await
    }

    /// Starts one without local ports.
    pub async fn inbound_only(mesh: &Mesh, name: &str, application: SocketAddr) -> Self {
        Self::with(mesh, name, Some(application), &["--inbound-only"]).await
    }

    async fn with(mesh: &Mesh, name: &str, app: Option<SocketAddr>, more: &[&str]) -> Self {
        let ip = next_ip();
        let (inbound, admin) = (free(ip, 8080), free(ip, 9901));
        let disco = list(&mesh.disco_addresses());
        let (port, ways) = (admin.to_string(), app.map(|app| format!("{inbound}={app}")));
        let mut args = vec!["envoy", "bootstrap", "--disco", &disco, "--service", "sidecar"];
        args.extend(["--node-id", name, "--admin-port", &port]);
        args.extend(ways.iter().flat_map(|ways| ["--inbound", ways.as_str()]));
        args.extend(more);
        let bootstrap = cli::quorate(&args).await.ok();
        let process = start(mesh.path(), name, &bootstrap);
        let ready = async || page(admin, "/ready").await.is_some();
        eventually("Envoy is ready", SOON, ready).await;
        Self { _process: process, inbound, admin }
    }

    /// What it has loaded, by cluster.
    pub async fn clusters(&self) -> BTreeMap<String, Vec<Endpoint>> {
        clusters(self.admin).await
    }

    /// One of Envoy's own counters or gauges.
    pub async fn stat(&self, name: &str) -> Option<u64> {
        stat(self.admin, name).await
    }
}
