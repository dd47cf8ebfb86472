//! Applications as processes of this machine, children of the worker.
//!
//! Each runs in a process group of its own, whose id is the pid of its first process, the leader.
//!
//! ```text
//!   start ─► leader runs ─► leader is a zombie ─► rest of its group is ended ─► leader reaped ─► outcome
//!                 │              (pid still ours)   asked to end: it gets the grace period too
//!                 └── signal: to the whole group                          else: killed at once
//! ```
//!
//! **Pids are reused**, so a number alone must never be signalled. The leader is reaped here and nowhere else, after the
//! last signal to its group and under the lock that signalling takes: as long as it is not, the kernel gives its pid, and
//! with it the group's id, to nobody. That it ended is learnt from a pidfd, which does not reap.
//!
//! **The application is over when its leader is.** What it leaves behind in its group is killed; who wants to
//! go on in the background must be waited for by the leader. What calls `setsid` leaves the group and is not found.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, PidfdFlags, kill_process_group, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;
use tracing::{info, warn};

use super::app_directory;
use super::effect::Signal;
use super::facts::Facts;
use super::launcher::{
    AdoptError, Adopted, LaunchError, LaunchSpec, Launcher, RunningApp, SignalError,
};
use super::procfs::{self, blocking};
use crate::attempt::Outcome;

/// The entry points this launcher knows.
const ENTRY_POINTS: &[&str] = &["SimpleProcess", "me.jrwang.app.SimpleProcess", "Process"];

/// How long processes that were killed may take to vanish: it needs no cooperation of theirs, only the kernel's.
const VANISH_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs applications as children of this process; needs a tokio runtime with IO and time.
///
/// They do not outlive the worker usefully: nobody but their parent can learn their exit code. So [`Launcher::adopt`]
/// ends what a dead worker left running, and reports it as lost.
#[derive(Debug, Clone)]
pub struct ProcessLauncher {
    kill_grace: Duration,
}

impl ProcessLauncher {
    /// `kill_grace` is how long processes that were asked to end may go on where nobody else watches the clock: the rest
    /// of a group whose leader has ended, and what a dead worker left.
    pub fn new(kill_grace: Duration) -> Self {
        Self { kill_grace }
    }
}

#[async_trait]
impl Launcher for ProcessLauncher {
    async fn start(&self, spec: LaunchSpec) -> Result<Box<dyn RunningApp>, LaunchError> {
        let started = blocking(move || Started::new(&spec)).await?;
        let Started {
            facts,
            directory,
            child,
            pidfd,
            group,
        } = started;
        let (phase, _) = watch::channel(Phase::Running);
        let app = Arc::new(Process {
            facts,
            directory,
            group,
            child: Mutex::new(Some(child)),
            phase,
        });
        tokio::spawn(Arc::clone(&app).supervise(pidfd, self.kill_grace));
        Ok(Box::new(Handle(app)))
    }

    async fn adopt(&self, app_directory: &Path) -> Result<Adopted, AdoptError> {
        let path = Facts::path(app_directory);
        let directory = app_directory.to_owned();
        let facts = blocking(move || Facts::read(&directory)).await;
        let unusable = |cause| AdoptError::Record { path, cause };
        let mut facts = match facts {
            Ok(None) => return Ok(Adopted::Nothing),
            Ok(Some(facts)) => facts,
            Err(cause) => return Err(unusable(cause)),
        };
        let outcome = match facts.outcome.take() {
            Some(outcome) => outcome,
            None => {
                let reason = end_leftover(&facts, self.kill_grace).await?;
                let outcome = Outcome::Lost(reason.to_owned());
                facts.outcome = Some(outcome.clone());
                facts.write(app_directory).map_err(unusable)?;
                outcome
            }
        };
        Ok(Adopted::Ended {
            app_id: facts.app_id,
            attempt: facts.attempt,
            outcome,
        })
    }
}

/// Ends what is left of a group, and says what there was.
async fn end_leftover(facts: &Facts, grace: Duration) -> Result<&'static str, AdoptError> {
    let failed = |cause| AdoptError::Processes {
        app_id: facts.app_id.clone(),
        cause,
    };
    let Some(group) = facts.group().map_err(failed)? else {
        return Ok("the machine was restarted");
    };
    // Once the leader is gone, its number may have become a stranger's group: then only what carries the
    // application's id is ours.
    let trusted = facts.leader_exists().map_err(failed)?;
    let app_id = facts.app_id.clone();
    let ours = move |pid| trusted || procfs::has_variable(pid, "ALOHA_APP_ID", &app_id);

    let mut found = false;
    for (signal, patience) in [
        (rustix::process::Signal::TERM, grace),
        (rustix::process::Signal::KILL, VANISH_TIMEOUT),
        // A process may have forked while the first round was under way.
        (rustix::process::Signal::KILL, VANISH_TIMEOUT),
    ] {
        let belongs = ours.clone();
        let members = blocking(move || procfs::open_group(group, belongs)).await;
        for (pid, fd) in members.map_err(failed)? {
            found = true;
            warn!(app = %facts.app_id, pid = pid.as_raw_pid(), ?signal, "ending what a dead worker left");
            match pidfd_send_signal(fd, signal) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        let gone = procfs::group_gone(group, ours.clone());
        if let Ok(gone) = tokio::time::timeout(patience, gone).await {
            gone.map_err(failed)?;
            return Ok(match found {
                true => "it was still running when its worker came back, and was ended",
                false => "it ended while no worker was there to see how",
            });
        }
    }
    Err(AdoptError::Unkillable {
        app_id: facts.app_id.clone(),
    })
}

/// Everything `start` does that blocks, and what comes out of it.
struct Started {
    facts: Facts,
    directory: PathBuf,
    child: Child,
    pidfd: OwnedFd,
    group: Pid,
}

impl Started {
    fn new(spec: &LaunchSpec) -> Result<Self, LaunchError> {
        let mut command = command(spec)?;
        let directory = spec.work_directory.join(&spec.app_id);
        prepare(spec, &directory)?;
        let output = |name| {
            app_directory::output(&directory, name)
                .map_err(|(path, cause)| LaunchError::Directory { path, cause })
        };
        command
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(output("stdout")?)
            .stderr(output("stderr")?)
            .process_group(0);
        let not_spawned = |cause| LaunchError::Spawn {
            program: command_name(spec).to_owned(),
            cause,
        };
        let mut child = command.spawn().map_err(not_spawned)?;
        let group = Pid::from_child(&child);
        let recorded = || -> io::Result<(Facts, OwnedFd)> {
            let facts = Facts::of(&spec.app_id, spec.attempt, group)?;
            facts.write(&directory)?;
            Ok((facts, pidfd_open(group, PidfdFlags::NONBLOCK)?))
        };
        match recorded() {
            Ok((facts, pidfd)) => {
                info!(app = %spec.app_id, attempt = spec.attempt, pid = facts.pid, "application started");
                Ok(Self {
                    facts,
                    directory,
                    child,
                    pidfd,
                    group,
                })
            }
            Err(cause) => {
                // What cannot be watched must not run.
                let _ = kill_process_group(group, rustix::process::Signal::KILL);
                let _ = child.wait();
                Err(LaunchError::Directory {
                    path: Facts::path(&directory),
                    cause,
                })
            }
        }
    }
}

fn command_name(spec: &LaunchSpec) -> &str {
    match spec.entry_point.as_str() {
        "Process" => spec.args.first().map_or("", String::as_str),
        _ => "/bin/bash",
    }
}

/// The command of an entry point, with its environment.
fn command(spec: &LaunchSpec) -> Result<Command, LaunchError> {
    if !ENTRY_POINTS.contains(&spec.entry_point.as_str()) {
        return Err(LaunchError::UnknownEntryPoint {
            entry_point: spec.entry_point.clone(),
            known: ENTRY_POINTS,
        });
    }
    if spec.args.first().is_none_or(String::is_empty) {
        return Err(LaunchError::NoCommand {
            entry_point: spec.entry_point.clone(),
        });
    }
    let bad = |what, text: &str| LaunchError::BadText {
        what,
        text: text.to_owned(),
    };
    if let Some(text) = spec.args.iter().find(|text| text.contains('\0')) {
        return Err(bad("an argument", text));
    }
    for (name, value) in &spec.environment {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(bad("the name of a variable", name));
        }
        if value.contains('\0') {
            return Err(bad("the value of a variable", value));
        }
    }
    let mut command = Command::new(command_name(spec));
    match spec.entry_point.as_str() {
        "Process" => command.args(&spec.args[1..]),
        _ => command.arg("-c").arg(spec.args.join(" ")),
    };
    command
        .envs(&spec.environment)
        .env("ALOHA_APP_ID", &spec.app_id)
        .env("ALOHA_ATTEMPT", spec.attempt.to_string())
        .env("ALOHA_MASTER", &spec.master)
        .env("ALOHA_WORKER_ID", &spec.worker_id);
    if !spec.libs.is_empty() {
        command.env("ALOHA_LIBS", spec.libs.join("\n"));
    }
    Ok(command)
}

/// Makes the directory ready for this attempt, which must be a new one.
fn prepare(spec: &LaunchSpec, directory: &Path) -> Result<(), LaunchError> {
    let app_id = || spec.app_id.clone();
    if !app_directory::is_component(&spec.app_id) {
        return Err(LaunchError::BadAppId { app_id: app_id() });
    }
    let unprepared = |cause| LaunchError::Directory {
        path: directory.to_owned(),
        cause,
    };
    app_directory::create(directory).map_err(unprepared)?;
    let Some(facts) = Facts::read(directory).map_err(unprepared)? else {
        // Output without a record: from a worker that died before it wrote one.
        return match spec.attempt {
            0 | 1 => Ok(()),
            later => app_directory::set_aside(directory, later - 1).map_err(unprepared),
        };
    };
    if facts.attempt >= spec.attempt {
        return Err(LaunchError::StaleAttempt {
            app_id: app_id(),
            attempt: spec.attempt,
            seen: facts.attempt,
        });
    }
    if facts.outcome.is_none() && facts.leader_exists().map_err(unprepared)? {
        return Err(LaunchError::StillRunning {
            app_id: app_id(),
            seen: facts.attempt,
            pid: facts.pid,
        });
    }
    app_directory::set_aside(directory, facts.attempt).map_err(unprepared)
}

/// How far an application has come; it never goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Running,
    Terminating,
    Killing,
    Ended(Outcome),
}

/// An application and its processes.
#[derive(Debug)]
struct Process {
    facts: Facts,
    directory: PathBuf,
    group: Pid,
    /// The leader until it is reaped. Whoever signals the group holds this lock.
    child: Mutex<Option<Child>>,
    phase: watch::Sender<Phase>,
}

impl Process {
    /// Signals the group, unless it is over.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if child.is_none() {
            return Ok(());
        }
        let (number, phase) = match signal {
            Signal::Term => (rustix::process::Signal::TERM, Phase::Terminating),
            Signal::Kill => (rustix::process::Signal::KILL, Phase::Killing),
        };
        self.phase.send_if_modified(|current| {
            let rises = matches!(current, Phase::Running)
                || (&*current, &phase) == (&Phase::Terminating, &Phase::Killing);
            if rises {
                *current = phase.clone();
            }
            rises
        });
        Ok(kill_process_group(self.group, number)?)
    }

    /// Waits for the leader, ends the rest of its group, and publishes the outcome.
    async fn supervise(self: Arc<Self>, leader: OwnedFd, grace: Duration) {
        if let Err(error) = procfs::ended(leader).await {
            warn!(app = %self.facts.app_id, %error, "cannot watch the application, ending it");
        }
        if *self.phase.borrow() == Phase::Terminating {
            // The rest was asked as well, and may be cleaning up.
            let mut phase = self.phase.subscribe();
            tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase == Phase::Killing) => {}
                _ = tokio::time::timeout(grace, procfs::group_gone(self.group, |_| true)) => {}
            }
        }
        if let Err(error) = self.signal(Signal::Kill) {
            warn!(app = %self.facts.app_id, %error, "cannot end the rest of the application");
        }
        let gone = procfs::group_gone(self.group, |_| true);
        if !matches!(tokio::time::timeout(VANISH_TIMEOUT, gone).await, Ok(Ok(()))) {
            warn!(app = %self.facts.app_id, "some process of the application cannot be ended");
        }
        let app = Arc::clone(&self);
        let outcome = blocking(move || app.reap()).await;
        info!(app = %self.facts.app_id, attempt = self.facts.attempt, %outcome, "application ended");
        self.phase.send_replace(Phase::Ended(outcome));
    }

    /// Takes the leader's exit status and records it; from here on its pid is anybody's.
    fn reap(&self) -> Outcome {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let status = child.take().map(|mut child| child.wait());
        drop(child);
        let outcome = match status {
            Some(Ok(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => Outcome::Exited(code),
                (None, signal) => Outcome::Signaled(signal.unwrap_or_default()),
            },
            Some(Err(error)) => Outcome::Lost(error.to_string()),
            None => unreachable!("the leader is reaped once"),
        };
        let mut facts = self.facts.clone();
        facts.outcome = Some(outcome.clone());
        if let Err(error) = facts.write(&self.directory) {
            warn!(app = %self.facts.app_id, %error, "cannot record how the application ended");
        }
        outcome
    }
}

/// What the worker holds; the supervising task holds the process too, and goes on without it.
#[derive(Debug)]
struct Handle(Arc<Process>);

#[async_trait]
impl RunningApp for Handle {
    fn app_id(&self) -> &str {
        &self.0.facts.app_id
    }

    fn attempt(&self) -> u32 {
        self.0.facts.attempt
    }

    async fn signal(&self, signal: Signal) -> Result<(), SignalError> {
        self.0.signal(signal).map_err(|cause| SignalError::Refused {
            app_id: self.0.facts.app_id.clone(),
            cause,
        })
    }

    async fn wait(&self) -> Outcome {
        let mut phase = self.0.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Ended(_)));
        match ended.await.as_deref() {
            Ok(Phase::Ended(outcome)) => outcome.clone(),
            _ => unreachable!("the sender lives as long as this handle"),
        }
    }
}
