//! Commands that run to their end: `quorate`, `etcdctl`, `docker` and whatever else a test needs.

use std::{
    env,
    ffi::OsStr,
    fmt::Display,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

/// No command of the tests takes this long.
const DEADLINE: Duration = Duration::from_secs(180);

/// What a command left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output, of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:#?}");
        self.stdout
    }

    /// Standard output as JSON, of a command that must succeed.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }
}

/// The built binary: `QUORATE_BIN`, or where Cargo puts it beside the tests.
pub fn binary() -> PathBuf {
    env::var_os("QUORATE_BIN").map_or_else(
        || {
            let test = env::current_exe().expect("a process knows its program");
            let target = test.parent().and_then(Path::parent).expect("tests lie in TARGET/deps");
            target.join("quorate")
        },
        PathBuf::from,
    )
}

/// A Python with gRPC's own library, where `scripts/setup` has put it.
pub fn python() -> PathBuf {
    installed("QUORATE_PYTHON", "python")
}

/// Envoy's release binary, from the same place.
pub fn envoy() -> PathBuf {
    installed("QUORATE_ENVOY", "envoy-release")
}

/// etcd's server, a peer to compare with.
pub fn etcd() -> PathBuf {
    in_cache("QUORATE_ETCD", "etcd/usr/bin/etcd")
}

fn installed(variable: &str, name: &str) -> PathBuf {
    in_cache(variable, &format!("venv/bin/{name}"))
}

fn in_cache(variable: &str, path: &str) -> PathBuf {
    env::var_os(variable).map_or_else(
        || {
            let home = env::var_os("HOME").expect("there is a home directory");
            Path::new(&home).join(".cache/quorate").join(path)
        },
        PathBuf::from,
    )
}

/// Variables that would change what the binary does are for the tests to set, not to inherit.
pub fn inherited_flags() -> impl Iterator<Item = String> {
    env::vars().map(|(name, _)| name).filter(|name| name.starts_with("QUORATE_"))
}

/// Runs `quorate` with these arguments.
pub async fn quorate(args: &[&str]) -> Output {
    quorate_with(&[], args).await
}

/// Runs `quorate` with variables in its environment.
pub async fn quorate_with(environment: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    for name in inherited_flags() {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied()).args(args);
    finish(command).await
}

/// Runs `etcdctl` with version 3 of its API against one endpoint.
pub async fn etcdctl(endpoint: impl Display, args: &[&str]) -> Output {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoint}")).args(args);
    finish(command).await
}

/// Runs `etcdctl` with lines on its standard input, as `etcdctl txn` wants them.
pub async fn etcdctl_input(endpoint: SocketAddr, args: &[&str], input: &str) -> Output {
    let mut command = Command::new("sh");
    command
        .env("ETCDCTL_API", "3")
        .env("INPUT", input)
        .args(["-c", r#"printf '%s' "$INPUT" | etcdctl "$@""#, "etcdctl"])
        .arg(format!("--endpoints={endpoint}"))
        .args(args);
    finish(command).await
}

/// Runs any program.
pub async fn run(program: impl AsRef<OsStr>, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args);
    finish(command).await
}

/// Runs a program as root, which capturing and cutting networks need.
pub async fn run_as_root(program: &str, args: &[&str]) -> Output {
    if nix::unistd::geteuid().is_root() {
        run(program, args).await
    } else {
        run("sudo", &[&["-n", program], args].concat()).await
    }
}

/// Awaits a command's end and collects what it wrote.
pub async fn finish(mut command: Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output())
        .await
        .unwrap_or_else(|_| panic!("{command:?} does not end"))
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
