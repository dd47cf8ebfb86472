//! The executable of a user's own types: what it does in `main`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{
    AddressError, AskError, LookupError, RpcAddress, RpcConfig, RpcEndpointRef, RpcEnv, StartError,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinError;

use super::children::Children;
use super::panics::text_of;
use super::{Application, ApplicationContext, ExitState, ShutdownReason};
use crate::causes::with_causes;
use crate::runner::{Assignment, HOST, HostMessage, RUNNER_VARIABLE};

/// The exit code of an application that panicked, as that of any Rust program.
const PANICKED: u8 = 101;

type Make = Box<dyn FnOnce() -> Arc<dyn Application> + Send>;

/// The types of application that an executable has, by their entry points.
///
/// # Examples
///
/// A whole executable; `Greeter` and `Counter` are [`Application`]s:
///
/// ```no_run
/// # use aloha_scheduler::application::{ApplicationError, ExitState, StopFlag, ThreadApplication};
/// use std::process::ExitCode;
///
/// use aloha_scheduler::application::Applications;
///
/// fn main() -> ExitCode {
///     Applications::new()
///         .with("com.example.Greeter", greeter)
///         .with("com.example.Counter", counter)
///         .run()
/// }
/// # fn greeter() -> impl aloha_scheduler::application::Application {
/// #     ThreadApplication::new(|_, _| Ok(ExitState::SUCCESS))
/// # }
/// # fn counter() -> impl aloha_scheduler::application::Application { greeter() }
/// ```
#[derive(Default)]
#[must_use = "nothing runs before `run`"]
pub struct Applications {
    makers: BTreeMap<String, Make>,
}

impl Applications {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has `make` give the application of this entry point; only the one that was submitted is made.
    ///
    /// # Panics
    ///
    /// The entry point is given twice.
    pub fn with<A: Application>(
        mut self,
        entry_point: impl Into<String>,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Self {
        let entry_point = entry_point.into();
        let make: Make = Box::new(|| Arc::new(make()));
        let again = self.makers.insert(entry_point.clone(), make);
        assert!(again.is_none(), "two applications named {entry_point:?}");
        self
    }

    /// Runs the application that this process was started for, and gives the exit code: for the end of `main`.
    ///
    /// It is that of [`Application::start`] (128 more than its number for a signal), 1 with the text on stderr for an
    /// error of it, 101 for a panic. The application has as many threads for its tasks as it has cores, but at least
    /// two, and may block them: what it is told comes in elsewhere. The executable ends at once when its runner is gone.
    ///
    /// Started by hand, it says on stderr how it is submitted, and gives 2.
    #[must_use = "the exit code is for `main` to return"]
    pub fn run(self) -> ExitCode {
        let Some(runner) = std::env::var_os(RUNNER_VARIABLE) else {
            self.explain();
            return ExitCode::from(2);
        };
        match self.run_for(&runner.to_string_lossy()) {
            Ok(code) => code.into(),
            Err(error) => {
                complain(&with_causes(&error));
                ExitCode::FAILURE
            }
        }
    }

    fn explain(&self) {
        let executable = std::env::current_exe().unwrap_or_else(|_| "EXECUTABLE".into());
        let executable = executable.display();
        let first = self.makers.keys().next();
        let first = first.map_or("ENTRY_POINT", String::as_str);
        complain(&format!(
            "{executable} holds applications of Aloha: {}.\n\
             It is started by the cluster, so submit one of them:\n  \
             aloha submit --entry-point {first} --lib {executable} -- ARGUMENTS",
            self.names()
        ));
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.makers.keys().map(String::as_str).collect();
        names.join(", ")
    }

    /// The runner is listened to on this thread, and the application runs on others.
    fn run_for(self, runner: &str) -> Result<u8, HostError> {
        let listening = Builder::new_current_thread().enable_all().build();
        let listening = listening.map_err(HostError::Runtime)?;
        let code = listening.block_on(self.host(runner));
        // What still runs ends with the process.
        listening.shutdown_background();
        code
    }

    async fn host(mut self, runner: &str) -> Result<u8, HostError> {
        let runner = Runner::connect(runner).await?;
        let assignment = runner.assignment().await?;
        let Some(make) = self.makers.remove(assignment.entry_point()) else {
            let (unknown, known) = (assignment.entry_point(), self.names());
            runner
                .refuse(format!(
                    "unknown entry point {unknown:?}, its executable has {known}"
                ))
                .await?;
            return Ok(1);
        };
        let workers = Workers::new(assignment.cores())?;
        let context = assignment.into_context(Arc::new(Children::inheriting()));
        tokio::select! {
            biased;
            code = live(workers.handle(), make, context, runner.shutdown()) => Ok(code),
            () = runner.gone() => Err(HostError::RunnerGone),
        }
    }
}

impl fmt::Debug for Applications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.makers.keys()).finish()
    }
}

/// Makes and runs the application, and cleans up; gives the exit code.
async fn live(
    workers: &Handle,
    make: Make,
    context: ApplicationContext,
    shutdown: impl Future<Output = ShutdownReason>,
) -> u8 {
    let entry_point = context.description().entry_point.clone();
    let panicked = |doing: &str, error: JoinError| {
        let text = match error.try_into_panic() {
            Ok(panic) => text_of(&*panic),
            Err(error) => error.to_string(),
        };
        complain(&format!("{entry_point} panicked in {doing}: {text}"));
        PANICKED
    };
    let application = match workers.spawn(async { make() }).await {
        Ok(application) => application,
        Err(error) => return panicked("its making", error),
    };
    let (it, its) = (Arc::clone(&application), context.clone());
    let mut start = workers.spawn(async move { it.start(&its).await });
    let ended = tokio::select! {
        biased;
        ended = &mut start => ended,
        reason = shutdown => {
            let (it, its) = (Arc::clone(&application), context.clone());
            // Whatever becomes of it: an application that goes on is ended by its runner.
            drop(workers.spawn(async move { it.shutdown(&its, &reason).await }));
            start.await
        }
    };
    let code = match ended {
        Ok(Ok(state)) => exit_code(state),
        Ok(Err(error)) => {
            complain(&format!("{entry_point} failed: {error}"));
            1
        }
        Err(error) => panicked("start", error),
    };
    let cleaned = workers.spawn(async move { application.clean(&context).await });
    if let Err(error) = cleaned.await {
        panicked("clean", error);
    }
    code
}

/// Of a code the system keeps the lowest eight bits; a failure stays one.
fn exit_code(state: ExitState) -> u8 {
    let code = match state {
        ExitState::Code(code) => code,
        ExitState::Signal(signal) => signal.saturating_add(128),
    };
    match code.to_le_bytes()[0] {
        0 if code != 0 => 1,
        low => low,
    }
}

/// Whoever reads stderr; that nobody does is no failure.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The threads of the application. They are not waited for: it may block them for good.
struct Workers(Option<Runtime>);

impl Workers {
    fn new(cores: u32) -> Result<Self, HostError> {
        let available = std::thread::available_parallelism().map_or(2, usize::from);
        let cores = usize::try_from(cores).unwrap_or(usize::MAX);
        let runtime = Builder::new_multi_thread()
            .worker_threads(cores.min(available).max(2))
            .enable_all()
            .build();
        Ok(Self(Some(runtime.map_err(HostError::Runtime)?)))
    }

    fn handle(&self) -> &Handle {
        let runtime = self.0.as_ref();
        runtime.expect("it is there until the drop").handle()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The runner, as this executable sees it.
struct Runner {
    env: RpcEnv,
    desk: RpcEndpointRef<HostMessage>,
}

impl Runner {
    async fn connect(address: &str) -> Result<Self, HostError> {
        let address: RpcAddress = address.parse()?;
        let mut config = RpcConfig::default();
        // A runner that was stopped for a while is no reason to end; of its death the system tells.
        config.transport.ping_interval = None;
        let env = RpcEnv::builder("application")
            .config(config)
            .start()
            .await?;
        let desk = env.retrieve_endpoint_ref(&address, HOST).await?;
        Ok(Self { env, desk })
    }

    async fn assignment(&self) -> Result<Assignment, HostError> {
        let text = self.desk.ask(HostMessage::Assignment).await?;
        Assignment::from_json(&text).map_err(HostError::Assignment)
    }

    async fn refuse(&self, reason: String) -> Result<(), HostError> {
        let refusal = |call| HostMessage::CannotRun { reason, call };
        Ok(self.desk.ask(refusal).await?)
    }

    /// The reason to end, when there is one.
    async fn shutdown(&self) -> ShutdownReason {
        let told = self
            .desk
            .ask_for(Duration::MAX, HostMessage::AwaitShutdown)
            .await;
        match told {
            Ok(reason) => reason,
            // A newer runner has reasons that are not known here.
            Err(AskError::BadReply { .. }) => ShutdownReason::RunnerStops,
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends with the connection to the runner.
    async fn gone(&self) {
        self.env.watch(&self.desk).await;
    }
}

/// Why an executable cannot run an application.
#[derive(Debug, thiserror::Error)]
enum HostError {
    #[error("{RUNNER_VARIABLE} does not name a runner: it is set by the cluster alone")]
    Address(#[from] AddressError),
    #[error("no runtime for the application")]
    Runtime(#[source] io::Error),
    #[error("cannot connect to the runner")]
    Start(#[from] StartError),
    #[error("cannot find the runner")]
    Lookup(#[from] LookupError),
    #[error("the runner does not answer")]
    Ask(#[from] AskError),
    #[error("the runner gave something else to run than this version of Aloha knows")]
    Assignment(#[source] serde_json::Error),
    #[error("the runner is gone, and the application ends with it")]
    RunnerGone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_stays_one_in_eight_bits() {
        for (state, code) in [
            (ExitState::SUCCESS, 0),
            (ExitState::Code(7), 7),
            (ExitState::Code(-1), 255),
            (ExitState::Code(256), 1),
            (ExitState::Signal(9), 137),
        ] {
            assert_eq!(exit_code(state), code, "{state:?}");
        }
    }
}
