//! The command line: exit codes, and that a refusal leaves nothing behind.

use std::{fs, net::TcpListener};

use harness::{
    Server,
    address::{free, next_ip},
    cli::{Output, quorate, quorate_with},
    envoy, eventually,
    wait::{SOON, eventually_eq},
};
use tempfile::TempDir;

#[tokio::test]
async fn a_server_that_is_told_no_services_does_not_start() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let wrong: [&[&str]; 4] = [
        &["serve", "--data-dir", data_dir],
        &["serve", "--data-dir", data_dir, "--services", ""],
        &["serve", "--data-dir", data_dir, "--services", "disco,cache"],
        &["serve", "--data-dir", data_dir, "--services", ","],
    ];
    for args in wrong {
        let output = quorate(args).await;
        assert_eq!(output.code, 2, "{args:?}: {output:#?}");
        for word in ["services", "disco", "data", "all"] {
            assert!(output.stderr.contains(word), "{args:?}: {output:#?}");
        }
        assert_eq!(entries(&directory), 0, "{args:?} made something");
    }
    let output =
        quorate_with(&[("QUORATE_SERVICES", "cash")], &["serve", "--data-dir", data_dir]).await;
    assert_eq!(output.code, 2, "{output:#?}");
    assert!(output.stderr.contains("cash"), "{output:#?}");
    assert_eq!(entries(&directory), 0);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let data_dir = data_dir.to_str().unwrap();
    let serve = async |args: &[&str]| {
        quorate(&[&["serve", "--data-dir", data_dir, "--services", "all"], args].concat()).await
    };
    assert_refused(&serve(&["--listen", "disco.example:7400"]).await, "disco.example");
    assert_refused(&serve(&["--listen", "127.0.0.1"]).await, "127.0.0.1");
    assert_refused(&serve(&["--lissten", "127.0.0.1:1"]).await, "--lissten");
    let file = directory.path().join("quorate.toml");
    fs::write(&file, "services = \"all\"\nlissten = \"127.0.0.1:1\"\n").unwrap();
    assert_refused(&serve(&["--config", file.to_str().unwrap()]).await, "lissten");
    let alone = quorate(&["serve", "--data-dir", data_dir, "--services", "data"]).await;
    assert_refused(&alone, "--disco");
    assert_eq!(entries(&directory), 1, "only the file that the test made");
}

#[tokio::test]
async fn a_data_directory_of_another_role_or_mesh_is_refused() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "first", "all");
    server.start();
    eventually("the server is ready", SOON, async || server.is_ready().await).await;
    let held = serve_again(&server, "all", &[]).await;
    assert_ne!(held.code, 0, "another process holds the directory: {held:#?}");
    server.terminate().await;

    let identity = snapshot(&server);
    let other_role = serve_again(&server, "disco", &[]).await;
    assert_eq!(other_role.code, 7, "{other_role:#?}");
    assert!(other_role.stdout.starts_with("REFUSED: "), "{other_role:#?}");
    let mesh = "00000000-0000-4000-8000-000000000000";
    let other_mesh = serve_again(&server, "all", &["--mesh", mesh]).await;
    assert_eq!(other_mesh.code, 7, "{other_mesh:#?}");
    assert!(other_mesh.stdout.starts_with("REFUSED: "), "{other_mesh:#?}");
    assert!(other_mesh.stdout.contains(mesh), "{other_mesh:#?}");
    assert_eq!(snapshot(&server), identity, "a refusal changed the data directory");

    let blank = Server::new(directory.path(), "blank", "all");
    let other_mesh = serve_again(&blank, "all", &["--mesh", mesh]).await;
    assert_eq!(other_mesh.code, 7, "alone it would form another mesh: {other_mesh:#?}");
    assert!(other_mesh.stdout.contains("REFUSED: "), "{other_mesh:#?}");
    assert!(other_mesh.stdout.contains(mesh), "{other_mesh:#?}");

    let _taken = TcpListener::bind(server.mesh()).unwrap();
    let args = with_services(&server, "disco");
    let hidden = quorate(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(hidden.code, 7, "a clash of ports hides the wrong directory: {hidden:#?}");
}

#[tokio::test]
async fn a_port_that_is_taken_leaves_no_trace() {
    let directory = TempDir::new().unwrap();
    let server = Server::new(directory.path(), "first", "all");
    let _taken = TcpListener::bind(server.kv()).unwrap();
    let args = server.args();
    let clash = quorate(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(clash.code, 1, "{clash:#?}");
    assert!(clash.stderr.contains(&server.kv().to_string()), "{clash:#?}");
    assert!(clash.stderr.contains("--kv-listen"), "{clash:#?}");
    assert!(!server.data_dir().exists(), "the data directory was made");
}

#[tokio::test]
async fn exit_codes_tell_what_happened() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "single", "all");
    server.start();
    eventually("the server is ready", SOON, async || server.is_ready().await).await;
    let disco = server.mesh().to_string();
    let ask = async |args: &[&str]| quorate(&[args, &["--disco", &disco]].concat()).await;

    assert_eq!(ask(&["members"]).await.code, 0);
    let group = async || ask(&["group", "show", "default"]).await.code;
    eventually_eq("the mesh has a data group that is well", SOON, 0, group).await;
    assert_eq!(ask(&["groups"]).await.code, 0);
    assert_eq!(ask(&["endpoints", "nothing"]).await.code, 3, "none found");
    assert_eq!(ask(&["deregister", "--service", "no", "--id", "no"]).await.code, 3, "none found");
    let nobody = free(next_ip(), 7400).to_string();
    assert_eq!(quorate(&["members", "--disco", &nobody]).await.code, 4, "nobody answers");
    let init = quorate(&["init", "--servers", &disco]).await;
    assert_eq!(init.code, 7, "it belongs to a mesh already: {init:#?}");
    let init = quorate(&["init", "--servers", &nobody]).await;
    assert_eq!(init.code, 4, "nobody answers: {init:#?}");
    assert_eq!(quorate(&["members", "--nonsense"]).await.code, 2);

    let members = ask(&["members", "--format", "json"]).await.json();
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1), "{members:#}");
    let unknown = ask(&["endpoints", "nothing", "--format", "json"]).await;
    let error: serde_json::Value = serde_json::from_str(&unknown.stderr).unwrap();
    assert!(error.is_object(), "errors are JSON too: {unknown:#?}");
}

#[tokio::test]
async fn init_forms_nothing_while_a_server_is_missing() {
    let directory = TempDir::new().unwrap();
    let mut first = Server::new(directory.path(), "first", "disco");
    let mut second = Server::new(directory.path(), "second", "disco");
    let peers = [first.mesh(), second.mesh()];
    first = first.seeded("--peers", &peers);
    second = second.seeded("--peers", &peers);
    first.start();
    eventually("the server answers", SOON, async || first.is_alive().await).await;
    let servers = format!("{},{}", peers[0], peers[1]);
    let init = quorate(&["init", "--servers", &servers]).await;
    assert_eq!(init.code, 4, "{init:#?}");
    second.start();
    eventually("the server answers", SOON, async || second.is_alive().await).await;
    let init = quorate(&["init", "--servers", &servers]).await;
    assert_eq!(init.code, 0, "the failed attempt left nothing behind: {init:#?}");
    let again = quorate(&["init", "--servers", &servers]).await;
    assert_eq!(again.code, 7, "{again:#?}");
    let needed = quorate(&["init", "--if-needed", "--servers", &servers]).await;
    assert_eq!(needed.code, 0, "{needed:#?}");
}

/// U4: a mesh is formed for good, so a list that the servers were not told is refused.
#[tokio::test]
async fn init_forms_what_the_servers_were_told_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let mut servers = crate::modes::started(directory.path(), "disco");
    for server in &servers {
        eventually("the server answers", SOON, async || server.is_alive().await).await;
    }
    let [one, two, three] = [0, 1, 2].map(|n| servers[n].mesh().to_string());
    let init = async |servers: &str, flags: &[&str]| {
        quorate(&[&["init", "--servers", servers], flags].concat()).await
    };
    let twice = init(&format!("{one},{two},{two}"), &[]).await;
    assert_refused(&twice, "twice");
    for subset in [one.clone(), format!("{one},{two}")] {
        let refused = init(&subset, &[]).await;
        assert_eq!(refused.code, 7, "{refused:#?}");
        assert!(refused.stderr.contains(&three), "{refused:#?}");
        assert!(refused.stderr.contains("--subset"), "{refused:#?}");
    }
    let mut stranger = Server::new(directory.path(), "stranger", "disco");
    stranger = stranger.seeded("--peers", &servers.iter().map(Server::mesh).collect::<Vec<_>>());
    stranger.start();
    eventually("the server answers", SOON, async || stranger.is_alive().await).await;
    let superset = init(&format!("{one},{two},{three},{}", stranger.mesh()), &[]).await;
    assert_eq!(superset.code, 7, "{superset:#?}");
    assert!(superset.stderr.contains("was not told of"), "{superset:#?}");

    // The third server is down, and its operator does without it.
    servers[2].kill();
    assert_eq!(init(&format!("{one},{two}"), &["--subset"]).await.code, 0);
}

/// compose.yaml mounts these two files; they are what the binary prints.
#[tokio::test]
async fn the_bootstraps_of_compose_are_what_the_binary_prints() {
    let disco = "--disco=10.77.0.11:7400,10.77.0.12:7400,10.77.0.13:7400";
    let front =
        ["--front=0.0.0.0:8080,0.0.0.0:2379", "--admin-port=0.0.0.0:9901", "--node-id=front"];
    let inbound = "--inbound=0.0.0.0:8080=127.0.0.1:3000";
    let sidecar = ["--service=web", "--node-id=web", inbound];
    let files: [(&str, &[&str]); 2] = [("front.yaml", &front), ("sidecar.yaml", &sidecar)];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy");
    for (name, args) in files {
        // A file that is mounted before there is a mesh cannot name it.
        let unnamed = ["envoy", "bootstrap", disco, "--mesh=none"];
        let printed = quorate(&[&unnamed, args].concat()).await.ok();
        let path = folder.join(name);
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            fs::write(&path, &printed).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), printed, "{name}; set UPDATE_GOLDENFILES=1");
        let validated = envoy::validate(&path).await;
        assert_eq!(validated.code, 0, "{name}: {validated:#?}");
    }
}

fn assert_refused(output: &Output, named: &str) {
    assert_eq!(output.code, 2, "{output:#?}");
    assert!(output.stderr.contains(named), "{named} is not named: {output:#?}");
}

/// Starts another server on the same data directory, with other services or flags.
async fn serve_again(server: &Server, services: &str, more: &[&str]) -> Output {
    let mut other = with_services(server, services);
    for flag in ["--listen", "--kv-listen", "--admin-listen"] {
        let position = other.iter().position(|arg| arg == flag).unwrap();
        other[position + 1] = free(next_ip(), 7400).to_string();
    }
    let mut args: Vec<&str> = other.iter().map(String::as_str).collect();
    args.extend(more);
    quorate(&args).await
}

/// The server's own arguments with other services.
fn with_services(server: &Server, services: &str) -> Vec<String> {
    let mut args = server.args();
    let position = args.iter().position(|arg| arg == "--services").unwrap();
    args[position + 1] = services.to_owned();
    args
}

/// Names and contents of the files directly in a data directory.
fn snapshot(server: &Server) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(server.data_dir())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

fn entries(directory: &TempDir) -> usize {
    fs::read_dir(directory.path()).unwrap().count()
}
