use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::ExitState;
use crate::app::AppDescription;
use crate::limits::StopSignal;

/// What an application is given: who it is, what it was submitted as, and where it is at home.
#[derive(Debug, Clone)]
pub struct ApplicationContext {
    pub(crate) app_id: String,
    pub(crate) attempt: u32,
    pub(crate) description: Arc<AppDescription>,
    pub(crate) directory: PathBuf,
    pub(crate) master: String,
    pub(crate) worker_id: String,
    pub(crate) configuration: Arc<BTreeMap<String, String>>,
    pub(crate) processes: Arc<dyn ProcessHost>,
}

impl ApplicationContext {
    /// The context of an application in a test: attempt 1 of `app-test`. What its processes print is in the files
    /// `stdout` and `stderr` of the directory.
    ///
    /// # Panics
    ///
    /// Called outside a tokio runtime.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn for_tests(description: AppDescription, directory: &Path) -> Self {
        let processes = super::children::Children::writing_to(directory);
        Self::of_test(description, directory.to_owned(), Arc::new(processes))
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn of_test(
        description: AppDescription,
        directory: PathBuf,
        processes: Arc<dyn ProcessHost>,
    ) -> Self {
        Self {
            app_id: "app-test".to_owned(),
            attempt: 1,
            description: Arc::new(description),
            directory,
            master: "aloha://127.0.0.1:7077".to_owned(),
            worker_id: "worker-test".to_owned(),
            configuration: Arc::default(),
            processes,
        }
    }

    /// Its id.
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    /// Which attempt this is: 1, 2, …, rising over relaunches and failovers.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What was submitted.
    pub fn description(&self) -> &AppDescription {
        &self.description
    }

    /// Its own directory, which is also the working directory of its processes.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The URL of the masters.
    pub fn master(&self) -> &str {
        &self.master
    }

    /// The worker it runs on.
    pub fn worker_id(&self) -> &str {
        &self.worker_id
    }

    /// A value of the worker's configuration, by its key (`aloha.…`).
    pub fn configuration(&self, key: &str) -> Option<&str> {
        self.configuration.get(key).map(String::as_str)
    }

    /// The variables that each process of the application has: those of its description, and what it is, which wins over
    /// equal names: `ALOHA_APP_ID`, `ALOHA_ATTEMPT`, `ALOHA_MASTER`, `ALOHA_WORKER_ID`, and where there are libs
    /// `ALOHA_LIBS`, one a line.
    pub fn variables(&self) -> impl Iterator<Item = (&str, String)> {
        let libs = &self.description.libs;
        let own = [
            ("ALOHA_APP_ID", Some(self.app_id.clone())),
            ("ALOHA_ATTEMPT", Some(self.attempt.to_string())),
            ("ALOHA_MASTER", Some(self.master.clone())),
            ("ALOHA_WORKER_ID", Some(self.worker_id.clone())),
            ("ALOHA_LIBS", (!libs.is_empty()).then(|| libs.join("\n"))),
        ];
        let described = &self.description.environment;
        described
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()))
            .chain(
                own.into_iter()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
    }

    /// Starts a process that belongs to the application: its output goes where the application's goes, its working
    /// directory is the application's, and [`ApplicationContext::variables`] are in its environment, save those that the
    /// command sets by itself.
    ///
    /// # Errors
    ///
    /// It could not be executed.
    pub async fn spawn(&self, mut command: Command) -> io::Result<AppProcess> {
        let set = |name: &str| command.get_envs().any(|(own, _)| own == name);
        let variables: Vec<_> = self.variables().filter(|(name, _)| !set(name)).collect();
        command.current_dir(&self.directory).envs(variables);
        self.processes.spawn(command).await
    }
}

/// Whatever starts the processes of applications: the runner, or the executable that hosts a user's own type.
#[async_trait]
pub trait ProcessHost: Send + Sync + fmt::Debug {
    /// Starts a process; standard input and output are for the host to decide.
    ///
    /// # Errors
    ///
    /// It could not be executed.
    async fn spawn(&self, command: Command) -> io::Result<AppProcess>;
}

/// A process of an application. Dropped, the process goes on.
#[derive(Debug, Clone)]
pub struct AppProcess {
    id: u32,
    exit: watch::Receiver<Option<ExitState>>,
    control: Arc<dyn ProcessControl>,
}

/// How a process is reached.
pub trait ProcessControl: Send + Sync + fmt::Debug {
    /// Signals the process and those that belong to it; nothing if they have ended.
    ///
    /// # Errors
    ///
    /// The system refuses.
    fn signal(&self, signal: StopSignal) -> io::Result<()>;
}

impl AppProcess {
    /// A process with this pid, whose end is told through `exit`.
    pub fn new(
        id: u32,
        exit: watch::Receiver<Option<ExitState>>,
        control: Arc<dyn ProcessControl>,
    ) -> Self {
        Self { id, exit, control }
    }

    /// Its pid.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Waits for its end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the end is kept.
    pub async fn wait(&self) -> ExitState {
        let mut exit = self.exit.clone();
        let state = exit.wait_for(Option::is_some).await.ok();
        match state.and_then(|state| *state) {
            Some(state) => state,
            // Only a host that is being torn down forgets a process, and everything with it.
            None => std::future::pending().await,
        }
    }

    /// Signals it and the processes that belong to it; nothing if they have ended.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn signal(&self, signal: StopSignal) -> io::Result<()> {
        self.control.signal(signal)
    }
}
