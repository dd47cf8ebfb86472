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

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcConfig, RpcEndpointRef, RpcEnv, StartError, TransportConfig};
use async_trait::async_trait;
use rustix::process::{Pid, PidfdFlags, Signal as SystemSignal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};

use super::app_directory;
use super::effect::Signal;
use super::launcher::{
    AdoptError, Adopted, LaunchError, LaunchSpec, Launcher, RunningApp, SignalError,
};
use crate::attempt::Outcome;
use crate::blocking::blocking;
use crate::causes::with_causes;
use crate::procfs;
use crate::runner::{
    self, AppCgroup, Launch, RUNNER, Records, Run, RunnerMessage, RunnerSettings, StartReport,
    Trace,
};

/// The executable that becomes a runner unless another is named: this one.
const THIS_EXECUTABLE: &str = "/proc/self/exe";
/// The longest line in which a runner may say how its start went, in bytes.
const REPORT_BYTES_MAX: u64 = 64 << 10;
/// How long a runner may take to say so, and to be reached.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a runner may take to end once it said how its application did.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest such pause, reached by doubling.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// How long an application must run before its runner is talked to, unless somebody wants something of it.
const ATTACH_DELAY: Duration = Duration::from_millis(20);
/// The pause before a runner that could not be reached is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// How often a lock that is taken is tried before a launch.
const LOCK_TRIES: u32 = 50;
/// How long processes that were killed may take to vanish: it needs no cooperation of theirs, only the kernel's.
const VANISH_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than any application runs, and no trouble for a clock.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

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
        let (program, settings) = (self.program.clone(), self.settings.clone());
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
    ) -> Result<Box<dyn RunningApp>, io::Error> {
        let app = Arc::new(App {
            spec: spec.clone(),
            records: Records::of(app_directory),
            address: socket(app_directory)?,
            env: self.env.clone(),
            runner: watch::Sender::new(None),
            wanted: Notify::new(),
            pidfd: process.pidfd,
            identity: process.identity,
            outcome: watch::Sender::new(None),
        });
        tokio::spawn(Arc::clone(&app).supervise(process.child));
        Ok(Box::new(Handle(app)))
    }
}

/// Where the runner of an application listens.
fn socket(app_directory: &Path) -> io::Result<RpcAddress> {
    let path = app_directory.join(".aloha/runner.sock");
    RpcAddress::unix(&path.to_string_lossy()).map_err(io::Error::other)
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

/// What a look at the lock and the records of an application gives.
enum Found {
    Nothing,
    Running(LaunchSpec, Process),
    Ended(LaunchSpec, Outcome, bool),
    CutShort(LaunchSpec, Run),
}

/// Looks until it is clear how an application stands.
async fn find(records: &Records, worker_id: &str) -> io::Result<Found> {
    loop {
        let (records, worker_id) = (records.clone(), worker_id.to_owned());
        if let Some(found) = blocking(move || look(&records, &worker_id)).await? {
            return Ok(found);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// How an application stands; `None` while somebody holds the lock who does not say who it is: a runner that is not up
/// yet, one that ends this moment, or a process about to be something else (between fork and exec it has all of ours).
fn look(records: &Records, worker_id: &str) -> io::Result<Option<Found>> {
    let launch = match records.launch()? {
        Some(launch) if launch.spec.worker_id == worker_id => launch,
        Some(_) | None => return Ok(Some(Found::Nothing)),
    };
    let Some(_lock) = records.lock()? else {
        let Some(run) = records.run()? else {
            return Ok(None);
        };
        let Some(pid) = Pid::from_raw(run.pid).filter(|_| run.is_of_this_boot().unwrap_or(true))
        else {
            return Ok(None);
        };
        return Ok(procfs::open(pid, run.start_ticks)?.map(|pidfd| {
            let process = Process {
                pidfd,
                identity: Identity::of(&run),
                child: None,
            };
            Found::Running(launch.spec, process)
        }));
    };
    Ok(Some(match records.trace()? {
        Trace::Nothing | Trace::NeverBegan(_) => Found::Nothing,
        Trace::CutShort(launch, run) => Found::CutShort(launch.spec, run),
        Trace::Ended {
            launch,
            outcome,
            reported,
        } => Found::Ended(launch.spec, outcome, reported),
    }))
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

/// A runner that was just started.
struct Spawned {
    child: Child,
    pidfd: OwnedFd,
    identity: Identity,
    said: ChildStdout,
}

/// Makes the directory ready for this attempt, which must be a new one, and starts its runner; blocks.
fn spawn(
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
async fn start_report(said: ChildStdout) -> io::Result<StartReport> {
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

/// A runner that its records do not lead to.
#[derive(Debug, Clone)]
struct Stray {
    pid: Pid,
    stat: procfs::Stat,
    app_id: String,
    attempt: u32,
}

/// The runners of a worker in its work directory that are not known, by what they execute.
fn strays(
    work_directory: &Path,
    worker_id: &str,
    known: &BTreeSet<(String, u32)>,
) -> io::Result<Vec<Stray>> {
    let work_directory = work_directory.canonicalize()?;
    // What a runner forks looks like it until it executes its program, but leads no session.
    let leaders = procfs::find(|pid, stat| stat.session == pid.as_raw_pid())?;
    let stray = |(pid, stat): (Pid, procfs::Stat)| {
        let arguments = procfs::arguments(pid);
        let [_, what, app_id, attempt, worker] = arguments.as_slice() else {
            return None;
        };
        let is_ours = what == runner::ARGUMENT
            && worker == worker_id
            && procfs::working_directory(pid)?.starts_with(&work_directory);
        let key = (app_id.clone(), attempt.parse().ok()?);
        (is_ours && !known.contains(&key)).then_some(Stray {
            pid,
            stat,
            app_id: key.0,
            attempt: key.1,
        })
    };
    Ok(leaders.into_iter().filter_map(stray).collect())
}

/// Kills everything below a runner, which ends then; if it does not, it is killed as well.
async fn end_stray(stray: Stray) -> io::Result<()> {
    for signal in [SystemSignal::TERM, SystemSignal::KILL] {
        let round = move |pid, stat: procfs::Stat| -> io::Result<bool> {
            let is_it = |now: &procfs::Stat| now.start_ticks == stat.start_ticks && !now.is_zombie;
            if !procfs::stat(pid).is_some_and(|now| is_it(&now)) {
                return Ok(true);
            }
            for (below, stat) in procfs::descendants(pid)? {
                procfs::signal(below, &stat, SystemSignal::KILL)?;
            }
            procfs::signal(pid, &stat, signal)?;
            Ok(false)
        };
        let gone = async {
            while !blocking(move || round(stray.pid, stray.stat)).await? {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Ok(())
        };
        if let Ok(gone) = tokio::time::timeout(VANISH_TIMEOUT, gone).await {
            return gone;
        }
    }
    let text = format!("the runner of {} cannot be killed", stray.app_id);
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// The variables that every process of an attempt was started with.
fn marks(spec: &LaunchSpec) -> Vec<String> {
    vec![
        format!("ALOHA_APP_ID={}", spec.app_id),
        format!("ALOHA_ATTEMPT={}", spec.attempt),
        format!("ALOHA_WORKER_ID={}", spec.worker_id),
    ]
}

/// How what a runner that is dead has left behind is known.
struct Left {
    runner: Identity,
    /// Whether we saw it end ourselves.
    saw_it_end: bool,
    /// As it recorded them.
    cgroups: Vec<PathBuf>,
}

impl Left {
    /// What our child has left. Where it has no record, or a false one, its cgroups are looked for.
    async fn of_child(runner: Identity, spec: &LaunchSpec, records: &Records) -> Self {
        let (records, name) = (records.clone(), spec.cgroup_name());
        let cgroups = blocking(move || match records.run() {
            Ok(Some(run)) if AppCgroup::open(&name, &run.cgroups).is_ok_and(|it| it.is_some()) => {
                Ok(run.cgroups)
            }
            _ => AppCgroup::made_by(runner.pid, &name),
        });
        let cgroups = cgroups.await.unwrap_or_else(|error| {
            warn!(app = %spec.app_id, %error, "cannot look for the cgroups of a runner");
            Vec::new()
        });
        Self {
            runner,
            saw_it_end: true,
            cgroups,
        }
    }
}

/// Kills what a runner that is dead has left behind, and waits until it is gone.
///
/// Such processes are known by their cgroup, and by their variables. That they are of the runner's session counts only
/// where we saw it end ourselves: later its number may be that of a stranger's session.
async fn end_leftovers(spec: &LaunchSpec, left: &Left) -> Result<(), AdoptError> {
    let failed = |cause| AdoptError::Processes {
        app_id: spec.app_id.clone(),
        cause,
    };
    let cgroup = AppCgroup::open(&spec.cgroup_name(), &left.cgroups).unwrap_or_else(|error| {
        warn!(app = %spec.app_id, %error, "no cgroup tells what a runner left");
        None
    });
    let (runner, saw_it_end, marks) = (left.runner, left.saw_it_end, marks(spec));
    let belongs = move |pid: Pid, stat: &procfs::Stat| {
        stat.start_ticks >= runner.start_ticks
            && ((saw_it_end && stat.session == runner.pid) || procfs::has_variables(pid, &marks))
    };
    let round = Arc::new(move || -> io::Result<bool> {
        if let Some(cgroup) = &cgroup {
            cgroup.kill()?;
        }
        let found = procfs::find(&belongs)?;
        for (pid, stat) in &found {
            procfs::signal(*pid, stat, SystemSignal::KILL)?;
        }
        Ok(match &cgroup {
            // It can be removed once it is empty, and may have been meanwhile.
            Some(cgroup) => found.is_empty() && cgroup.remove().is_ok(),
            None => found.is_empty(),
        })
    });
    let gone = async {
        loop {
            let round = Arc::clone(&round);
            if blocking(move || round()).await? {
                return Ok(());
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    };
    match tokio::time::timeout(VANISH_TIMEOUT, gone).await {
        Ok(gone) => gone.map_err(failed),
        Err(_) => Err(AdoptError::Unkillable {
            app_id: spec.app_id.clone(),
        }),
    }
}

/// An application under its runner, as its worker sees it.
#[derive(Debug)]
struct App {
    spec: LaunchSpec,
    records: Records,
    address: RpcAddress,
    env: RpcEnv,
    /// The way to the runner, once it was found.
    runner: watch::Sender<Option<RpcEndpointRef<RunnerMessage>>>,
    /// That somebody wants to talk to it.
    wanted: Notify,
    pidfd: OwnedFd,
    identity: Identity,
    outcome: watch::Sender<Option<Outcome>>,
}

impl App {
    /// Waits for the end of the application and of its runner, and publishes the outcome.
    async fn supervise(self: Arc<Self>, child: Option<Child>) {
        let attach_after = match child {
            Some(_) => ATTACH_DELAY,
            None => Duration::ZERO,
        };
        let told = tokio::select! {
            biased;
            outcome = self.attach(attach_after) => Some(outcome),
            ended = self.runner_ended() => {
                if let Err(error) = ended {
                    warn!(app = %self.spec.app_id, %error, "cannot watch a runner");
                }
                None
            }
        };
        if told.is_some()
            && tokio::time::timeout(EXIT_TIMEOUT, self.runner_ended())
                .await
                .is_err()
        {
            warn!(app = %self.spec.app_id, "a runner does not end, killing it");
            let _ = pidfd_send_signal(&self.pidfd, SystemSignal::KILL);
        }
        let status = match child {
            // It has ended, and is there to be taken note of.
            Some(mut child) => match child.try_wait() {
                Ok(None) => blocking(move || child.wait()).await.ok(),
                waited => waited.ok().flatten(),
            },
            None => None,
        };
        let outcome = match told {
            Some(outcome) => outcome,
            None => {
                let app = Arc::clone(&self);
                match blocking(move || app.records.outcome()).await {
                    Ok(Some(outcome)) => outcome,
                    Ok(None) => {
                        self.cut_short(status.map(|status| match status.signal() {
                            Some(signal) => format!("its runner was killed by signal {signal}"),
                            None => format!("its runner ended too early ({status})"),
                        }))
                        .await
                    }
                    Err(error) => {
                        Outcome::Lost(format!("the record of its end cannot be read: {error}"))
                    }
                }
            }
        };
        self.outcome.send_replace(Some(outcome));
    }

    /// Talks to the runner until it says how the application ended. Never returns if it cannot be reached.
    async fn attach(&self, after: Duration) -> Outcome {
        // Where an application is over at once, and nobody wants anything of it, its end and its record say all.
        drop(tokio::time::timeout(after, self.wanted.notified()).await);
        let mut pause = RETRY_INTERVAL;
        loop {
            let found = self.env.retrieve_endpoint_ref(&self.address, RUNNER).await;
            match found {
                Ok(runner) => {
                    let attempt = self.spec.attempt;
                    let ended =
                        runner.ask_for(FOR_EVER, |call| RunnerMessage::Attach { attempt, call });
                    self.runner.send_replace(Some(runner));
                    pause = RETRY_INTERVAL;
                    match ended.await {
                        Ok(outcome) => return outcome,
                        Err(error) => {
                            debug!(app = %self.spec.app_id, %error, "connection to a runner ended")
                        }
                    }
                    self.runner.send_replace(None);
                }
                Err(error) => debug!(app = %self.spec.app_id, %error, "runner not reached"),
            }
            // It is about to end, or not up yet; or it is of a version that says other things, and is left to run.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_INTERVAL_MAX);
        }
    }

    async fn runner_ended(&self) -> io::Result<()> {
        procfs::ended(self.pidfd.as_fd().try_clone_to_owned()?).await
    }

    /// The runner is gone and has recorded no end: what it left is ended, and that recorded.
    async fn cut_short(self: &Arc<Self>, how: Option<String>) -> Outcome {
        let reason = how.unwrap_or_else(|| "its runner was killed".to_owned());
        warn!(app = %self.spec.app_id, reason, "a runner ended before its application");
        let left = Left::of_child(self.identity, &self.spec, &self.records).await;
        if let Err(error) = end_leftovers(&self.spec, &left).await {
            warn!(app = %self.spec.app_id, error = with_causes(&error), "cannot end what a runner left");
        }
        let outcome = Outcome::Lost(reason);
        let (app, recorded) = (Arc::clone(self), outcome.clone());
        if let Err(error) = blocking(move || app.records.conclude(&recorded)).await {
            warn!(app = %self.spec.app_id, %error, "cannot record how the application ended");
        }
        outcome
    }

    /// Waits for the way to the runner.
    async fn reach(&self) -> Option<RpcEndpointRef<RunnerMessage>> {
        self.wanted.notify_one();
        let mut runner = self.runner.subscribe();
        let found = tokio::time::timeout(START_TIMEOUT, runner.wait_for(Option::is_some));
        found.await.ok()?.ok()?.clone()
    }

    async fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        let mut over = self.outcome.subscribe();
        let asked = async {
            let runner = self.reach().await?;
            match signal.clone() {
                Signal::Stop(reason) => {
                    let stop = |call| RunnerMessage::Stop { reason, call };
                    runner.ask_for(START_TIMEOUT, stop).await.ok()
                }
                Signal::Kill(reason) => {
                    let kill = |call| RunnerMessage::Kill { reason, call };
                    runner.ask_for(START_TIMEOUT, kill).await.ok()
                }
            }
        };
        let heard = tokio::select! {
            biased;
            _ = over.wait_for(Option::is_some) => return Ok(()),
            heard = asked => heard,
        };
        match (heard, signal) {
            (Some(()), _) => Ok(()),
            // Its end is seen, and what it leaves behind is killed as well.
            (None, Signal::Kill(_)) => match pidfd_send_signal(&self.pidfd, SystemSignal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(error) => Err(self.unreachable(error.into())),
            },
            (None, Signal::Stop(_)) => {
                Err(self.unreachable(io::Error::other("its runner does not answer")))
            }
        }
    }

    fn unreachable(&self, cause: io::Error) -> SignalError {
        SignalError::Unreachable {
            app_id: self.spec.app_id.clone(),
            cause,
        }
    }
}

/// What the worker holds; the supervising task holds the application too, and goes on without it.
#[derive(Debug)]
struct Handle(Arc<App>);

#[async_trait]
impl RunningApp for Handle {
    fn app_id(&self) -> &str {
        &self.0.spec.app_id
    }

    fn attempt(&self) -> u32 {
        self.0.spec.attempt
    }

    async fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        self.0.signal(signal).await
    }

    async fn wait(&self) -> Outcome {
        let mut outcome = self.0.outcome.subscribe();
        let found = outcome.wait_for(Option::is_some).await.ok();
        match found.and_then(|outcome| outcome.clone()) {
            Some(outcome) => outcome,
            // `self` holds the sender.
            None => std::future::pending().await,
        }
    }
}
