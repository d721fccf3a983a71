//! The mesh of compose.yaml on the local Docker engine, and a capture of what its network carries.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Process,
    address::free,
    cli::{self, Output},
    wait::{SOON, eventually, eventually_some},
};

/// Tells this mesh's containers from those of a mesh that a user may have started.
const PROJECT: &str = "quorate-e2e";

/// The running mesh. Its containers, network and volumes go with the test.
#[derive(Debug)]
pub struct Compose {
    /// Where the front proxy's ports are published.
    pub http: SocketAddr,
    pub kv: SocketAddr,
    pub envoy_admin: SocketAddr,
    pub directory: TempDir,
}

impl Compose {
    /// Puts the built binary into the image, and makes the network without starting anything, so
    /// that a capture can begin before the first packet.
    pub async fn create() -> Self {
        let image = cli::run(script("image"), &[&cli::binary().display().to_string()]).await;
        assert_eq!(image.code, 0, "{image:#?}");
        let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let compose = Self {
            http: free(host, 18080),
            kv: free(host, 12379),
            envoy_admin: free(host, 19901),
            directory: TempDir::new().expect("there is room for temporary files"),
        };
        compose.down();
        // Compose makes a network with its first container.
        compose.run(&["up", "--no-start", "--no-build", "disco-1"]).await.ok();
        compose
    }

    /// Runs Compose on this mesh.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(script("compose"));
        command.envs(self.environment()).args(args);
        cli::finish(command).await
    }

    /// The containers of a service, by their number.
    pub async fn containers(&self, service: &str) -> Vec<Container> {
        let project = format!("label=com.docker.compose.project={PROJECT}");
        let label = format!("label=com.docker.compose.service={service}");
        let format = "{{.Label \"com.docker.compose.container-number\"}} {{.ID}}";
        let args = ["ps", "--all", "--filter", &project, "--filter", &label, "--format", format];
        let listed = docker(&args).await.ok();
        let mut containers: Vec<(u32, String)> = listed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(number, id)| (number.parse().expect("a number"), id.to_owned()))
            .collect();
        containers.sort();
        containers
            .into_iter()
            .map(|(number, id)| Container { name: format!("{service}-{number}"), id })
            .collect()
    }

    /// The only container of a service.
    pub async fn container(&self, service: &str) -> Container {
        let mut containers = self.containers(service).await;
        assert_eq!(containers.len(), 1, "containers of {service}");
        containers.remove(0)
    }

    /// `quorate` in a DISCO container, as JSON; nothing if it does not succeed.
    pub async fn quorate(&self, args: &[&str]) -> Option<Value> {
        for service in ["disco-1", "disco-2", "disco-3"] {
            let container = self.container(service).await;
            let command = [&["quorate"], args, &["--format", "json"]].concat();
            let output = container.exec(&command).await;
            if output.code == 0 {
                return serde_json::from_str(&output.stdout).ok();
            }
        }
        None
    }

    /// The mesh's network.
    pub fn network(&self) -> String {
        format!("{PROJECT}_mesh")
    }

    /// Watches the network's bridge for DNS.
    pub async fn capture_dns(&self) -> Capture {
        let network = docker(&["network", "inspect", "-f", "{{.Id}}", &self.network()]).await.ok();
        let bridge = format!("br-{}", &network[..12]);
        Capture::start(&bridge, self.directory.path()).await
    }

    fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("COMPOSE_PROJECT_NAME", PROJECT.to_owned()),
            ("HTTP_PORT", self.http.port().to_string()),
            ("KV_PORT", self.kv.port().to_string()),
            ("ENVOY_ADMIN_PORT", self.envoy_admin.port().to_string()),
        ]
    }

    fn down(&self) {
        self.run_now(&["down", "--volumes", "--remove-orphans", "--timeout", "1"]);
    }

    /// For where nothing can be awaited.
    fn run_now(&self, args: &[&str]) -> String {
        let output = Command::new(script("compose"))
            .envs(self.environment())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("Compose is installed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.run_now(&["ps"]));
            eprintln!("{}", self.run_now(&["logs", "--no-color", "--tail=40"]));
        }
        self.down();
    }
}

/// One container of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub id: String,
}

impl Container {
    pub async fn exec(&self, command: &[&str]) -> Output {
        docker(&[&["exec", &self.id], command].concat()).await
    }

    pub async fn stop(&self) {
        docker(&["stop", "--time", "10", &self.id]).await.ok();
    }

    pub async fn start(&self) {
        docker(&["start", &self.id]).await.ok();
    }

    /// How the container ended.
    pub async fn exit_code(&self) -> String {
        self.inspect("{{.State.ExitCode}}").await
    }

    /// `healthy`, `unhealthy` or `starting`.
    pub async fn health(&self) -> String {
        self.inspect("{{.State.Health.Status}}").await
    }

    pub async fn is_running(&self) -> bool {
        self.inspect("{{.State.Running}}").await == "true"
    }

    /// Where the container is in the mesh's network; none while it is not in it.
    pub async fn ip(&self) -> Option<IpAddr> {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.inspect(format).await.parse().ok()
    }

    pub async fn disconnect(&self, network: &str) {
        docker(&["network", "disconnect", "--force", network, &self.id]).await.ok();
    }

    pub async fn connect(&self, network: &str, ip: IpAddr) {
        docker(&["network", "connect", "--ip", &ip.to_string(), network, &self.id]).await.ok();
    }

    /// Look-ups that the container has sent to Docker's own resolver, which never reach the bridge:
    /// the packets that its redirection has counted.
    pub async fn look_ups(&self) -> u64 {
        let process = self.inspect("{{.State.Pid}}").await;
        let list = ["-t", "nat", "-vxnL", "DOCKER_OUTPUT"];
        let args = [&["-t", &process, "-n", "iptables"][..], &list].concat();
        let rules = cli::run_as_root("nsenter", &args).await.ok();
        let counts = rules.lines().filter(|line| line.contains("DNAT")).map(|line| {
            let count = line.split_whitespace().next().expect("a rule begins with its count");
            count.parse::<u64>().expect("a count")
        });
        counts.sum()
    }

    async fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.id]).await.ok().trim().to_owned()
    }
}

/// DNS packets on one interface, from its start on.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    async fn start(interface: &str, directory: &Path) -> Self {
        let file = directory.join("dns.pcap");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if !nix::unistd::geteuid().is_root() {
            command.args(["sudo", "-n"]);
        }
        command.args(["tcpdump", "-Z", "root", "-n", "-U", "-i", interface, "-w"]);
        command.arg(&file).args(["port", "53", "or", "port", "5353"]);
        let process = Process::start_command("tcpdump", directory, command);
        let capture = Self { process, file };
        let listening = async || capture.process.output().contains("listening on");
        eventually("tcpdump listens", SOON, listening).await;
        capture
    }

    /// The packets so far, one line each.
    pub async fn packets(&self) -> Vec<String> {
        let file = self.file.display().to_string();
        let read = async || {
            let output = cli::run_as_root("tcpdump", &["-n", "-r", &file]).await;
            (output.code == 0).then_some(output.stdout)
        };
        let text = eventually_some("the capture can be read", SOON, read).await;
        text.lines().map(str::to_owned).collect()
    }
}

/// Runs `docker`.
pub async fn docker(args: &[&str]) -> Output {
    cli::run("docker", args).await
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name)
}
