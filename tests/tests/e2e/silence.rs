//! Fleets whose owners die or fall silent at once.

use std::net::SocketAddr;

use harness::{
    Process, Server,
    address::{free, next_ip},
    cli, eventually,
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
                let address = free(next_ip(), 8000);
                let (id, text) = (format!("web-{n}"), address.to_string());
                let disco = server.mesh().to_string();
                let args = [
                    "register",
                    "--disco",
                    &disco,
                    "--service",
                    "web",
                    "--id",
                    &id,
                    "--address",
                    &text,
                ];
                let args: Vec<String> = args.iter().map(|it| (*it).to_owned()).collect();
                let name = format!("{id}-{generation}");
                (address, Process::start(&name, directory.path(), cli::binary(), &args))
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
