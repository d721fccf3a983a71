//! `quorate register` as a process: how it begins, what it passes on, and how it ends.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use harness::{
    Process, Server,
    address::{free, next_ip},
    cli, eventually, eventually_some,
    registry::Registry,
    wait::{SOON, eventually_eq},
};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use proto::quorate::v1::{Health, Instance};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, timeout},
};

/// What every part promises for a clean stop.
const STOP: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_program_that_crashes_is_gone_with_its_exit_code() {
    let disco = Disco::start().await;
    let ended = disco.registrar("orders-1", free(next_ip(), 8000), &["--", "sh", "-c", "exit 23"]);
    assert_eq!(disco.run(&ended).await.code, 23);
    assert_eq!(disco.instances().await, []);

    // And one that was registered first.
    let script = "until [ -e crash ]; do sleep 0.05; done; exit 24";
    let directory = disco.path().display().to_string();
    let script = format!("cd {directory}; {script}");
    let address = free(next_ip(), 8000);
    let args = disco.registrar("orders-1", address, &["--", "sh", "-c", &script]);
    let mut process = disco.spawn("crashing", &args);
    disco.until(&[("orders-1", address, Health::Healthy)]).await;
    fs::write(disco.path().join("crash"), "").unwrap();
    assert_eq!(process.wait(SOON).await.code(), Some(24));
    assert_eq!(disco.instances().await, []);
}

#[tokio::test]
async fn signals_reach_the_program() {
    let disco = Disco::start().await;
    let script = "trap 'echo reloaded' HUP; trap 'exit 6' TERM; echo trapped; \
                  while :; do sleep 0.05; done";
    let address = free(next_ip(), 8000);
    let more = ["--drain", "100ms", "--", "sh", "-c", script];
    let process = disco.spawn("program", &disco.registrar("orders-1", address, &more));
    let says = async |word: &str| {
        let line = || process.output().lines().any(|line| line == word);
        eventually(word, SOON, async || line()).await;
    };
    says("trapped").await;
    disco.until(&[("orders-1", address, Health::Healthy)]).await;
    process.signal(Signal::SIGHUP);
    says("reloaded").await;
    assert_eq!(process.terminate().await.code(), Some(6), "the program's own answer to SIGTERM");
    assert_eq!(disco.instances().await, []);
}

#[tokio::test]
async fn an_id_that_is_anothers_is_refused_and_stays_with_its_holder() {
    let disco = Disco::start().await;
    let (address, other) = (free(next_ip(), 8000), free(next_ip(), 8000));
    let holder = disco.spawn("holder", &disco.registrar("orders-1", address, &[]));
    let held = [("orders-1", address, Health::Healthy)];
    disco.until(&held).await;

    // With a program that ends at once, with one that goes on, and without any.
    let crash = disco.registrar("orders-1", other, &["--", "sh", "-c", "exit 9"]);
    let crashed = disco.run(&crash).await.code;
    assert!([7, 9].contains(&crashed), "whichever ends first: {crashed}");
    disco.until(&held).await;
    for command in [&["--", "sleep", "1000"][..], &[]] {
        let refused = disco.run(&disco.registrar("orders-1", other, command)).await;
        assert_eq!(refused.code, 7, "{refused:#?}");
        assert!(refused.stderr.contains("held by another"), "{refused:#?}");
        assert!(refused.stderr.contains(&address.to_string()), "{refused:#?}");
        assert_eq!(disco.instances().await, held.map(owned));
    }
    assert_eq!(holder.terminate().await.code(), Some(0));
    assert_eq!(disco.instances().await, []);
}

#[tokio::test]
async fn an_instance_is_unhealthy_until_its_first_check_succeeds() {
    let disco = Disco::start().await;
    let address = free(next_ip(), 8000);
    let app = TcpListener::bind(address).await.unwrap();
    let more = ["--check", "http:/ready", "--check-interval", "1h"];
    let process = disco.spawn("checked", &disco.registrar("orders-1", address, &more));
    // The check is under way, and its answer is ours to give.
    let (mut check, _) = app.accept().await.unwrap();
    disco.until(&[("orders-1", address, Health::Unhealthy)]).await;
    let mut request = [0; 1024];
    assert_ne!(check.read(&mut request).await.unwrap(), 0);
    check.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    drop(check);
    disco.until(&[("orders-1", address, Health::Healthy)]).await;
    assert_eq!(process.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_disco_that_hangs_does_not_hold_up_a_stop() {
    let disco = Disco::start().await;
    let address = free(next_ip(), 8000);
    let args = disco.registrar("orders-1", address, &["--", "sleep", "1000"]);
    let registered = disco.spawn("registered", &args);
    disco.until(&[("orders-1", address, Health::Healthy)]).await;
    disco.server.signal(Signal::SIGSTOP);
    let asked = Instant::now();
    let code = registered.terminate().await.code();
    let took = asked.elapsed();
    disco.server.signal(Signal::SIGCONT);
    assert_eq!(code, Some(143), "the program was asked to stop");
    assert!(took < STOP, "{took:?}");

    // Nor does one that has never answered.
    for (command, code) in [(&["--", "sleep", "1000"][..], 143), (&["--timeout", "1h"], 0)] {
        let black_hole = TcpListener::bind((next_ip(), 0)).await.unwrap();
        let hole = black_hole.local_addr().unwrap();
        let waiting = disco.spawn("waiting", &registrar(hole, "orders-2", address, command));
        let (_question, _) = timeout(SOON, black_hole.accept()).await.unwrap().unwrap();
        let asked = Instant::now();
        assert_eq!(waiting.terminate().await.code(), Some(code), "{command:?}");
        assert!(asked.elapsed() < STOP, "{command:?}: {:?}", asked.elapsed());
    }
}

/// P3: a reader of the log that goes away takes neither the program nor the instance with it, and
/// leaves neither of them behind.
#[tokio::test]
async fn nobody_has_to_read_what_a_registrar_tells() {
    let disco = Disco::start().await;
    let address = free(next_ip(), 8000);
    let file = disco.path().join("program");
    // The program's own errors go elsewhere: a shell that nobody reads is ended by SIGPIPE.
    let script = format!(
        "exec 2>/dev/null; trap 'exit 0' TERM; echo $$ >{0}.new; mv {0}.new {0}; sleep 1000 & wait",
        file.display()
    );
    let more = ["--log", "debug", "--drain", "100ms", "--", "sh", "-c", &script];
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(cli::binary());
    command.args(disco.registrar("orders-1", address, &more));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let written = async || fs::read_to_string(&file).ok();
    let program = eventually_some("the program runs", SOON, written).await;
    disco.until(&[("orders-1", address, Health::Healthy)]).await;
    assert!(child.try_wait().unwrap().is_none(), "it goes on");

    let id = Pid::from_raw(i32::try_from(child.id()).unwrap());
    signal::kill(id, Signal::SIGTERM).unwrap();
    let ended = async || child.try_wait().unwrap();
    let ended = eventually_some("it stops", SOON, ended).await;
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert!(!Path::new("/proc").join(program.trim()).exists(), "its program goes on");
    assert_eq!(disco.instances().await, []);
}

/// U13: ids are often addresses, whose `:` the command line once let in and not out again.
#[tokio::test]
async fn an_instance_is_deregistered_by_whatever_id_it_was_registered_under() {
    let disco = Disco::start().await;
    let address = free(next_ip(), 8000);
    let id = address.to_string();
    let process = disco.spawn("killed", &disco.registrar(&id, address, &["--ttl", "5m"]));
    disco.until(&[(id.as_str(), address, Health::Healthy)]).await;
    // Its owner would register it again.
    process.kill();
    let server = disco.server.mesh().to_string();
    let own = ["--service", "orders", "--id", &id, "--disco", &server];
    let told = cli::quorate(&[&["deregister"], &own[..]].concat()).await.ok();
    assert_eq!(told, format!("deregistered {id} of orders\n"));
    assert_eq!(disco.instances().await, []);
}

/// One DISCO server, and the instances of `orders` that it knows.
struct Disco {
    server: Server,
    directory: TempDir,
}

impl Disco {
    async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let mut server = Server::new(directory.path(), "disco", "all");
        server.start();
        eventually("the server is ready", SOON, async || server.is_ready().await).await;
        Self { server, directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn registrar(&self, id: &str, address: SocketAddr, more: &[&str]) -> Vec<String> {
        registrar(self.server.mesh(), id, address, more)
    }

    fn spawn(&self, name: &str, args: &[String]) -> Process {
        Process::start(name, self.path(), cli::binary(), args)
    }

    async fn run(&self, args: &[String]) -> cli::Output {
        cli::quorate(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    async fn instances(&self) -> Vec<Listed> {
        let instances = Registry::at(self.server.mesh()).instances("orders").await.unwrap();
        instances.into_iter().map(listed).collect()
    }

    async fn until(&self, expected: &[(&str, SocketAddr, Health)]) {
        let expected: Vec<_> = expected.iter().copied().map(owned).collect();
        let instances = async || self.instances().await;
        eventually_eq("the registry lists", SOON, expected, instances).await;
    }
}

type Listed = (String, String, Health);

fn listed(instance: Instance) -> Listed {
    let health = instance.health();
    (instance.id, instance.address, health)
}

fn owned((id, address, health): (&str, SocketAddr, Health)) -> Listed {
    (id.to_owned(), address.to_string(), health)
}

fn registrar(disco: SocketAddr, id: &str, address: SocketAddr, more: &[&str]) -> Vec<String> {
    let (disco, address) = (disco.to_string(), address.to_string());
    let own = ["--service", "orders", "--id", id, "--address", &address, "--disco", &disco];
    let args = [&["register"], &own[..], more].concat();
    args.into_iter().map(str::to_owned).collect()
}
