//! Applications under runners: how a worker starts them, finds them again, and hears how they ended.
//!
//! ```text
//!   start ─► lock ─► launch.json ─► runner (has the lock) ─► its line: started ─► Attach ······► outcome
//!   adopt ─► lock is taken: it runs ─────────────────────────────────────────────► Attach ······► outcome
//!            lock is free: the records say how it ended, or that it was cut short
//! ```
//!
//! What a runner answers to `Attach` is on disk already, so an answer that is lost costs nothing: its process ends, which
//! is learnt from a pidfd, and the record is read. A runner that ended without a record was killed.

mod app;
mod finding;
mod leftovers;
mod spawning;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{RpcConfig, RpcEnv, StartError, TransportConfig};
use async_trait::async_trait;
use rustix::process::{Signal as SystemSignal, pidfd_send_signal};
use tracing::{info, warn};

use self::app::{App, Handle};
use self::finding::{Found, find};
use self::leftovers::{Left, Stray, end_leftovers, end_stray, strays};
use self::spawning::{Spawned, spawn, start_report};
use super::launcher::{AdoptError, Adopted, LaunchError, LaunchSpec, Launcher, RunningApp};
use crate::attempt::Outcome;
use crate::blocking::blocking;
use crate::causes::with_causes;
use crate::runner::{Records, Run, RunnerSettings, StartReport};

/// The executable that becomes a runner unless another is named: this one.
const THIS_EXECUTABLE: &str = "/proc/self/exe";
/// How long a runner may take to say so, and to be reached.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before a runner that could not be reached is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Runs each application under a runner of its own; needs a tokio runtime with IO and time.
#[derive(Debug)]
pub struct RunnerLauncher {
    settings: RunnerSettings,
    program: PathBuf,
    /// Where the runners are talked to from.
    env: RpcEnv,
}

impl RunnerLauncher {
    /// Starts runners by executing this process's own executable again, whose `main` must begin with
    /// [`run_if_asked`](crate::runner::run_if_asked).
    ///
    /// # Errors
    ///
    /// The environment from which runners are talked to cannot be started.
    pub async fn new(settings: RunnerSettings) -> Result<Self, StartError> {
        let config = RpcConfig {
            transport: TransportConfig {
                // The kernel says when the other end of a Unix socket is gone.
                ping_interval: None,
                reconnect_backoff_min: RETRY_INTERVAL,
                reconnect_backoff_max: RETRY_INTERVAL,
                ..TransportConfig::default()
            },
            ..RpcConfig::default()
        };
        Ok(Self {
            settings,
            program: PathBuf::from(THIS_EXECUTABLE),
            env: RpcEnv::builder("worker-of-runners")
                .config(config)
                .start()
                .await?,
        })
    }

    /// Starts runners by executing this program instead.
    #[must_use]
    pub fn program(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    /// Starts the runner of an attempt, and waits until it says how its own start went.
    async fn launch(&self, spec: &LaunchSpec) -> Result<Box<dyn RunningApp>, LaunchError> {
        let failed = {
            let app_id = spec.app_id.clone();
            move |cause| LaunchError::Runner { app_id, cause }
        };
        let (program, mut settings) = (self.program.clone(), self.settings.clone());
        if let Some(alone_max) = spec.alone_max {
            settings.worker_timeout = settings.worker_timeout.min(alone_max);
            settings.worker_lost_grace_max = Some(alone_max);
        }
        let spawned = blocking({
            let spec = spec.clone();
            move || spawn(&program, &spec, settings)
        });
        let Spawned {
            mut child,
            pidfd,
            identity,
            said,
        } = spawned.await?;
        match tokio::time::timeout(START_TIMEOUT, start_report(said)).await {
            Ok(Ok(StartReport::Started)) => {
                info!(app = %spec.app_id, attempt = spec.attempt, runner = child.id(), "application started");
                let process = Process {
                    pidfd,
                    identity,
                    child: Some(child),
                };
                let app_directory = spec.work_directory.join(&spec.app_id);
                self.watch(spec, &app_directory, process).map_err(failed)
            }
            Ok(Ok(StartReport::Failed(reason))) => {
                if let Err(error) = blocking(move || child.wait()).await {
                    warn!(%error, "cannot take the exit status of a runner");
                }
                Err(LaunchError::NotStarted { reason })
            }
            silent => {
                let cause = match silent {
                    Ok(Err(cause)) => cause,
                    Ok(Ok(_)) | Err(_) => io::ErrorKind::TimedOut.into(),
                };
                // Whatever it has started by now must not run unseen.
                let _ = pidfd_send_signal(&pidfd, SystemSignal::KILL);
                let status = blocking(move || child.wait()).await;
                let records = Records::of(&spec.work_directory.join(&spec.app_id));
                let left = Left::of_child(identity, spec, &records).await;
                if let Err(error) = end_leftovers(spec, &left).await {
                    warn!(app = %spec.app_id, error = with_causes(&error), "cannot end what a runner left");
                }
                let ended =
                    status.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(failed(io::Error::new(
                    cause.kind(),
                    format!(
                        "it said nothing of its start ({cause}), {ended}; see .aloha/runner.log in the directory of the application"
                    ),
                )))
            }
        }
    }

    /// Watches over a runner from now on.
    fn watch(
        &self,
        spec: &LaunchSpec,
        app_directory: &Path,
        process: Process,
    ) -> io::Result<Box<dyn RunningApp>> {
        let (child, env) = (process.child, self.env.clone());
        let app = App::new(spec, app_directory, env, process.pidfd, process.identity)?;
        let app = Arc::new(app);
        tokio::spawn(Arc::clone(&app).supervise(child));
        Ok(Box::new(Handle(app)))
    }
}

/// A runner's process.
#[derive(Debug)]
struct Process {
    pidfd: OwnedFd,
    identity: Identity,
    /// Its handle, if it is our child: somebody must take its exit status.
    child: Option<Child>,
}

/// What names a process for as long as the machine runs.
#[derive(Debug, Clone, Copy)]
struct Identity {
    pid: i32,
    start_ticks: u64,
}

impl Identity {
    fn of(run: &Run) -> Self {
        Self {
            pid: run.pid,
            start_ticks: run.start_ticks,
        }
    }
}

#[async_trait]
impl Launcher for RunnerLauncher {
    async fn start(&self, spec: LaunchSpec) -> Result<Box<dyn RunningApp>, LaunchError> {
        let started = self.launch(&spec).await;
        if let Err(error @ LaunchError::Runner { .. }) = &started {
            // So that a later worker knows as well that this attempt is over.
            let records = Records::of(&spec.work_directory.join(&spec.app_id));
            let outcome = Outcome::CouldNotStart(with_causes(error));
            if let Err(error) = blocking(move || records.conclude(&outcome)).await {
                warn!(app = %spec.app_id, %error, "cannot record that an application did not start");
            }
        }
        started
    }

    async fn adopt(&self, app_directory: &Path, worker_id: &str) -> Result<Adopted, AdoptError> {
        let records = Records::of(app_directory);
        let unusable = |cause| AdoptError::Record {
            path: app_directory.join(".aloha"),
            cause,
        };
        let looked = tokio::time::timeout(START_TIMEOUT, find(&records, worker_id)).await;
        let found = looked.unwrap_or_else(|_| {
            let text = "somebody holds its lock and does not say who";
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        });
        match found.map_err(unusable)? {
            Found::Nothing => Ok(Adopted::Nothing),
            Found::Ended(spec, outcome, reported) => Ok(Adopted::Ended {
                spec,
                outcome,
                reported,
            }),
            Found::CutShort(spec, run) => {
                let reason = if run.is_of_this_boot().map_err(unusable)? {
                    let left = Left {
                        runner: Identity::of(&run),
                        saw_it_end: false,
                        cgroups: run.cgroups,
                    };
                    end_leftovers(&spec, &left).await?;
                    "its runner was killed while no worker was there to see how"
                } else {
                    "the machine was restarted"
                };
                let outcome = Outcome::Lost(reason.to_owned());
                let recorded = outcome.clone();
                blocking(move || records.conclude(&recorded))
                    .await
                    .map_err(unusable)?;
                Ok(Adopted::Ended {
                    spec,
                    outcome,
                    reported: false,
                })
            }
            Found::Running(spec, process) => {
                // Not where it was launched: a work directory may have been moved since.
                let app = self.watch(&spec, app_directory, process);
                let app = app.map_err(unusable)?;
                Ok(Adopted::Running { spec, app })
            }
        }
    }

    async fn end_strays(
        &self,
        work_directory: &Path,
        worker_id: &str,
        known: &BTreeSet<(String, u32)>,
    ) -> io::Result<Vec<(String, u32)>> {
        let (work, worker_id, known) = (
            work_directory.to_owned(),
            worker_id.to_owned(),
            known.clone(),
        );
        let strays = blocking(move || strays(&work, &worker_id, &known)).await?;
        let mut attempts = Vec::new();
        for stray in strays {
            let Stray {
                app_id, attempt, ..
            } = &stray;
            warn!(
                app = app_id,
                attempt, "ending a runner whose records are gone"
            );
            attempts.push((app_id.clone(), *attempt));
            end_stray(stray).await?;
        }
        Ok(attempts)
    }

    async fn settle(&self, app_directory: &Path, attempt: u32) -> io::Result<()> {
        let records = Records::of(app_directory);
        blocking(move || match records.set_reported(attempt) {
            // What was never started here has no records.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            noted => noted,
        })
        .await
    }
}
