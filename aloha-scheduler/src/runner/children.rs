//! The processes below a runner: its own children, and what they left behind.
//!
//! The runner is a *child subreaper*: whatever an application starts stays below it, also what calls `setsid` or forks
//! twice, for the kernel hands orphans to the nearest subreaper above them. So "everything of the application" is
//! everything below this process, and it is over when there is nothing left to wait for.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustix::process::{Signal, WaitOptions, getpid};
use tokio::sync::watch;
use tracing::warn;

use super::cgroup::AppCgroup;
use super::pipes::Output;
use super::rlimits;
use crate::application::{AppProcess, ExitState, ProcessControl, ProcessHost};
use crate::limits::{ProcessLimits, StopSignal};
use crate::procfs;

/// The processes below this one.
#[derive(Debug)]
pub(super) struct Children {
    /// Those that the application itself started, by their pids, until they are reaped.
    started: Mutex<HashMap<i32, watch::Sender<Option<ExitState>>>>,
    /// Where their output goes, for as long as there may be more of them.
    output: Mutex<Option<Output>>,
    /// Where they are kept together, if the kernel has such a place.
    cgroup: Option<AppCgroup>,
    limits: ProcessLimits,
    /// Whether there ever was one.
    any_started: watch::Sender<bool>,
}

/// Whether there is anything left to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Some,
    Nothing,
}

impl Children {
    pub(super) fn new(output: Output, cgroup: Option<AppCgroup>, limits: ProcessLimits) -> Self {
        Self {
            started: Mutex::default(),
            output: Mutex::new(Some(output)),
            cgroup,
            limits,
            any_started: watch::Sender::new(false),
        }
    }

    /// Waits until the first process was started.
    pub(super) async fn any_started(&self) {
        // The sender is here: it cannot be gone.
        drop(self.any_started.subscribe().wait_for(|any| *any).await);
    }

    /// Lets go of our ends of the pipes: when the last process is gone, they end.
    pub(super) fn close_output(&self) {
        drop(
            self.output
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
    }

    /// Takes the exit status of everything that has ended.
    pub(super) fn reap(&self) -> Left {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(exit) = started.remove(&pid.as_raw_pid()) {
                        exit.send_replace(Some(exit_state(ExitStatus::from_raw(status.as_raw()))));
                    }
                }
                Ok(None) => return Left::Some,
                Err(rustix::io::Errno::INTR) => {}
                // ECHILD, and what else there is makes waiting pointless as well.
                Err(_) => return Left::Nothing,
            }
        }
    }

    /// Kills everything below this process. What forks meanwhile may escape: to be repeated until there is nothing left.
    pub(super) fn kill(&self) -> io::Result<()> {
        // The kernel kills a group as one; what follows is for what left it, or where there is none.
        let grouped = self.cgroup.as_ref().map_or(Ok(()), AppCgroup::kill);
        self.signal(Signal::KILL).and(grouped)
    }

    /// Whether the kernel killed a process of the application for want of memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.cgroup.as_ref().is_some_and(AppCgroup::out_of_memory)
    }

    /// Removes the control group, once it is empty.
    pub(super) fn leave_cgroup(&self) {
        if let Some(Err(error)) = self.cgroup.as_ref().map(AppCgroup::remove) {
            warn!(%error, "a cgroup is left behind");
        }
    }

    /// Signals everything below this process.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        let mut refused = Ok(());
        for (pid, stat) in procfs::descendants(getpid())? {
            if let Err(error) = procfs::signal(pid, &stat, signal) {
                refused = Err(error);
            }
        }
        refused
    }
}

fn exit_state(status: ExitStatus) -> ExitState {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitState::Code(code),
        (None, signal) => ExitState::Signal(signal.unwrap_or_default()),
    }
}

/// Starts the processes of the application in this runner.
#[derive(Debug)]
pub(super) struct Spawner(pub(super) Arc<Children>);

#[async_trait]
impl ProcessHost for Spawner {
    async fn spawn(&self, command: Command) -> io::Result<AppProcess> {
        let children = &self.0;
        let mut command = rlimits::wrap(command, &children.limits)?;
        {
            let output = children
                .output
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let output = output.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
            command
                .stdin(Stdio::null())
                .stdout(output.stdout()?)
                .stderr(output.stderr()?)
                // A script that signals its group must not meet the runner.
                .process_group(0);
        }
        // Nothing is awaited between the start and the note of it, and one thread runs all of this: it is not reaped
        // before.
        let child = match &children.cgroup {
            Some(cgroup) => cgroup.spawn_inside(|| command.spawn())??,
            None => command.spawn()?,
        };
        let (exit, exited) = watch::channel(None);
        let pid = i32::try_from(child.id()).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut started = children
            .started
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        started.insert(pid, exit);
        children.any_started.send_replace(true);
        Ok(AppProcess::new(
            child.id(),
            exited,
            Arc::new(Everything(Arc::clone(children))),
        ))
    }
}

/// What belongs to a process of the application is everything below the runner.
#[derive(Debug)]
struct Everything(Arc<Children>);

impl ProcessControl for Everything {
    fn signal(&self, signal: StopSignal) -> io::Result<()> {
        self.0.signal(signal.to_system())
    }
}
