//! What a server says on standard output: one loud line when it first belongs to a mesh, and in
//! `quorate dev` a guide to what can be tried.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Ended, Server, readiness::Readiness};
use crate::{
    config::{DEFAULT_DISCO, Start},
    output,
};

/// How long after its mesh a server may learn by which formation it came to be.
const FORMATION_TOLD: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announce {
    /// The loud line.
    FirstStart,
    /// The loud line and, once the server is ready, the guide.
    Guide,
}

impl Announce {
    pub(super) async fn keep(
        self,
        server: Server,
        had_mesh: bool,
        readiness: Readiness,
        closing: CancellationToken,
    ) -> Ended {
        let told = async {
            let Some(loud) = loud_line(&server).await else { return };
            if !had_mesh {
                output::line(&loud);
                if server.config.start == Start::Alone && self == Self::FirstStart {
                    output::line(&empty(&server));
                }
            }
            if self == Self::Guide {
                readiness.ready().await;
                output::line(&guide(&server));
            }
        };
        closing.run_until_cancelled(told).await;
        closing.cancelled().await;
        ("announcement", Ok(()))
    }
}

/// Waits for the mesh, and tells how this server came to be in it.
async fn loud_line(server: &Server) -> Option<String> {
    let mut mesh = server.host.mesh().watch_id();
    let mesh_id = mesh.wait_for(Option::is_some).await.ok()?.clone()?;
    let node_id = server.host.identity().node_id;
    Some(if is_founder(server, node_id).await {
        format!("NEW mesh {mesh_id}")
    } else {
        format!("JOINED mesh {mesh_id} as {}", output::node_id(node_id))
    })
}

/// Whether the mesh began with this server. A formation is told right after its mesh.
async fn is_founder(server: &Server, node_id: u64) -> bool {
    if server.config.start == Start::Joined {
        return false;
    }
    let mut formation = server.host.mesh().formation();
    let told = formation.wait_for(Option::is_some);
    let Ok(Ok(formation)) = timeout(FORMATION_TOLD, told).await else { return false };
    formation.as_ref().is_some_and(|it| it.members.iter().any(|it| it.node_id == node_id))
}

/// A server alone forms a mesh wherever it finds an empty directory, also one that was meant to be
/// another.
fn empty(server: &Server) -> String {
    format!(
        "The mesh is empty, in {}. If there should be data, stop this server and look at --data-dir; \
         with --mesh ID it starts in no other mesh",
        server.config.data_dir.display()
    )
}

fn guide(server: &Server) -> String {
    let mesh = server.config.advertise.to_string();
    let disco = if mesh == DEFAULT_DISCO { String::new() } else { format!(" --disco {mesh}") };
    let kv = server.config.kv.map_or_else(String::new, |kv| kv.advertise.to_string());
    let admin = server.config.admin_listen;
    format!(
        "
Quorate runs, with its data in {data}. In another terminal, try:

  quorate members{disco}
  etcdctl --endpoints={kv} put greeting hello
  etcdctl --endpoints={kv} get greeting

Register a program as a service; it is removed when it ends:
  quorate register{disco} --service web --address 127.0.0.1:8000 --check tcp -- python3 -m http.server 8000
  quorate services{disco}
  quorate endpoints web{disco}

Reach it through an Envoy sidecar, on the address that `quorate services` lists:
  quorate envoy bootstrap{disco} --service me > envoy.yaml
  envoy -c envoy.yaml

Or reach everything through a front proxy, services by host name, and the data on port 12379:
  quorate envoy bootstrap{disco} --front 8080,12379 > front.yaml
  envoy -c front.yaml
  curl -H 'host: web' http://127.0.0.1:8080/

Metrics and state: http://{admin}/metrics and http://{admin}/v1/status. Stop with Ctrl-C.
",
        data = server.config.data_dir.display(),
    )
}
