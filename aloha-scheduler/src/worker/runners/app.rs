//! One application under its runner, as its worker sees it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEndpointRef, RpcEnv};
use async_trait::async_trait;
use rustix::process::{Signal as SystemSignal, pidfd_send_signal};
use tokio::sync::{Notify, watch};
use tracing::{debug, warn};

use super::leftovers::{Left, end_leftovers};
use super::{Identity, RETRY_INTERVAL, START_TIMEOUT};
use crate::attempt::Outcome;
use crate::blocking::blocking;
use crate::causes::with_causes;
use crate::procfs;
use crate::runner::{RUNNER, Records, RunnerMessage};
use crate::worker::effect::Signal;
use crate::worker::launcher::{LaunchSpec, RunningApp, SignalError};

/// How long a runner may take to end once it said how its application did, and to hear that it is to kill it.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an application must run before its runner is talked to, unless somebody wants something of it.
const ATTACH_DELAY: Duration = Duration::from_millis(20);
/// The longest pause before a runner that could not be reached is tried again; it is reached by doubling.
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// The runner's socket in the directory of its application.
const SOCKET: &str = ".aloha/runner.sock";
/// The longest name a socket can have, in bytes: `sun_path` holds 108, with the zero at its end.
const SOCKET_PATH_MAX: usize = 107;
/// Longer than any application runs, and no trouble for a clock.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// An application under its runner, as its worker sees it.
#[derive(Debug)]
pub(super) struct App {
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

/// Where the runner of an application listens.
///
/// The name of a socket may be short only: one that is too long is reached by the working directory of its runner, which
/// is the application's.
fn socket(app_directory: &Path, runner: Identity) -> io::Result<RpcAddress> {
    let mut path = app_directory.join(SOCKET);
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        path = Path::new("/proc")
            .join(runner.pid.to_string())
            .join("cwd")
            .join(SOCKET);
    }
    RpcAddress::unix(&path.to_string_lossy()).map_err(io::Error::other)
}

impl App {
    pub(super) fn new(
        spec: &LaunchSpec,
        app_directory: &Path,
        env: RpcEnv,
        pidfd: OwnedFd,
        identity: Identity,
    ) -> io::Result<Self> {
        Ok(Self {
            spec: spec.clone(),
            records: Records::of(app_directory),
            address: socket(app_directory, identity)?,
            env,
            runner: watch::Sender::new(None),
            wanted: Notify::new(),
            pidfd,
            identity,
            outcome: watch::Sender::new(None),
        })
    }

    /// Waits for the end of the application and of its runner, and publishes the outcome.
    pub(super) async fn supervise(self: Arc<Self>, child: Option<Child>) {
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
                    runner.ask_for(EXIT_TIMEOUT, kill).await.ok()
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
pub(super) struct Handle(pub(super) Arc<App>);

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
