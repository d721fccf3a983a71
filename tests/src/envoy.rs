//! A real Envoy, configured by what `quorate envoy bootstrap` prints.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use serde_json::Value;

use crate::{
    Process,
    address::{free, list, next_ip},
    cli, http,
    wait::{SOON, eventually},
};

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    /// Routes by host name to services.
    pub http: SocketAddr,
    /// Routes to the leader of a data namespace.
    pub kv: SocketAddr,
    pub admin: SocketAddr,
}

/// An endpoint as Envoy sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub priority: u64,
    /// As the control plane said it: `HEALTHY`, `DRAINING`, `UNKNOWN`, …
    pub health: String,
}

impl Envoy {
    /// Starts a front proxy and awaits that it is ready. `variant` of ADS is `delta` or `sotw`.
    pub async fn front(directory: &Path, name: &str, variant: &str, disco: &[SocketAddr]) -> Self {
        let ip = next_ip();
        let (http, kv, admin) = (free(ip, 8080), free(ip, 2379), free(ip, 9901));
        let bootstrap = cli::quorate(&[
            "envoy",
            "bootstrap",
            "--disco",
            &list(disco),
            "--variant",
            variant,
            "--front",
            &format!("{http},{kv}"),
            "--admin-port",
            &admin.to_string(),
        ])
        .await
        .ok();
        let process = start(directory, name, &bootstrap);
        let envoy = Self { process, http, kv, admin };
        eventually("Envoy is ready", SOON, async || envoy.is_ready().await).await;
        envoy
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything that it has written so far, its access log among it.
    pub fn output(&self) -> String {
        self.process.output()
    }

    pub async fn is_ready(&self) -> bool {
        self.admin("/ready").await.is_some()
    }

    /// What Envoy has loaded, by cluster.
    pub async fn clusters(&self) -> BTreeMap<String, Vec<Endpoint>> {
        clusters(self.admin).await
    }

    /// The endpoints of one cluster; empty if Envoy does not know it.
    pub async fn endpoints(&self, cluster: &str) -> Vec<Endpoint> {
        self.clusters().await.remove(cluster).unwrap_or_default()
    }

    /// The whole configuration, with endpoints.
    pub async fn config_dump(&self) -> String {
        self.admin("/config_dump?include_eds").await.unwrap_or_default()
    }

    /// One of Envoy's own counters or gauges.
    pub async fn stat(&self, name: &str) -> Option<u64> {
        stat(self.admin, name).await
    }

    /// A page of the admin port, if it answers well.
    async fn admin(&self, path: &str) -> Option<String> {
        page(self.admin, path).await
    }
}

pub(crate) async fn clusters(admin: SocketAddr) -> BTreeMap<String, Vec<Endpoint>> {
    let text = page(admin, "/clusters?format=json").await.unwrap_or_else(|| "{}".to_owned());
    let json: Value = serde_json::from_str(&text).expect("Envoy writes JSON");
    let statuses = json["cluster_statuses"].as_array().cloned().unwrap_or_default();
    statuses.iter().map(|it| (text_of(&it["name"]), endpoints(it))).collect()
}

pub(crate) async fn stat(admin: SocketAddr, name: &str) -> Option<u64> {
    let text = page(admin, &format!("/stats?filter=^{name}$")).await?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
}

pub(crate) async fn page(admin: SocketAddr, path: &str) -> Option<String> {
    let answer = http::get(admin, "admin", path).await.ok()?;
    (answer.status == 200).then_some(answer.body)
}

/// Starts Envoy on a bootstrap, in the directory of the test.
pub fn start(directory: &Path, name: &str, bootstrap: &str) -> Process {
    let path = directory.join(format!("{name}.yaml"));
    fs::write(&path, bootstrap).expect("the test's directory is writable");
    let path = path.display().to_string();
    let quiet = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"];
    let args: Vec<String> =
        ["-c", &path].iter().chain(&quiet).map(|arg| (*arg).to_owned()).collect();
    Process::start(name, directory, cli::envoy(), &args)
}

/// Whether Envoy takes a configuration.
pub async fn validate(path: &Path) -> cli::Output {
    let path = path.display().to_string();
    cli::run(cli::envoy(), &["--mode", "validate", "-c", &path]).await
}

fn endpoints(cluster: &Value) -> Vec<Endpoint> {
    let hosts = cluster["host_statuses"].as_array().cloned().unwrap_or_default();
    let mut endpoints: Vec<Endpoint> = hosts.iter().filter_map(endpoint).collect();
    endpoints.sort();
    endpoints
}

fn endpoint(host: &Value) -> Option<Endpoint> {
    let address = &host["address"]["socket_address"];
    let ip = address["address"].as_str()?.parse().ok()?;
    let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
    Some(Endpoint {
        address: SocketAddr::new(ip, port),
        priority: host["priority"].as_u64().unwrap_or(0),
        health: text_of(&host["health_status"]["eds_health_status"]),
    })
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
