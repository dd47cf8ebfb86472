//! One run of an application: the words in which a worker tells its master about it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::app::AppDescription;
use crate::ids::AppId;
use crate::resources::Resources;

/// How one attempt at running an application ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It exited by itself with this code.
    Exited(i32),
    /// It was killed because somebody asked for it.
    Killed,
    /// A signal ended it that nobody had asked for.
    Signaled(i32),
    /// It could not be started, and would not start elsewhere either.
    CouldNotStart(String),
    /// What became of it is not known, or it was stopped for the worker's sake.
    Lost(String),
    /// It was never started, and may be started elsewhere.
    Declined(String),
    /// The kernel killed it, for it used more memory than it had asked for.
    OutOfMemory {
        /// What it had asked for, in MiB.
        limit_mib: u64,
    },
}

impl Outcome {
    /// The exit code a shell would report: of a signal, 128 and its number.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited(code) => Some(*code),
            Self::Killed | Self::OutOfMemory { .. } => Some(137),
            Self::Signaled(signal) => Some(128 + signal),
            Self::CouldNotStart(_) | Self::Lost(_) | Self::Declined(_) => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Killed => write!(f, "killed by request"),
            Self::Signaled(signal) => write!(f, "ended by signal {signal}"),
            Self::CouldNotStart(reason) => write!(f, "could not start: {reason}"),
            Self::Lost(reason) => write!(f, "lost: {reason}"),
            Self::Declined(reason) => write!(f, "declined: {reason}"),
            Self::OutOfMemory { limit_mib } => {
                write!(
                    f,
                    "killed, for it used more than its {limit_mib} MiB of memory"
                )
            }
        }
    }
}

/// How far an attempt is that a worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptState {
    /// Taken on, but no process yet.
    Starting,
    /// Its process runs.
    Running,
    /// Over, and the master has not yet acknowledged the report of it, which follows.
    Ended,
}

/// An attempt that a worker holds when it registers.
///
/// It says what the attempt occupies, so that a master that does not know it can leave that room alone until it is
/// gone, and what it was launched as, so that a master that forgot everything can take it on again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAttempt {
    /// Of which application.
    pub app: AppId,
    /// Which attempt.
    pub attempt: u32,
    /// What it occupies; nothing once it ended.
    pub occupies: Resources,
    /// How far it is.
    pub state: AttemptState,
    /// The epoch of the leadership that launched it, 0 where the worker does not know.
    pub epoch: u64,
    /// What was launched; `None` once it ended.
    pub description: Option<Arc<AppDescription>>,
}

/// What a worker reports of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptReport {
    /// Its process runs. Sent once; a registration repeats it.
    Started {
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
    },
    /// It is over. Sent until the master acknowledges it.
    Ended {
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
        /// How.
        outcome: Outcome,
    },
}
