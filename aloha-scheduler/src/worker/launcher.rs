//! The seam between a worker and what runs its applications.
//!
//! The worker knows nothing of processes: it starts an application, may ask it to end, and waits for its outcome.
//! [`RunnerLauncher`](super::RunnerLauncher) gives each application a process of its own that outlives the worker.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::app_directory::app_directories;
use super::effect::Signal;
use crate::app::AppDescription;
use crate::application::ShutdownReason;
use crate::attempt::Outcome;
use crate::blocking::blocking;

/// Starts applications, and finds those that an earlier worker left behind.
#[async_trait]
pub trait Launcher: Send + Sync + fmt::Debug {
    /// Starts one attempt of an application.
    ///
    /// Dropping what it returns does not end the application.
    ///
    /// # Errors
    ///
    /// Nothing that this call started still runs.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the application may run although nobody got hold of it. [`Launcher::adopt`] finds it then.
    async fn start(&self, spec: LaunchSpec) -> Result<Box<dyn RunningApp>, LaunchError>;

    /// The directories of applications in a work directory that is there, for [`adopt`](Self::adopt). Those that it holds,
    /// unless a launcher keeps them elsewhere.
    ///
    /// # Errors
    ///
    /// The directory cannot be read. That it is not there is no error.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: asked again, it finds the same.
    async fn left_behind(&self, work_directory: &Path) -> io::Result<Vec<PathBuf>> {
        let work_directory = work_directory.to_owned();
        blocking(move || app_directories(&work_directory)).await
    }

    /// Takes over what an earlier worker of this id started in this directory (`<work-dir>/<app-id>`).
    ///
    /// # Errors
    ///
    /// The records cannot be used, or processes whose runner is dead cannot be ended: to be tried again by a later worker.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: asked again, it finds the same.
    async fn adopt(&self, app_directory: &Path, worker_id: &str) -> Result<Adopted, AdoptError>;

    /// Ends what an earlier worker of this id started below this directory and [`Launcher::adopt`] does not find, for an
    /// application can remove its directory, its records, or what they are worth. Nothing is done to attempts that are
    /// `known` to run. Gives the application and the number of each attempt that was ended.
    async fn end_strays(
        &self,
        work_directory: &Path,
        worker_id: &str,
        known: &BTreeSet<(String, u32)>,
    ) -> io::Result<Vec<(String, u32)>>;

    /// Notes that a master knows how the application in this directory ended: no later worker need report it.
    /// Does nothing where a later attempt was launched meanwhile.
    ///
    /// # Errors
    ///
    /// It could not be noted. A later worker then reports the end once more, which does no harm.
    async fn settle(&self, app_directory: &Path, attempt: u32) -> io::Result<()>;
}

/// One attempt of an application that was started; it may have ended since.
#[async_trait]
pub trait RunningApp: Send + Sync + fmt::Debug {
    /// Whose attempt it is.
    fn app_id(&self) -> &str;

    /// Which attempt it is, counted from 1.
    fn attempt(&self) -> u32;

    /// Asks the application to end, or ends it. If it has ended already, this does nothing.
    ///
    /// # Errors
    ///
    /// It could not be told, and may run on.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the application may have been asked or not; asked again, it is asked once.
    async fn signal(&self, signal: Signal) -> Result<(), SignalError>;

    /// Waits until it has ended and nothing of it is left. May be called by several tasks and again later.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the outcome is kept.
    async fn wait(&self) -> Outcome;

    /// Asks the application to end, ends it when `grace` is over, and waits for its outcome.
    ///
    /// # Errors
    ///
    /// It could not be told, and may run on.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the application was asked, but is not ended.
    async fn end(&self, grace: Duration) -> Result<Outcome, SignalError> {
        self.signal(Signal::Stop(ShutdownReason::Killed)).await?;
        if let Ok(outcome) = tokio::time::timeout(grace, self.wait()).await {
            return Ok(outcome);
        }
        self.signal(Signal::Kill(ShutdownReason::Killed)).await?;
        Ok(self.wait().await)
    }
}

/// What a launcher needs to know to start an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchSpec {
    /// The application; one component of a path.
    pub app_id: String,
    /// Counted from 1, rising over relaunches and failovers.
    pub attempt: u32,
    /// What was submitted. `ALOHA_APP_ID` and its like win over equal names in its environment.
    pub description: Arc<AppDescription>,
    /// The worker's directory, in which the application gets its own.
    pub work_directory: PathBuf,
    /// The masters' URL, for `ALOHA_MASTER`.
    pub master: String,
    /// The worker, for `ALOHA_WORKER_ID`.
    pub worker_id: String,
    /// How long its runner at most waits for a worker that is gone before it asks it to end, and then before it kills
    /// it; `None` for as long as the settings of runners say.
    #[serde(default)]
    pub alone_max: Option<Duration>,
}

impl LaunchSpec {
    /// What the cgroups of this attempt are named after.
    pub(crate) fn cgroup_name(&self) -> String {
        format!("{}-{}", self.app_id, self.attempt)
    }
}

/// What was left behind in the directory of an application.
#[derive(Debug)]
#[non_exhaustive]
pub enum Adopted {
    /// Nothing was ever started there.
    Nothing,
    /// It runs, and is ours from now on.
    Running {
        /// As what it was launched.
        spec: LaunchSpec,
        /// The application.
        app: Box<dyn RunningApp>,
    },
    /// It does not run, or not any more.
    Ended {
        /// As what it was launched.
        spec: LaunchSpec,
        /// How it ended.
        outcome: Outcome,
        /// Whether a master knows.
        reported: bool,
    },
}

/// Why an application was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The id cannot name a directory.
    #[error("{app_id:?} cannot name the directory of an application")]
    BadAppId {
        /// The id.
        app_id: String,
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
    #[error("an earlier attempt of {app_id} still runs here")]
    StillRunning {
        /// The application.
        app_id: String,
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
    /// Its runner could not be started, or did not get far.
    #[error("cannot start a runner for {app_id}")]
    Runner {
        /// The application.
        app_id: String,
        /// What the system said, or the runner.
        #[source]
        cause: io::Error,
    },
    /// The application itself could not be started.
    #[error("{reason}")]
    NotStarted {
        /// Why.
        reason: String,
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

/// Why an application could not be asked to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// Its runner did not answer, and could not be ended either.
    #[error("cannot end {app_id}")]
    Unreachable {
        /// The application.
        app_id: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}
