//! What an application is to those who write one: the extension point of the cluster.
//!
//! An [`Application`] is started, may be asked to end, and cleans up. A shell command ([`SimpleProcess`]), a program
//! with arguments ([`Process`]) and a program for Spark ([`SparkSubmit`]) are built in. Anything else is a type of one's own, in an executable of one's own: it
//! implements [`Application`], or has it done by [`ProcessApplication`], [`TaskApplication`] or [`ThreadApplication`], and
//! `main` names it to [`Applications`].
//!
//! ```text
//!   worker ──starts──► runner ──starts──► executable of the user, one for each application
//!                        │                     │  Applications::run: finds the type that the entry point names
//!                        │ ◄── what to run? ── │
//!                        │ ─── shutdown, why ► │  start · shutdown(reason) · clean
//!                        ▼                     ▼
//!              logs, exit code, kill      crashes alone, has dependencies of its own
//! ```
//!
//! # Examples
//!
//! The smallest complete program. It is submitted with `aloha submit --entry-point com.example.Greeter --lib
//! /path/of/the/executable -- WALL-E`:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::time::Duration;
//!
//! use aloha_scheduler::application::{Application, Applications, ExitState, ThreadApplication};
//!
//! fn greeter() -> impl Application {
//!     ThreadApplication::new(|context, stop| {
//!         let name = context.description().args.join(" ");
//!         while stop.wait_timeout(Duration::from_secs(1)).is_none() {
//!             println!("Aloha, {name}");
//!         }
//!         Ok(ExitState::SUCCESS)
//!     })
//! }
//!
//! fn main() -> ExitCode {
//!     Applications::new().with("com.example.Greeter", greeter).run()
//! }
//! ```

mod children;
mod context;
mod error;
mod host;
pub(crate) mod panics;
mod process;
mod spark;
mod task;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use context::{AppProcess, ApplicationContext, ProcessControl, ProcessHost};
pub use error::ApplicationError;
pub use host::Applications;
pub(crate) use process::ask_to_end;
pub use process::{ApplicationWithProcess, Process, ProcessApplication, SimpleProcess};
pub use spark::SparkSubmit;
pub use task::{StopFlag, TaskApplication, ThreadApplication};

/// Something that runs until it has ended, or is asked to.
///
/// ```text
///   start(context) ──── runs ────► Ok(exit) or Err ──► clean(context)
///                        ▲
///   shutdown(reason) ────┘  at most once, while start runs; when the grace is over, whatever is left is killed
/// ```
#[async_trait]
pub trait Application: Send + Sync + 'static {
    /// Runs the application to its end, and says how it ended.
    ///
    /// # Errors
    ///
    /// It could not run, or broke down. The text reaches whoever asks for its status; from an executable of one's own it
    /// is on stderr, and the exit code is 1.
    ///
    /// # Cancel safety
    ///
    /// Never dropped half-way, except that the whole process is killed.
    async fn start(&self, context: &ApplicationContext) -> Result<ExitState, ApplicationError>;

    /// Asks the application to end; [`Application::start`] should return soon. Called at most once, while that runs.
    async fn shutdown(&self, context: &ApplicationContext, reason: &ShutdownReason);

    /// Removes what the application left behind. Called once, when nothing of it runs any more and however it ended,
    /// unless the process that hosts it was killed.
    ///
    /// It is a part of the run: until it returns the application is not over, and one that was asked to end has what is left
    /// of its grace for it. A panic of it changes nothing in how the application ended.
    async fn clean(&self, _context: &ApplicationContext) {}
}

/// How an application ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitState {
    /// With this exit code; 0 is success.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitState {
    /// Success.
    pub const SUCCESS: Self = Self::Code(0);
}

/// Why an application is asked to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ShutdownReason {
    /// Somebody asked for it to be killed.
    Killed,
    /// Its worker stops.
    WorkerStops,
    /// Its worker was gone for too long.
    WorkerLost,
    /// Its runner was told to end by a signal.
    RunnerStops,
    /// Its worker is cut off from every master, and it is to be started elsewhere.
    CutOff,
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed by request",
            Self::WorkerStops => "stopped with its worker",
            Self::WorkerLost => "its worker did not come back",
            Self::RunnerStops => "its runner was told to end by a signal",
            Self::CutOff => "stopped: cut off from every master",
        })
    }
}
