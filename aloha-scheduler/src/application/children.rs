//! Processes of an application as children of the process that hosts it.
//!
//! Each leads a process group of its own. It is reaped here and nowhere else, under the lock that signalling takes: as
//! long as it is not, the kernel gives its pid, and with it the group's id, to nobody else.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rustix::process::{Pid, kill_process_group};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::warn;

use super::{AppProcess, ExitState, ProcessControl, ProcessHost};
use crate::limits::StopSignal;
use crate::runner::RUNNER_VARIABLE;

/// Starts processes as children of this one.
#[derive(Debug)]
pub(crate) struct Children {
    /// Where their ends are waited for: not where an application may block every thread.
    runtime: Handle,
    /// Where `stdout` and `stderr` lie; none for those of this process.
    output: Option<PathBuf>,
}

impl Children {
    /// Their output is this process's. Their ends are waited for on the current runtime.
    pub(crate) fn inheriting() -> Self {
        Self {
            runtime: Handle::current(),
            output: None,
        }
    }

    /// Their output goes to the end of `stdout` and `stderr` in this directory.
    #[cfg(feature = "testing")]
    pub(crate) fn writing_to(directory: &Path) -> Self {
        Self {
            runtime: Handle::current(),
            output: Some(directory.to_owned()),
        }
    }

    fn start(&self, mut command: Command) -> io::Result<AppProcess> {
        let _entered = self.runtime.enter();
        // Before the process, lest its end goes unnoticed.
        let mut ends = signal(SignalKind::child())?;
        command.stdin(Stdio::null()).process_group(0);
        if let Some(directory) = &self.output {
            command.stdout(append(directory, "stdout")?);
            command.stderr(append(directory, "stderr")?);
        }
        if !command
            .get_envs()
            .any(|(name, value)| name == RUNNER_VARIABLE && value.is_some())
        {
            // Its runner is for this process alone.
            command.env_remove(RUNNER_VARIABLE);
        }
        let child = command.spawn()?;
        let (id, group) = (child.id(), Pid::from_child(&child));
        let leader = Arc::new(Leader {
            group,
            child: Mutex::new(Some(child)),
        });
        let (exit, ended) = watch::channel(None);
        let reaped = Arc::clone(&leader);
        self.runtime.spawn(async move {
            loop {
                if let Some(state) = reaped.try_reap() {
                    exit.send_replace(Some(state));
                    return;
                }
                if ends.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(AppProcess::new(id, ended, leader))
    }
}

#[async_trait]
impl ProcessHost for Children {
    async fn spawn(&self, command: Command) -> io::Result<AppProcess> {
        self.start(command)
    }
}

fn append(directory: &Path, name: &str) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).open(directory.join(name))
}

/// The first process of a group.
#[derive(Debug)]
struct Leader {
    group: Pid,
    /// Until it is reaped.
    child: Mutex<Option<Child>>,
}

impl Leader {
    fn try_reap(&self) -> Option<ExitState> {
        let mut child = self.lock();
        let state = match child.as_mut()?.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => ExitState::Code(code),
                (None, signal) => ExitState::Signal(signal.unwrap_or_default()),
            },
            Err(error) => {
                // Somebody else in this process has reaped it, or children are not to be waited for at all.
                warn!(pid = self.group.as_raw_pid(), %error, "how a process ended is lost, taken as code 1");
                ExitState::Code(1)
            }
        };
        *child = None;
        Some(state)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProcessControl for Leader {
    fn signal(&self, signal: StopSignal) -> io::Result<()> {
        let child = self.lock();
        if child.is_none() {
            return Ok(());
        }
        Ok(kill_process_group(self.group, signal.to_system())?)
    }
}
