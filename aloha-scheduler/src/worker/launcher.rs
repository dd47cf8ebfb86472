//! The seam between a worker and what runs its applications.
//!
//! The worker knows nothing of processes: it starts an application, may signal it, and waits for its outcome.
//! [`ProcessLauncher`](super::ProcessLauncher) runs applications as children of the worker; a launcher whose
//! applications outlive the worker answers [`Launcher::adopt`] with [`Adopted::Running`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::effect::Signal;
use crate::attempt::Outcome;
use async_trait::async_trait;

/// Starts applications, and finds those that an earlier worker left behind.
#[async_trait]
pub trait Launcher: Send + Sync + fmt::Debug {
    /// Starts one attempt of an application.
    ///
    /// Dropping what it returns does not end the application.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the application may run although nobody got hold of it. [`Launcher::adopt`] finds it then.
    async fn start(&self, spec: LaunchSpec) -> Result<Box<dyn RunningApp>, LaunchError>;

    /// Takes over what an earlier worker started in this directory (`<work-dir>/<app-id>`).
    async fn adopt(&self, app_directory: &Path) -> Result<Adopted, AdoptError>;
}

/// One attempt of an application that was started; it may have ended since.
#[async_trait]
pub trait RunningApp: Send + Sync + fmt::Debug {
    /// Whose attempt it is.
    fn app_id(&self) -> &str;

    /// Which attempt it is, counted from 1.
    fn attempt(&self) -> u32;

    /// Signals everything that belongs to the application. If it has ended already, this does nothing.
    async fn signal(&self, signal: Signal) -> Result<(), SignalError>;

    /// Waits until it has ended and nothing of it is left. May be called by several tasks and again later.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the outcome is kept.
    async fn wait(&self) -> Outcome;

    /// Asks the application to end, ends it when `grace` is over, and waits for its outcome.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the application was asked, but is not ended.
    async fn end(&self, grace: Duration) -> Result<Outcome, SignalError> {
        self.signal(Signal::Term).await?;
        if let Ok(outcome) = tokio::time::timeout(grace, self.wait()).await {
            return Ok(outcome);
        }
        self.signal(Signal::Kill).await?;
        Ok(self.wait().await)
    }
}

/// What a launcher needs to know to start an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    /// The application; one component of a path.
    pub app_id: String,
    /// Counted from 1, rising over relaunches and failovers.
    pub attempt: u32,
    /// What kind of application it is: `SimpleProcess` or `Process`.
    pub entry_point: String,
    /// What else it needs. The built-in entry points hand them on in `ALOHA_LIBS`, one a line, and fetch nothing.
    pub libs: Vec<String>,
    /// `Process`: the program and its arguments. `SimpleProcess`: joined by blanks, a script for bash.
    pub args: Vec<String>,
    /// Added to the worker's own environment; `ALOHA_APP_ID` and its like win over equal names in here.
    pub environment: BTreeMap<String, String>,
    /// The worker's directory, in which the application gets its own.
    pub work_directory: PathBuf,
    /// The master's URL, for `ALOHA_MASTER`.
    pub master: String,
    /// The worker, for `ALOHA_WORKER_ID`.
    pub worker_id: String,
}

/// What was left behind in the directory of an application.
#[derive(Debug)]
#[non_exhaustive]
pub enum Adopted {
    /// Nothing was ever started there.
    Nothing,
    /// It runs, and is ours from now on.
    Running(Box<dyn RunningApp>),
    /// It does not run, or not any more.
    Ended {
        /// The application.
        app_id: String,
        /// Its latest attempt there.
        attempt: u32,
        /// How that ended.
        outcome: Outcome,
    },
}

/// Why an application was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No launcher knows this kind of application.
    #[error("unknown entry point {entry_point:?}, known are: {}", known.join(", "))]
    UnknownEntryPoint {
        /// What was asked for.
        entry_point: String,
        /// What there is.
        known: &'static [&'static str],
    },
    /// The id cannot name a directory.
    #[error("{app_id:?} cannot name the directory of an application")]
    BadAppId {
        /// The id.
        app_id: String,
    },
    /// There is nothing to run.
    #[error("{entry_point} needs a command in its arguments")]
    NoCommand {
        /// The entry point.
        entry_point: String,
    },
    /// The command or its environment cannot be given to a process.
    #[error("{what} is not possible for a process: {text:?}")]
    BadText {
        /// Which part.
        what: &'static str,
        /// The offending text.
        text: String,
    },
    /// A later attempt, or this very one, was started here before.
    #[error("attempt {attempt} of {app_id} is stale: attempt {seen} was started here")]
    StaleAttempt {
        /// The application.
        app_id: String,
        /// What was asked for.
        attempt: u32,
        /// What was there before.
        seen: u32,
    },
    /// An earlier attempt still runs here; it must be adopted or ended first.
    #[error("attempt {seen} of {app_id} still runs here as process {pid}")]
    StillRunning {
        /// The application.
        app_id: String,
        /// The attempt that runs.
        seen: u32,
        /// Its first process.
        pid: i32,
    },
    /// The directory of the application, or a file in it, could not be made ready.
    #[error("cannot prepare {}", path.display())]
    Directory {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The program could not be executed.
    #[error("cannot execute {program:?}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// Why what was left behind could not be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The record of what was started could not be read or written.
    #[error("cannot use the record {}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The processes left behind could not be looked at or signalled.
    #[error("cannot end the processes left behind by {app_id}")]
    Processes {
        /// The application.
        app_id: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Some process did not end, although it was killed.
    #[error("{app_id} has left behind processes that cannot be killed")]
    Unkillable {
        /// The application.
        app_id: String,
    },
}

/// Why an application could not be signalled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// The system refused, for instance because the application runs as somebody else now.
    #[error("cannot signal {app_id}")]
    Refused {
        /// The application.
        app_id: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}
