//! What the REST server asks of the master.

use std::fmt;

use async_trait::async_trait;

use crate::app::{AppDescription, Transition};
use crate::log_follower::LogNews;
use crate::messages::LogRequest;

/// The master, as the REST server sees it.
#[async_trait]
pub trait SubmissionGateway: Send + Sync + fmt::Debug {
    /// Accepts an application, or says why not.
    async fn submit(&self, description: AppDescription) -> Result<SubmitAnswer, GatewayError>;

    /// Ends an application, or keeps it from starting.
    async fn kill(&self, id: &str) -> Result<KillAnswer, GatewayError>;

    /// What is known of an application; `None` if nothing is.
    async fn status(&self, id: &str) -> Result<Option<SubmissionStatus>, GatewayError>;

    /// Whether submissions are taken right now.
    async fn ready(&self) -> Result<(), GatewayError>;

    /// A piece of an application's output; empty at its present end, and where it has not begun to run.
    async fn read_log(&self, id: &str, request: LogRequest) -> Result<LogPiece, GatewayError>;

    /// Follows an application's output to its end; says too where that begins.
    async fn follow_log(
        &self,
        id: &str,
        request: LogRequest,
    ) -> Result<(u64, Box<dyn LogSource>), GatewayError>;
}

/// The output of an application that is followed. Dropped, it is not any more.
#[async_trait]
pub trait LogSource: Send {
    /// The next news; none once all is told.
    async fn next(&mut self) -> Result<Option<LogNews>, GatewayError>;
}

/// A piece of an application's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// The piece.
    pub bytes: Vec<u8>,
    /// Where it begins: elsewhere than asked for, where that was removed or is not written yet.
    pub offset: u64,
    /// Where the next one begins.
    pub next_offset: u64,
}

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubmitAnswer {
    /// It will run, or wait for its turn.
    Accepted {
        /// Its id from now on.
        id: String,
        /// For a person to read.
        message: String,
    },
    /// It will not run.
    Refused {
        /// Why.
        message: String,
    },
}

/// The answer to a kill request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KillAnswer {
    /// It is being ended.
    Accepted {
        /// For a person to read.
        message: String,
    },
    /// There is nothing to end: the id is unknown, or the application has ended.
    Refused {
        /// Why.
        message: String,
    },
}

/// What is known of an application.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubmissionStatus {
    /// The name of its state: `SUBMITTED`, `RUNNING`, ….
    pub state: String,
    /// Why it is in this state, where there is something to say.
    pub message: Option<String>,
    /// The worker it runs, or ran, on.
    pub worker_id: Option<String>,
    /// That worker's `host:port`.
    pub worker_host_port: Option<String>,
    /// With what it ended.
    pub exit_code: Option<i32>,
    /// Which attempt this is, counted from 1.
    pub attempt: Option<u32>,
    /// What it waits for, while it does not run.
    pub waiting_for: Option<String>,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_at: Option<u64>,
    /// When its latest attempt started, in milliseconds since 1970.
    pub started_at: Option<u64>,
    /// When it ended, in milliseconds since 1970.
    pub finished_at: Option<u64>,
    /// Its place in the queue: higher before lower.
    pub priority: Option<i32>,
    /// When it runs again at the earliest, if it waits for that, in milliseconds since 1970.
    pub not_before: Option<u64>,
    /// Its last changes of state, the oldest first.
    pub history: Vec<Transition>,
}

/// Why the master gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Not the leader, or not yet: another master may answer, or this one later.
    #[error("{reason}")]
    NotReady {
        /// What it is busy with.
        reason: String,
    },
    /// There is no such application, or no such output of it.
    #[error("{reason}")]
    NotFound {
        /// What is missing.
        reason: String,
    },
    /// It tried and failed, for instance to store the submission.
    #[error("{reason}")]
    Failed {
        /// What happened, without paths or traces.
        reason: String,
    },
}
