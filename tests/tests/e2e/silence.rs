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
                (address, registrar(directory.path(), &name, server.mesh(), &id, address))
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

/// More than end at once, and so few that Envoy needs none of them.
const SILENT: usize = 3;
const HEARD: usize = 4;

/// D9, D14: instances that nobody answers for are used after all others, are told of, and are taken
/// out with one command.
#[tokio::test]
async fn silent_instances_come_last_and_are_deregistered_together() {
    let mut mesh = Mesh::start(1, 0).await;
    mesh.add_front().await;
    let server = mesh.disco_addresses()[0];
    let start = async |kind: &str, count: usize| {
        let (mut apps, mut processes) = (Vec::new(), Vec::new());
        for n in 0..count {
            let (app, id) = (App::start(Manner::Answers).await, format!("{kind}-{n}"));
            processes.push(registrar(mesh.path(), &id, server, &id, app.address));
            apps.push(app);
        }
        (apps, processes)
    };
    let (_heard_apps, heard) = start("heard", HEARD).await;
    let (silent_apps, silent) = start("silent", SILENT).await;
    let states = async || {
        let shown = mesh.front().endpoints("web").await;
        let mut states: Vec<String> = shown.into_iter().map(|it| it.health).collect();
        states.sort();
        states
    };
    let all_heard = vec!["HEALTHY"; HEARD + SILENT];
    eventually("all are routed to", SOON, async || states().await == all_heard).await;
    silent.into_iter().for_each(Process::kill);
    let some_silent = [vec!["DEGRADED"; SILENT], vec!["HEALTHY"; HEARD]].concat();
    eventually("Envoy uses the silent last", LATE, async || states().await == some_silent).await;

    let asked = || silent_apps.iter().map(|it| it.asked().len()).sum::<usize>();
    let before = asked();
    for _ in 0..100 {
        assert_eq!(http::get(mesh.front().http, "web", "/").await.unwrap().status, 200);
    }
    assert_eq!(asked(), before, "a silent instance is asked while others are heard");

    let disco = server.to_string();
    let ask = async |args: &[&str]| cli::quorate(&[args, &["--disco", &disco]].concat()).await;
    let status = ask(&["status"]).await;
    assert_eq!(status.code, 5, "{status:?}");
    let told = format!("{SILENT} of {} instances of service `web` are silent", HEARD + SILENT);
    assert!(status.stdout.contains(&told), "{status:?}");
    let metrics = http::get(mesh.disco[0].admin(), "admin", "/metrics").await.unwrap().body;
    let alarm = format!("quorate_disco_instances_silent {SILENT}");
    assert!(metrics.lines().any(|line| line == alarm), "{metrics}");

    ask(&["deregister", "--silent", "--service", "web"]).await.ok();
    let only_heard = vec!["HEALTHY"; HEARD];
    eventually("the silent are gone", SOON, async || states().await == only_heard).await;
    assert_eq!(ask(&["deregister", "--silent"]).await.code, 3, "nobody is silent");
    for process in heard {
        assert_eq!(process.terminate().await.code(), Some(0));
    }
}

/// An owner of an instance of `web`, which renews it until it is ended.
fn registrar(
    directory: &Path,
    name: &str,
    server: SocketAddr,
    id: &str,
    address: SocketAddr,
) -> Process {
    let (disco, address) = (server.to_string(), address.to_string());
    let args = ["register", "--service", "web", "--id", id, "--address", &address];
    let args: Vec<String> =
        args.into_iter().chain(["--disco", &disco]).map(str::to_owned).collect();
    Process::start(name, directory, cli::binary(), &args)
}
