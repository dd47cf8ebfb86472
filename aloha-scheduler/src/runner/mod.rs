//! The runner: the small process between a worker and one application.
//!
//! ```text
//!   worker ── starts, hands on the lock ──► runner ── hosts ──► Application ── starts ──► processes
//!     │                                       │                                             │
//!     │◄── Attach, Stop, Kill: our RPC over ──┤◄── pipes: stdout, stderr; every orphan ─────┘
//!     │    .aloha/runner.sock                 │
//!     ▼                                       ▼
//!   adopts it again after a restart         .aloha/exit.json, then the answer to Attach, then its own end
//! ```
//!
//! It is `aloha` executed again, in a session of its own, so that neither the end of its worker nor a Ctrl-C at its
//! worker's terminal concerns it. It ends once everything of its application has ended and that is on disk. Where no
//! worker comes for [`RunnerSettings::worker_timeout`], it ends the application, then itself.

mod cgroup;
mod children;
mod core;
mod endpoint;
mod entry_points;
mod executable;
mod host_protocol;
mod hosted;
mod output;
mod pipes;
mod record;
mod rlimits;
mod settings;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use aloha_rpc::{RpcConfig, RpcEnv};
use rustix::process::getpid;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{error, warn};

pub(crate) use self::cgroup::AppCgroup;
use self::cgroup::PlannedCgroup;
pub use self::cgroup::{CgroupSupport, CgroupVersion, Enforced};
use self::children::{Children, Spawner};
use self::core::RunnerCore;
use self::endpoint::{OwnEvent, Runner, own};
pub(crate) use self::endpoint::{RUNNER, RunnerMessage};
pub use self::entry_points::{EntryPointError, application};
pub use self::executable::ExecutableError;
pub(crate) use self::host_protocol::{Assignment, HOST, HostMessage, RUNNER_VARIABLE};
pub use self::hosted::HostedApplication;
pub(crate) use self::record::{Launch, Records, Run, Trace};
pub use self::settings::{CpuEnforcement, Enforcement, LogSettings, RunnerSettings};
use crate::application::{Application, ApplicationContext, ApplicationError, ExitState};
use crate::attempt::Outcome;
use crate::causes::with_causes;
use crate::clock;

/// The first argument of an executable that is to be a runner.
pub(crate) const ARGUMENT: &str = "aloha-runner";

/// What a runner tells its worker through its standard output, once: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum StartReport {
    /// The application was started.
    Started,
    /// It was not, and never will be; this is recorded.
    Failed(String),
}

/// Becomes a runner if that is what this process was started for, and gives its exit code; else `None`.
///
/// Every executable that runs workers calls this first thing in its `main`, before there is any other thread: a worker
/// starts runners by executing its own executable again.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     if let Some(code) = aloha_scheduler::runner::run_if_asked(std::env::args_os()) {
///         return code;
///     }
///     // … what the executable is for
///     std::process::ExitCode::SUCCESS
/// }
/// ```
pub fn run_if_asked(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    let first = arguments.next()?;
    if first == rlimits::EXEC_STAGE {
        return Some(rlimits::exec_stage(arguments));
    }
    if first != ARGUMENT {
        return None;
    }
    Some(match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = with_causes(&error), "runner ended");
            ExitCode::FAILURE
        }
    })
}

/// A life as a runner. The working directory is that of the application, standard input its lock, standard output a
/// pipe to the worker, standard error `.aloha/runner.log`.
fn run() -> io::Result<()> {
    // Standard error is `.aloha/runner.log`. It fails only where somebody listens already.
    let _ = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        // They would be printed, and a full disk makes a panic of that.
        .log_internal_errors(false)
        .with_max_level(tracing::Level::WARN)
        .try_init();
    // It fails only for a leader of a group, which has a group of its own already.
    if let Err(error) = rustix::process::setsid() {
        warn!(%error, "no session of its own");
    }
    rustix::process::set_child_subreaper(Some(getpid()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(Path::new("/proc/self/cwd")));
    runtime.shutdown_background();
    result
}

async fn serve(directory: &Path) -> io::Result<()> {
    let directory = directory.canonicalize()?;
    let records = Records::of(&directory);
    let launch = records
        .launch()?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no launch.json"))?;
    // Before they are made: whoever finds the runner killed removes them.
    let planned = plan_cgroup(&launch);
    let directories = planned.as_ref().map(PlannedCgroup::directories);
    records.write_run(&Run::of_this_process(directories.unwrap_or_default())?)?;
    let needs = launch.spec.description.needs();
    let made = planned.map(|planned| planned.make(needs).map_err(no_cgroup));
    let cgroup = made.and_then(Result::ok).flatten();
    let exit = records.reserve_exit()?;
    let signals = Signals::new()?;

    let mut config = RpcConfig::default();
    // An application that is stopped for a while would be given up. Of a death the system tells.
    config.transport.ping_interval = None;
    let env = RpcEnv::builder("runner")
        .config(config)
        .bind("unix:/proc/self/cwd/.aloha/runner.sock");
    let env = env.start().await.map_err(io::Error::other)?;

    let (output, copies) = pipes::open(&directory, launch.settings.logs)?;
    let limits = launch.spec.description.limits;
    let children = Arc::new(Children::new(output, cgroup, limits));
    let Launch { spec, settings, .. } = launch;
    let context = ApplicationContext {
        app_id: spec.app_id,
        attempt: spec.attempt,
        description: spec.description,
        directory,
        master: spec.master,
        worker_id: spec.worker_id,
        configuration: Arc::new(settings.configuration),
        processes: Arc::new(Spawner(Arc::clone(&children))),
    };
    let (application, mut running) = match begin(&context, &children, &env).await {
        Ok(begun) => begun,
        Err(error) => {
            let reason = error.to_string();
            exit.write(&Outcome::CouldNotStart(reason.clone()))?;
            children.leave_cgroup();
            report(&StartReport::Failed(reason));
            return Ok(());
        }
    };

    let grace = context.description().stop.grace(settings.kill_grace);
    let now = clock::now(&**env.runtime());
    let lost_grace = settings
        .worker_lost_grace_max
        .map_or(grace, |max| grace.min(max));
    let core = RunnerCore::new(grace, settings.worker_timeout, now).worker_lost_grace(lost_grace);
    let (over, mut ended) = oneshot::channel();
    let runner = Runner::new(
        core,
        application,
        context,
        Arc::clone(&children),
        exit,
        over,
    );
    let me = env
        .setup_endpoint(RUNNER, runner)
        .map_err(io::Error::other)?;
    report(&StartReport::Started);

    let tell = |event| drop(me.send(own(event)));
    let mut copies = std::pin::pin!(copies);
    let (mut returned, mut written) = (false, false);
    let Signals {
        mut child,
        mut terminate,
        ..
    } = signals;
    // What ended before anybody listened is noticed as well.
    tell(OwnEvent::ChildEnded);
    loop {
        tokio::select! {
            biased;
            _ = &mut ended => break,
            _ = child.recv() => tell(OwnEvent::ChildEnded),
            _ = terminate.recv() => tell(OwnEvent::Terminated),
            seen = &mut running, if !returned => {
                returned = true;
                tell(OwnEvent::Returned(flatten(seen)));
            }
            () = &mut copies, if !written => {
                written = true;
                tell(OwnEvent::OutputWritten);
            }
        }
    }
    // The last answers leave before the process does.
    env.shutdown().await;
    Ok(())
}

/// The control group of the application; without one it runs as well, and is ended all the same.
fn plan_cgroup(launch: &Launch) -> Option<PlannedCgroup> {
    let planned = PlannedCgroup::new(&launch.spec.cgroup_name(), &launch.settings.enforcement);
    planned.map_err(no_cgroup).ok()
}

fn no_cgroup(error: io::Error) {
    warn!(%error, "no cgroup for the application");
}

/// Starts the application, and waits until a process of it runs or it has returned.
async fn begin(
    context: &ApplicationContext,
    children: &Children,
    env: &RpcEnv,
) -> Result<(Arc<dyn Application>, JoinHandle<Result<ExitState, String>>), ApplicationError> {
    let application = application(context.description(), env)?;
    let mut running = tokio::spawn({
        let (application, context) = (Arc::clone(&application), context.clone());
        async move {
            let seen = application.start(&context).await;
            seen.map_err(|error| error.to_string())
        }
    });
    tokio::select! {
        biased;
        () = children.any_started() => Ok((application, running)),
        seen = &mut running => match flatten(seen) {
            Err(reason) => Err(ApplicationError::new(reason)),
            // It needs no process, and is over already.
            Ok(state) => Ok((application, tokio::spawn(async move { Ok(state) }))),
        },
    }
}

fn flatten(
    seen: Result<Result<ExitState, String>, tokio::task::JoinError>,
) -> Result<ExitState, String> {
    seen.unwrap_or_else(|error| Err(format!("the application panicked: {error}")))
}

/// Tells the worker how the start went; that nobody listens any more is no failure.
fn report(report: &StartReport) {
    let mut text = serde_json::to_vec(report).expect("it has only texts");
    text.push(b'\n');
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(&text).and_then(|()| out.flush()) {
        warn!(error = with_causes(&error), "nobody hears of the start");
    }
}

/// The signals a runner listens to. Those it only takes note of would end it otherwise.
struct Signals {
    child: Signal,
    terminate: Signal,
    _ignored: [Signal; 3],
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            _ignored: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
                // A file that reaches the worker's limit: the write fails then, and that is dealt with.
                signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
            ],
        })
    }
}
