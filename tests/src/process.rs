//! A child process that ends with the test, by its id, and shows its output if the test fails.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::wait::eventually_some;

/// How much of its output a process shows when the test fails.
const SHOWN_LINES: usize = 60;

/// Where a line of it is cut.
const SHOWN_WIDTH: usize = 480;

/// Longer than the ten seconds within which every part must stop cleanly.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// A running or ended child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts a program with its output in `DIRECTORY/NAME.log`, after what is there already.
    ///
    /// The child dies with the thread that started it, so call this from the test's own thread.
    pub fn start(name: &str, directory: &Path, program: impl AsRef<Path>, args: &[String]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program.as_ref()).args(args);
        Self::start_command(name, directory, command)
    }

    /// Starts a command as it is; the caller sees to it that it cannot outlive the test.
    pub fn start_command(name: &str, directory: &Path, mut command: Command) -> Self {
        let output = directory.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&output)
            .expect("the test's directory is writable");
        let errors = file.try_clone().expect("a file handle can be doubled");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self { name: name.to_owned(), child, output }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that the process has written so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// How many connections the process has to an address.
    pub fn connections_to(&self, address: SocketAddr) -> usize {
        let (to, own) = (address.to_string(), format!("pid={},", self.id()));
        let mut ss = Command::new("ss");
        ss.args(["--no-header", "--numeric", "--tcp", "--processes", "state", "established"]);
        let listed = ss.args(["dst", &to]).output().expect("ss is installed");
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.contains(&own)).count()
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("process ids are small");
        signal::kill(Pid::from_raw(id), signal).expect("a child that was not awaited has its id");
    }

    /// Ends the process as a power cut would.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks the process to stop and awaits its end.
    pub async fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait(STOP_DEADLINE).await
    }

    /// Awaits the end of the process.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually_some(&what, deadline, async || self.ended()).await
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be awaited")
    }

    fn end(&mut self) {
        if self.ended().is_none() {
            self.child.kill().expect("a child that was not awaited has its id");
            self.child.wait().expect("a child can be awaited");
        }
    }

    fn show(&self) {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let skipped = lines.len().saturating_sub(SHOWN_LINES);
        eprintln!("--- {} (process {}, {skipped} lines above)", self.name, self.id());
        for line in &lines[skipped..] {
            let cut: String = line.chars().take(SHOWN_WIDTH).collect();
            eprintln!("    {cut}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            self.show();
        }
    }
}
