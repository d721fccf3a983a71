//! What surrounds the process: the files it may open, whoever reads what it tells, and clients that
//! spell things in their own way.

use std::process::{Command, Stdio};

use harness::{
    Process, Server, cli, eventually, http,
    kv::Kv,
    wait::{SOON, eventually_eq},
};
use nix::sys::signal::{self, Signal};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::Code;

/// Fewer than the callers of the test.
const OPEN_FILES: usize = 600;
const CALLERS: usize = 900;

/// More than the 2 MiB that a message to the etcd API may have.
const TOO_LARGE: usize = 3 << 20;

/// etcd#2928, consul#3886: idle connections must neither stop the server nor keep others out for good.
#[tokio::test]
async fn more_callers_than_open_files_do_no_harm() {
    let directory = TempDir::new().unwrap();
    let server = Server::new(directory.path(), "few-files", "all");
    let limited = format!("ulimit -n {OPEN_FILES}; exec \"$0\" \"$@\"");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "sh", "-c", &limited]);
    command.arg(cli::binary()).args(server.args());
    let mut process = Process::start_command("few-files", directory.path(), command);
    let mut kv = Kv::at(server.kv());
    eventually("a write succeeds", SOON, async || kv.put("first", "1").await.is_ok()).await;

    let mut callers = Vec::new();
    for port in [server.kv(), server.mesh(), server.admin()] {
        for _ in 0..CALLERS {
            callers.push(TcpStream::connect(port).await.unwrap());
        }
    }
    // Who was there before is served, with files of the database made all the while.
    for number in 0..200 {
        kv.put("during", &number.to_string()).await.unwrap();
    }
    assert!(process.ended().is_none());
    assert!(process.output().contains("LimitNOFILE"), "the full port is told of, with the remedy");
    drop(callers);
    // And who comes afterwards.
    eventually("a new caller is served", SOON, async || {
        Kv::at(server.kv()).get("during").await.is_ok() && server.is_ready().await
    })
    .await;
    assert_eq!(process.terminate().await.code(), Some(0));
}

/// consul#1688, nomad#1798: a reader of the log that restarts takes nobody with it.
#[tokio::test]
async fn nobody_has_to_read_standard_error() {
    let directory = TempDir::new().unwrap();
    let server = Server::new(directory.path(), "unread", "all");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(cli::binary()).args(server.args());
    command.args(["--log", "debug"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let mut kv = Kv::at(server.kv());
    eventually("a write succeeds", SOON, async || kv.put("first", "1").await.is_ok()).await;
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    signal::kill(id, Signal::SIGTERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(0), "{ended:?}");
}

/// etcd's client sends the endpoint as it was given as its `:authority`, which may be none.
#[tokio::test]
async fn endpoints_may_be_written_as_etcd_takes_them() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "single", "all");
    server.start();
    let mut kv = Kv::at(server.kv());
    eventually("a write succeeds", SOON, async || kv.put("a", "1").await.is_ok()).await;
    for endpoint in [server.kv().to_string(), format!("http://{}", server.kv())] {
        let etcdctl = async |args: &[&str]| cli::etcdctl(&endpoint, args).await.ok();
        for _ in 0..3 {
            assert_eq!(etcdctl(&["get", "a"]).await, "a\n1\n", "{endpoint}");
        }
        let status = etcdctl(&["endpoint", "status", "--cluster"]).await;
        assert!(status.contains(&format!("http://{}", server.kv())), "{status}");
        etcdctl(&["endpoint", "health", "--cluster"]).await;
    }
}

/// P11: to the library it is `OUT_OF_RANGE`, which is etcd's word for a compacted revision.
#[tokio::test]
async fn a_message_over_the_limit_of_the_etcd_api_exhausts_resources() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "single", "all");
    server.start();
    let mut kv = Kv::at(server.kv());
    eventually("a write succeeds", SOON, async || kv.put("a", "1").await.is_ok()).await;
    let refused = kv.put("large", &"v".repeat(TOO_LARGE)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("the message is too large"), "{refused}");
    assert_eq!(kv.get("large").await.unwrap(), None);
}

/// etcd answers these on the port of its clients, and load balancers ask them.
#[tokio::test]
async fn the_kv_port_answers_health_and_version_over_http() {
    let directory = TempDir::new().unwrap();
    let mut server = Server::new(directory.path(), "single", "all");
    server.start();
    let ask = async |path| http::get(server.kv(), "kv", path).await;
    let healthy = async || ask("/health").await.ok().map(|answer| (answer.status, answer.body));
    eventually_eq(
        "the KV port is healthy",
        SOON,
        Some((200, "{\"health\":\"true\"}".to_owned())),
        healthy,
    )
    .await;
    let version = ask("/version").await.unwrap();
    assert_eq!(version.status, 200);
    assert!(version.body.contains("\"etcdserver\":\"3."), "{}", version.body);
    assert_eq!(ask("/nothing").await.unwrap().status, 404);
}
