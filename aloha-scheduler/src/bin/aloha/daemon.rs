//! `aloha daemon`: a master or a worker in the background.
//!
//! `start` executes this program again as `aloha daemon run ROLE ARGS…` with its output in a log file, and waits for the
//! `ready` line there; `run` makes itself a session of its own and then is `aloha ROLE ARGS…`. The pid file names the
//! process by pid and start time: a pid alone may be somebody else's by now.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Parser as _;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::args::{Cli, DaemonAction, DaemonArgs, Role};
use crate::{Failure, environment, print};

/// A master with much to recover may take its time; the ports open before that.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// A worker waits for its applications to end, for its grace period at most.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Does what was asked; `foreground` is how `aloha ROLE ARGS…` runs.
pub(crate) fn run(
    args: &DaemonArgs,
    foreground: impl FnOnce(Cli) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let role = args.role;
    if args.action == DaemonAction::Run {
        // Fails only if this process leads a group already, and is then detached enough.
        let _ = rustix::process::setsid();
        return foreground(parse(args)?);
    }
    let daemon = Daemon {
        role,
        json: args.json,
        pid_dir: directory(
            "ALOHA_PID_DIR",
            &[("XDG_RUNTIME_DIR", "aloha"), ("HOME", ".aloha/run")],
        )?,
        log_dir: directory(
            "ALOHA_LOG_DIR",
            &[("ALOHA_HOME", "logs"), ("HOME", ".aloha/logs")],
        )?,
    };
    // Two commands at a time would see each other's half-done work.
    let _lock = daemon.lock()?;
    match args.action {
        DaemonAction::Start => {
            parse(args)?;
            daemon.start(&args.args).map(|()| 0)
        }
        DaemonAction::Stop => daemon.stop().map(|()| 0),
        DaemonAction::Status | DaemonAction::Run => match daemon.running()? {
            Some(process) => {
                let pid = process.pid.as_raw_pid();
                daemon.say(Some(pid), format_args!("{role} runs as process {pid}"));
                Ok(0)
            }
            None => {
                daemon.say(None, format_args!("{role} does not run"));
                Ok(1)
            }
        },
    }
}

/// Reads the arguments behind the role as the role itself would.
fn parse(args: &DaemonArgs) -> Result<Cli, Failure> {
    let words = ["aloha".to_owned(), args.role.to_string()];
    let words = words.into_iter().chain(args.args.iter().cloned());
    Cli::try_parse_from(words).map_err(|error| Failure::usage(error.to_string().trim_end()))
}

/// The directory a variable names, else the first customary one.
fn directory(variable: &str, customary: &[(&str, &str)]) -> Result<PathBuf, Failure> {
    let lookup = |name: &str| environment(name).filter(|value| !value.is_empty());
    lookup(variable)
        .map(PathBuf::from)
        .or_else(|| {
            let mut customary = customary.iter();
            customary.find_map(|(name, path)| Some(Path::new(&lookup(name)?).join(path)))
        })
        .ok_or_else(|| Failure::new(format!("set {variable}: there is no HOME either")))
}

/// A process, by what names it for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: Pid,
    start_ticks: u64,
}

impl Process {
    /// Looks up the live process that has this pid now.
    fn now(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
        // The name may hold blanks and parentheses: counting starts behind it.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let is_dead = matches!(fields.next()?, "Z" | "X");
        let start_ticks = fields.nth(18)?.parse().ok()?;
        (!is_dead).then_some(Self { pid, start_ticks })
    }

    fn is_alive(self) -> bool {
        Self::now(self.pid) == Some(self)
    }

    /// Whether it was started by `start` for this role: after a restart of the machine, numbers may repeat.
    fn is_daemon(self, role: Role) -> bool {
        let command = fs::read(format!("/proc/{}/cmdline", self.pid.as_raw_pid()));
        let command = command.unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0).skip(1);
        let role = role.to_string();
        [&b"daemon"[..], b"run", role.as_bytes()]
            .iter()
            .all(|expected| words.next() == Some(expected))
    }
}

struct Daemon {
    role: Role,
    json: bool,
    pid_dir: PathBuf,
    log_dir: PathBuf,
}

impl Daemon {
    /// Says how it is by now: the process that it is, if it runs.
    fn say(&self, pid: Option<i32>, text: impl std::fmt::Display) {
        if !self.json {
            return print(text);
        }
        print(serde_json::json!({
            "role": self.role.to_string(),
            "running": pid.is_some(),
            "pid": pid,
            "message": text.to_string(),
        }));
    }

    fn pid_file(&self) -> PathBuf {
        self.pid_dir.join(format!("aloha-{}.pid", self.role))
    }

    fn log_file(&self) -> PathBuf {
        self.log_dir.join(format!("aloha-{}.log", self.role))
    }

    /// Keeps other commands for this role away until it is dropped.
    fn lock(&self) -> Result<File, Failure> {
        create_directory(&self.pid_dir)?;
        let path = self.pid_dir.join(format!("aloha-{}.lock", self.role));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Failure::at("cannot open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(Failure::new(format!(
                "another `aloha daemon` command for the {} is under way",
                self.role
            ))),
            Err(fs::TryLockError::Error(error)) => Err(Failure::at("cannot lock", &path, &error)),
        }
    }

    /// The process of the pid file, if it still is what it was.
    fn running(&self) -> Result<Option<Process>, Failure> {
        let path = self.pid_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::at("cannot read", &path, &error)),
        };
        let mut numbers = text.split_ascii_whitespace();
        let process = || {
            let pid = numbers.next()?.parse().ok().filter(|pid| *pid > 1)?;
            let start_ticks = numbers.next()?.parse().ok()?;
            Some(Process {
                pid: Pid::from_raw(pid)?,
                start_ticks,
            })
        };
        let process: Option<Process> = { process }();
        Ok(process.filter(|process| process.is_alive() && process.is_daemon(self.role)))
    }

    fn start(&self, args: &[String]) -> Result<(), Failure> {
        if let Some(process) = self.running()? {
            let pid = process.pid.as_raw_pid();
            let text = format!(
                "the {0} runs already as process {pid}; `aloha daemon stop {0}` ends it",
                self.role
            );
            return Err(Failure::new(text));
        }
        create_directory(&self.log_dir)?;
        let path = self.log_file();
        let log = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .mode(0o600)
            .open(&path);
        let log = log.map_err(|error| Failure::at("cannot open", &path, &error))?;
        let begin = log
            .metadata()
            .map_err(|error| Failure::at("cannot read", &path, &error))?
            .len();
        let mut child = self
            .spawn(args, &log)
            .map_err(|error| Failure::new(format!("cannot execute this program again: {error}")))?;
        let pid = Pid::from_child(&child);
        // Without a process here, it has ended already, and the wait below says why.
        if let Some(process) = Process::now(pid) {
            let text = format!("{} {}\n", pid.as_raw_pid(), process.start_ticks);
            let path = self.pid_file();
            if let Err(error) = fs::write(&path, text) {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::at("cannot write", &path, &error));
            }
        }
        self.wait_ready(&mut child, log, begin)
    }

    fn spawn(&self, args: &[String], log: &File) -> io::Result<Child> {
        Command::new(std::env::current_exe()?)
            .args(["daemon", "run", &self.role.to_string()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
    }

    /// Prints the child's `ready` line, or says why there will be none.
    fn wait_ready(&self, child: &mut Child, mut log: File, begin: u64) -> Result<(), Failure> {
        let path = self.log_file();
        let mut waited = Duration::ZERO;
        loop {
            // Looked at first: what the child wrote before its end is then seen below.
            let ended = child.try_wait().map_err(|error| {
                Failure::new(format!("cannot wait for the {}: {error}", self.role))
            })?;
            let mut written = Vec::new();
            log.seek(SeekFrom::Start(begin))
                .and_then(|_| log.read_to_end(&mut written))
                .map_err(|error| Failure::at("cannot read", &path, &error))?;
            let written = String::from_utf8_lossy(&written);
            let whole = written.rsplit_once('\n').map_or("", |(whole, _)| whole);
            if ended.is_none()
                && let Some(line) = whole.lines().find(|line| line.starts_with("ready "))
            {
                self.say(i32::try_from(child.id()).ok(), line);
                return Ok(());
            }
            if ended.is_some() {
                let _ = fs::remove_file(self.pid_file());
                let reason = written.lines().rfind(|line| !line.trim().is_empty());
                let reason = reason.unwrap_or("it said nothing");
                let text = format!(
                    "the {} did not start: {reason} (log: {})",
                    self.role,
                    path.display()
                );
                return Err(Failure::new(text));
            }
            if waited >= READY_TIMEOUT {
                let text = format!(
                    "the {} runs as process {}, but is not ready after {READY_TIMEOUT:?} (log: {})",
                    self.role,
                    child.id(),
                    path.display()
                );
                return Err(Failure::new(text));
            }
            std::thread::sleep(POLL_INTERVAL);
            waited += POLL_INTERVAL;
        }
    }

    fn stop(&self) -> Result<(), Failure> {
        let Some(process) = self.running()? else {
            let _ = fs::remove_file(self.pid_file());
            self.say(None, format_args!("{} does not run", self.role));
            return Ok(());
        };
        let pid = process.pid.as_raw_pid();
        let sent = pidfd_open(process.pid, PidfdFlags::empty()).and_then(|fd| {
            // What is opened now is what was looked at, or it has ended.
            match process.is_alive() {
                true => pidfd_send_signal(fd, Signal::TERM),
                false => Ok(()),
            }
        });
        match sent {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(Failure::new(format!("cannot end process {pid}: {error}"))),
        }
        let mut waited = Duration::ZERO;
        while process.is_alive() {
            if waited >= STOP_TIMEOUT {
                let text = format!(
                    "the {} still runs {STOP_TIMEOUT:?} after it was asked to end; `kill -9 {pid}` ends it at once",
                    self.role
                );
                return Err(Failure::new(text));
            }
            std::thread::sleep(POLL_INTERVAL);
            waited += POLL_INTERVAL;
        }
        let _ = fs::remove_file(self.pid_file());
        self.say(None, format_args!("{} ended (process {pid})", self.role));
        Ok(())
    }
}

/// Only its owner may write here: whoever else could would choose what `stop` signals.
fn create_directory(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Failure::at("cannot create", path, &error))
}
