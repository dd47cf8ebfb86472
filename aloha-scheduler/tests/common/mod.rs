//! The real binary, as processes that end with the test.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod gates;
pub mod moments;
pub mod ports;
pub mod zookeeper;

use std::ffi::OsStr;
use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Far above what anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(
    clippy::disallowed_methods,
    reason = "tests measure, and those that fail shall not wait for ever"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// The command `aloha`, with nothing of the tester's environment in it.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aloha"));
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("ALOHA_") || name == "RUST_LOG")
    {
        command.env_remove(name);
    }
    command
}

/// The arguments of a master that comes back at this port with what it stored in this directory.
pub fn durable_master(port: u16, directory: &Path) -> Vec<String> {
    let (port, directory) = (port.to_string(), directory.display());
    let directory = format!("aloha.deploy.recoveryDirectory={directory}");
    let fixed = ["master", "-p", &port, "--rest-port", "0", "-D"];
    let mode = ["aloha.deploy.recoveryMode=FILESYSTEM", "-D", &directory];
    fixed.into_iter().chain(mode).map(str::to_owned).collect()
}

/// A master, a worker or a whole cluster.
pub struct Daemon {
    process: Child,
    pub rpc: String,
    pub rest: Option<String>,
    stderr: Receiver<String>,
}

impl Daemon {
    /// Starts `aloha` with these arguments and waits for its `ready` line.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_by(command(), arguments)
    }

    /// The same, by a command that ends up as `aloha`.
    pub fn start_by(mut command: Command, arguments: &[impl AsRef<OsStr> + Debug]) -> Self {
        let mut process = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let (lines, stderr) = channel();
        let err = process.stderr.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                // Nobody may be interested any more.
                drop(lines.send(line));
            }
        });
        let mut out = BufReader::new(process.stdout.take().expect("piped"));
        let mut ready = String::new();
        out.read_line(&mut ready).expect("a line on stdout");
        // The rest is read, lest the pipe fills.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let mut words = ready.split_whitespace();
        let is_ready = words.next() == Some("ready");
        assert!(
            is_ready,
            "{arguments:?}: {:?}",
            stderr.try_iter().collect::<Vec<_>>()
        );
        let rpc = words.nth(1).expect("the RPC address").to_owned();
        let rest = words
            .next()
            .and_then(|word| word.strip_prefix("rest="))
            .map(str::to_owned);
        Self {
            process,
            rpc,
            rest,
            stderr,
        }
    }

    /// A master, a worker of two cores and 2 GiB, and REST, in one process.
    pub fn local(directory: &Path) -> Self {
        Self::local_with(directory, &[])
    }

    pub fn local_with(directory: &Path, more: &[&str]) -> Self {
        let directory = directory.to_str().expect("UTF-8");
        let arguments = [
            "local",
            "-c",
            "2",
            "-m",
            "2G",
            "-p",
            "0",
            "--rest-port",
            "0",
            "-d",
            directory,
        ];
        let this = Self::start(&[&arguments, more].concat());
        this.wait_for_line("worker registered");
        this
    }

    pub fn master(more: &[&str]) -> Self {
        Self::start(&[&["master", "-p", "0", "--rest-port", "0"], more].concat())
    }

    /// A worker of two cores and 1 GiB, once `master` has taken it.
    pub fn worker(master: &Self, directory: &Path) -> Self {
        let this = Self::worker_of(&master.rpc, directory);
        master.wait_for_line("worker registered");
        this
    }

    /// A worker that ends its applications when the test ends.
    pub fn worker_of(master: &str, directory: &Path) -> Self {
        Self::worker_with(master, directory, &["--stop-applications"])
    }

    pub fn worker_with(master: &str, directory: &Path, more: &[&str]) -> Self {
        Self::worker_offering(master, directory, "2", "1G", more)
    }

    pub fn worker_offering(
        master: &str,
        directory: &Path,
        cores: &str,
        memory: &str,
        more: &[&str],
    ) -> Self {
        let directory = directory.to_str().expect("UTF-8");
        let fast = "aloha.worker.register.backoff.max=100ms";
        let faster = "aloha.worker.register.backoff.initial=50ms";
        let fixed = [
            "worker", "-c", cores, "-m", memory, "-d", directory, "-D", fast, "-D", faster,
        ];
        Self::start(&[&fixed[..], more, &[master]].concat())
    }

    pub fn rest(&self) -> &str {
        self.rest.as_deref().expect("it serves REST")
    }

    /// Waits for a line of the log with this text.
    #[track_caller]
    pub fn wait_for_line(&self, text: &str) -> String {
        let mut seen = self.wait_for_lines(&[text.to_owned()]);
        seen.pop().expect("the line waited for")
    }

    /// Waits until each of these texts was in some line of the log, in any order; gives all lines up to there.
    #[track_caller]
    pub fn wait_for_lines(&self, texts: &[String]) -> Vec<String> {
        // Other lines may come for ever.
        let give_up_at = now() + PATIENCE;
        let mut missing: Vec<&String> = texts.iter().collect();
        let mut seen = Vec::new();
        while !missing.is_empty() {
            let left = give_up_at.saturating_duration_since(now());
            match self.stderr.recv_timeout(left) {
                Ok(line) => {
                    missing.retain(|text| !line.contains(*text));
                    seen.push(line);
                }
                Err(error) => panic!("no lines with {missing:?} ({error}): {seen:#?}"),
            }
        }
        seen
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is our child and not reaped");
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().expect("it is our child")
    }

    /// Runs a client command against this master.
    pub fn ask(&self, arguments: &[&str]) -> Answer {
        Answer::of(command().env("ALOHA_MASTER", &self.rpc).args(arguments))
    }

    /// Submits a line for bash; gives the id.
    pub fn submit(&self, script: &str) -> String {
        self.submit_with(script, &[])
    }

    pub fn submit_with(&self, script: &str, flags: &[&str]) -> String {
        let fixed = [
            "submit",
            "--entry-point",
            "SimpleProcess",
            "--memory",
            "128",
        ];
        let answer = self.ask(&[&fixed[..], flags, &["--", script]].concat());
        assert_eq!((answer.code, &*answer.stderr), (Some(0), ""));
        answer.stdout.trim().to_owned()
    }

    /// The JSON of `aloha status`.
    pub fn status(&self, id: &str) -> serde_json::Value {
        let answer = self.ask(&["status", "--json", id]);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        serde_json::from_str(&answer.stdout).expect("JSON")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // TERM first: it ends its applications.
        let _ = kill_process(self.pid(), Signal::TERM);
        drop(self.process.wait());
    }
}

/// What a client command said.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = command.output().expect("the binary is built");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: status.code(),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }
}

#[track_caller]
pub fn assert_ends(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let found = (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    );
    assert_eq!(found, (Some(code), stdout.to_owned(), stderr.to_owned()));
}

/// The processes that carry an application's id and its master in their environment. Ids alone may repeat between
/// clusters that know nothing of each other.
pub fn processes_of(id: &str, master: &str) -> Vec<String> {
    let wanted = [
        format!("ALOHA_APP_ID={id}"),
        format!("ALOHA_MASTER={master}"),
    ];
    let carries = |path: &Path| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let has = |wanted: &String| {
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes())
        };
        wanted.iter().all(has)
    };
    let entries = std::fs::read_dir("/proc").expect("a system with /proc");
    let paths = entries.map_while(Result::ok).map(|entry| entry.path());
    paths
        .filter(|path| carries(path))
        .map(|path| path.display().to_string())
        .collect()
}

/// A record of the runner of an application, by its name: `run`, `launch` or `exit`.
pub fn record(work: &Path, id: &str, name: &str) -> serde_json::Value {
    let path = work.join(id).join(format!(".aloha/{name}.json"));
    let text = std::fs::read_to_string(path).expect("it is recorded");
    serde_json::from_str(&text).expect("JSON")
}

/// The runner of an application that has begun.
pub fn runner_of(work: &Path, id: &str) -> Pid {
    let pid = record(work, id, "run")["pid"].as_i64();
    let pid = pid.and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).expect("a pid")
}

/// Waits until the runner of an application has ended: until then it has the lock.
pub fn wait_for_runner(work: &Path, id: &str) {
    let lock = std::fs::File::open(work.join(id).join(".aloha/lock"));
    lock.and_then(|lock| lock.lock()).expect("it can be locked");
}

/// The cgroups below those of the machine whose name `is_wanted`.
pub fn cgroups(is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut ahead = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(group) = ahead.pop() {
        // Others make and remove some meanwhile.
        let entries = std::fs::read_dir(group).into_iter().flatten();
        for entry in entries.map_while(Result::ok) {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_str().is_some_and(&is_wanted) {
                found.push(entry.path());
            }
            ahead.push(entry.path());
        }
    }
    found
}

/// A named pipe: the line that an application writes into it tells how far it is.
pub struct Pipe(pub PathBuf);

impl Pipe {
    pub fn new(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a new pipe");
        Self(path)
    }

    /// Waits for a writer and reads what it writes.
    pub fn read(&self) -> String {
        std::fs::read_to_string(&self.0).expect("a pipe")
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}
