//! Fleets whose owners die or fall silent at once.

use std::{net::SocketAddr, path::Path};

use harness::{
    Mesh, Process, Server,
    address::{free, next_ip},
    app::{App, Manner},
    cli, eventually, http,
    registry::Registry,
    wait::{LATE, SOON},
};
use tempfile::TempDir;

const FLEET: usize = 3;

/// D10: the fleet of a StatefulSet is killed whole and started again at other addresses.
#[tokio::test]
async fn a_fleet_with_fixed_ids_comes_back_at_other_addresses() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "disco", "all");
    server.start();
    eventually("the server is ready", SOON, async || server.is_ready().await).await;
    let start = |generation: usize| -> Vec<(SocketAddr, Process)> {
        (0..FLEET)
            .map(|n| {
                let (address, id) = (free(next_ip(), 8000), format!("web-{n}"));
                let name = format!("{id}-{generation}");
                (address, registrar(directory.path(), &name, server.mesh(), &id, address, "10s"))
            })
            .collect()
    };
    let are_listed = async |fleet: &[(SocketAddr, Process)]| {
        let mut registry = Registry::at(server.mesh());
        let instances = registry.instances("web").await.unwrap();
        let mut listed: Vec<String> =
            instances.into_iter().filter(|it| !it.silent).map(|it| it.address).collect();
        let mut expected: Vec<String> = fleet.iter().map(|(it, _)| it.to_string()).collect();
        listed.sort();
        expected.sort();
        listed == expected
    };
    let first = start(1);
    eventually("the fleet is registered", SOON, async || are_listed(&first).await).await;
    for (_, process) in first {
        process.kill();
    }
    // At once, while the leases of the dead still hold.
    let second = start(2);
    eventually("the fleet is let in again", LATE, async || are_listed(&second).await).await;
    for (_, process) in second {
        assert_eq!(process.terminate().await.code(), Some(0));
    }
}

/// D14: what nobody answers for is used after all others, is told of, and can be taken out at once.
#[tokio::test]
async fn silent_instances_come_last_and_are_deregistered_together() {
    let mut mesh = Mesh::start(1, 0).await;
    mesh.add_front().await;
    let apps = [App::start(Manner::Answers).await, App::start(Manner::Answers).await];
    let server = mesh.disco_addresses()[0];
    let start = |name, app: &App| registrar(mesh.path(), name, server, name, app.address, "3s");
    let [heard, silent] = [start("heard", &apps[0]), start("silent", &apps[1])];
    let states = async || {
        let shown = mesh.front().endpoints("web").await;
        let mut states: Vec<String> = shown.into_iter().map(|it| it.health).collect();
        states.sort();
        states
    };
    eventually("both are routed to", SOON, async || states().await == ["HEALTHY"; 2]).await;
    silent.kill();
    let is_last = async || states().await == ["DEGRADED", "HEALTHY"];
    eventually("Envoy holds the silent one as degraded", LATE, is_last).await;
    let before = apps[1].asked().len();
    for _ in 0..100 {
        assert_eq!(http::get(mesh.front().http, "web", "/").await.unwrap().status, 200);
    }
    assert_eq!(apps[1].asked().len(), before, "the silent one is asked while another is heard");

    let disco = server.to_string();
    let ask = async |args: &[&str]| cli::quorate(&[args, &["--disco", &disco]].concat()).await;
    let status = ask(&["status"]).await;
    assert_eq!(status.code, 5, "{status:?}");
    assert!(status.stdout.contains("1 of 2 instances of service `web` are silent"), "{status:?}");
    ask(&["deregister", "--silent", "--service", "web"]).await.ok();
    eventually("the silent one is gone", SOON, async || states().await == ["HEALTHY"]).await;
    assert_eq!(ask(&["deregister", "--silent"]).await.code, 3, "nobody is silent");
    assert_eq!(heard.terminate().await.code(), Some(0));
}

fn registrar(
    directory: &Path,
    name: &str,
    server: SocketAddr,
    id: &str,
    address: SocketAddr,
    ttl: &str,
) -> Process {
    let (disco, address) = (server.to_string(), address.to_string());
    let args = ["register", "--service", "web", "--ttl", ttl, "--id", id];
    let args = [&args[..], &["--address", &address, "--disco", &disco]].concat();
    let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    Process::start(name, directory, cli::binary(), &args)
}
