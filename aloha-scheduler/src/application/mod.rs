//! What an application is to those who write one: the extension point of the cluster.
//!
//! An [`Application`] is started, may be asked to end, and cleans up. A shell command ([`SimpleProcess`]) and a program
//! with arguments ([`Process`]) are built in; a crate of one's own implements the trait for anything else.

mod context;
mod error;
mod process;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use context::{AppProcess, ApplicationContext, ProcessControl, ProcessHost};
pub use error::ApplicationError;
pub use process::{ApplicationWithProcess, Process, ProcessApplication, SimpleProcess};

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
    /// It could not run, or broke down. The text reaches whoever asks for its status.
    ///
    /// # Cancel safety
    ///
    /// Never dropped half-way, except that the whole process is killed.
    async fn start(&self, context: &ApplicationContext) -> Result<ExitState, ApplicationError>;

    /// Asks the application to end; [`Application::start`] should return soon. Called at most once, while that runs.
    async fn shutdown(&self, context: &ApplicationContext, reason: &ShutdownReason);

    /// Removes what the application left behind. Called once, when nothing of it runs any more and however it ended,
    /// unless the process that hosts it was killed.
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
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed by request",
            Self::WorkerStops => "stopped with its worker",
            Self::WorkerLost => "its worker did not come back",
            Self::RunnerStops => "its runner was told to end by a signal",
        })
    }
}
