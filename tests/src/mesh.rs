//! A whole mesh of processes: DISCO servers, data nodes, and an Envoy in front of them.

use std::{net::SocketAddr, path::Path};

use tempfile::TempDir;

use crate::{
    Server,
    address::list,
    cli,
    envoy::Envoy,
    kv::Kv,
    registry::Registry,
    wait::{LATE, SOON, eventually, eventually_some},
};

/// A mesh that ends with the test.
///
/// Fields end in their order: the processes before the directory with their data.
#[derive(Debug)]
pub struct Mesh {
    pub disco: Vec<Server>,
    pub data: Vec<Server>,
    front: Option<Envoy>,
    directory: TempDir,
}

impl Mesh {
    /// Starts `disco` DISCO servers and `data` data nodes, all at once, and forms the mesh.
    pub async fn start(disco: usize, data: usize) -> Self {
        let directory = TempDir::new().expect("there is room for temporary files");
        let path = directory.path();
        let mut disco: Vec<Server> =
            (1..=disco).map(|n| Server::new(path, &format!("disco-{n}"), "disco")).collect();
        let seeds: Vec<SocketAddr> = disco.iter().map(Server::mesh).collect();
        disco = disco.into_iter().map(|server| server.seeded("--peers", &seeds)).collect();
        let data = (1..=data)
            .map(|n| Server::new(path, &format!("data-{n}"), "data").seeded("--disco", &seeds))
            .collect();
        let mut mesh = Self { disco, data, front: None, directory };
        for server in mesh.disco.iter_mut().chain(&mut mesh.data) {
            server.start();
        }
        form(&seeds).await;
        for server in &mesh.disco {
            eventually("a DISCO server is ready", SOON, async || server.is_ready().await).await;
        }
        mesh
    }

    /// The same, with an Envoy in front, once a write goes through it.
    pub async fn start_with_front(disco: usize, data: usize) -> Self {
        let mut mesh = Self::start(disco, data).await;
        mesh.add_front().await;
        let mut kv = Kv::at(mesh.front().kv);
        eventually("a write goes through Envoy", LATE, async || kv.put("ready", "1").await.is_ok())
            .await;
        mesh
    }

    pub async fn add_front(&mut self) {
        self.front =
            Some(Envoy::front(self.path(), "front", "delta", &self.disco_addresses()).await);
    }

    pub fn front(&self) -> &Envoy {
        self.front.as_ref().expect("the mesh has an Envoy in front")
    }

    /// Where the test's files are: data directories and what the processes write.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn disco_addresses(&self) -> Vec<SocketAddr> {
        self.disco.iter().map(Server::mesh).collect()
    }

    /// A client of the first DISCO server that runs.
    pub fn registry(&self) -> Registry {
        let server = self.disco.iter().find(|server| server.is_running());
        Registry::at(server.expect("a DISCO server runs").mesh())
    }

    /// Adds and starts a data node.
    pub fn add_data(&mut self) -> &Server {
        let name = format!("data-{}", self.data.len() + 1);
        let seeds = self.disco_addresses();
        let mut server = Server::new(self.path(), &name, "data").seeded("--disco", &seeds);
        server.start();
        self.data.push(server);
        self.data.last().expect("one was added")
    }

    /// The position of the data node that leads the namespace `default`, by its own word.
    pub async fn data_leader(&self) -> usize {
        let leads = async |server: &Server| match Kv::at(server.kv()).status().await {
            Ok(status) => status.header.is_some_and(|it| it.member_id == status.leader),
            Err(_) => false,
        };
        first(&self.data, "a data node leads", leads).await
    }

    /// The position of the DISCO server that leads.
    pub async fn disco_leader(&self) -> usize {
        let leads = async |server: &Server| {
            let mut registry = Registry::at(server.mesh());
            let Some(leader) = registry.leader().await else { return false };
            let members = registry.members().await.unwrap_or_default();
            let own = server.mesh().to_string();
            members.iter().any(|member| member.node_id == leader && member.mesh_address == own)
        };
        first(&self.disco, "a DISCO server leads", leads).await
    }

    /// Awaits that every running data node has applied what the leader has.
    pub async fn caught_up(&self) {
        let caught_up = async || {
            let mut applied = Vec::new();
            for server in self.data.iter().filter(|server| server.is_running()) {
                match Kv::at(server.kv()).status().await {
                    Ok(status) if status.leader != 0 => applied.push(status.raft_applied_index),
                    _ => return false,
                }
            }
            applied.windows(2).all(|pair| pair[0].abs_diff(pair[1]) < 64)
        };
        eventually("every data node has caught up", LATE, caught_up).await;
    }
}

/// Forms a mesh as an operator would, as soon as every server is up.
pub async fn form(servers: &[SocketAddr]) {
    let servers = list(servers);
    let tried = async || {
        let output = cli::quorate(&["init", "--servers", &servers]).await;
        // Unreachable: a server is not up yet. Anything else is an answer.
        (output.code != 4).then_some(output)
    };
    eventually_some("init reaches every server", SOON, tried).await.ok();
}

async fn first(servers: &[Server], what: &str, condition: impl AsyncFn(&Server) -> bool) -> usize {
    let found = async || {
        for (position, server) in servers.iter().enumerate() {
            if server.is_running() && condition(server).await {
                return Some(position);
            }
        }
        None
    };
    eventually_some(what, LATE, found).await
}
