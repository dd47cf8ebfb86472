//! The start of a runner: the directory, the lock, the process, and the line in which it says how that went.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;

use super::{Identity, RETRY_INTERVAL};
use crate::procfs;
use crate::runner::{self, Launch, Records, RunnerSettings, StartReport, Trace};
use crate::worker::app_directory;
use crate::worker::launcher::{LaunchError, LaunchSpec};

/// The longest line in which a runner may say how its start went, in bytes.
const REPORT_BYTES_MAX: u64 = 64 << 10;
/// How often a lock that is taken is tried before a launch.
const LOCK_TRIES: u32 = 50;

/// A runner that was just started.
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) pidfd: OwnedFd,
    pub(super) identity: Identity,
    pub(super) said: ChildStdout,
}

/// Makes the directory ready for this attempt, which must be a new one, and starts its runner; blocks.
pub(super) fn spawn(
    program: &Path,
    spec: &LaunchSpec,
    settings: RunnerSettings,
) -> Result<Spawned, LaunchError> {
    let directory = spec.work_directory.join(&spec.app_id);
    let lock = prepare(spec, &directory, settings)?;
    let started = || -> io::Result<Spawned> {
        let mut child = Command::new(program)
            .arg0("aloha")
            .args([runner::ARGUMENT, &spec.app_id, &spec.attempt.to_string()])
            // By these it is known where the records are gone.
            .arg(&spec.worker_id)
            .current_dir(&directory)
            .stdin(lock)
            .stdout(Stdio::piped())
            .stderr(Records::of(&directory).log()?)
            .spawn()?;
        let said = child.stdout.take().expect("it was asked for");
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // From the system, for the application can write to the records. Our child is there until we reap it.
        let identity = Identity {
            pid: pid.as_raw_pid(),
            start_ticks: procfs::stat(pid).map_or(0, |stat| stat.start_ticks),
        };
        Ok(Spawned {
            child,
            pidfd,
            identity,
            said,
        })
    };
    started().map_err(|cause| LaunchError::Runner {
        app_id: spec.app_id.clone(),
        cause,
    })
}

/// Makes the directory ready, and gives its lock.
fn prepare(
    spec: &LaunchSpec,
    directory: &Path,
    settings: RunnerSettings,
) -> Result<File, LaunchError> {
    let app_id = || spec.app_id.clone();
    if !app_directory::is_component(&spec.app_id) || spec.app_id.starts_with('.') {
        return Err(LaunchError::BadAppId { app_id: app_id() });
    }
    let unprepared = |cause| LaunchError::Directory {
        path: directory.to_owned(),
        cause,
    };
    app_directory::create(directory).map_err(unprepared)?;
    let there = fs::symlink_metadata(directory).map_err(unprepared)?;
    if !there.is_dir() {
        return Err(unprepared(io::ErrorKind::NotADirectory.into()));
    }
    let records = Records::of(directory);
    records.create().map_err(unprepared)?;
    let Some(lock) = lock_soon(&records).map_err(unprepared)? else {
        return Err(LaunchError::StillRunning { app_id: app_id() });
    };
    let (seen, began) = match records.trace().map_err(unprepared)? {
        Trace::Nothing => (None, false),
        Trace::NeverBegan(launch) => (Some(launch.spec.attempt), false),
        Trace::CutShort(launch, _) | Trace::Ended { launch, .. } => {
            (Some(launch.spec.attempt), true)
        }
    };
    if let Some(seen) = seen {
        if seen > spec.attempt || (seen == spec.attempt && began) {
            return Err(LaunchError::StaleAttempt {
                app_id: app_id(),
                attempt: spec.attempt,
                seen,
            });
        }
        if began {
            app_directory::set_aside(directory, seen).map_err(unprepared)?;
        }
    }
    let launch = Launch::new(spec.clone(), settings);
    records.renew(&launch).map_err(unprepared)?;
    Ok(lock)
}

/// The line in which a runner says how its start went.
pub(super) async fn start_report(said: ChildStdout) -> io::Result<StartReport> {
    let pipe = Receiver::from_owned_fd(said.into())?;
    let mut line = String::new();
    BufReader::new(pipe.take(REPORT_BYTES_MAX))
        .read_line(&mut line)
        .await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

/// Takes the lock for a launch. A process about to be something else may have it for a moment.
fn lock_soon(records: &Records) -> io::Result<Option<File>> {
    for _ in 0..LOCK_TRIES {
        if let Some(lock) = records.lock()? {
            return Ok(Some(lock));
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
    Ok(None)
}
