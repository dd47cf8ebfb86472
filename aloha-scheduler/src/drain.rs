//! A worker that is drained: what is asked for, what is stored of it, and what is told of its progress.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{AppId, WorkerId};
use crate::master::WorkerState;

/// What becomes of applications on a worker that is drained and that may be started elsewhere. Others always run to
/// their end, or to the timeout of the drain.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DrainMode {
    /// They are stopped there, and then started elsewhere as another attempt, at once.
    #[default]
    Move,
    /// They run to their end too, or to the timeout, at which they are moved.
    Wait,
}

impl fmt::Display for DrainMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Move => "move",
            Self::Wait => "wait",
        })
    }
}

/// What is stored of a drain, with the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// What becomes of applications that may be started elsewhere.
    pub mode: DrainMode,
    /// When it was asked for, in milliseconds since 1970.
    pub since: u64,
    /// How long after that what is left is ended or moved, in milliseconds; `None` for never.
    #[serde(default)]
    pub timeout_millis: Option<u64>,
}

impl Drain {
    /// When what is left is ended or moved, in milliseconds since 1970.
    pub fn until(&self) -> Option<u64> {
        self.timeout_millis
            .map(|timeout| self.since.saturating_add(timeout))
    }
}

/// What is asked of a master about the drain of a worker. Later versions append variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainRequest {
    /// Drain it. Asked again, it takes the place of what was asked before.
    Begin {
        /// What becomes of applications that may be started elsewhere.
        mode: DrainMode,
        /// After how long what is left is ended or moved, in milliseconds; `None` for never.
        timeout_millis: Option<u64>,
    },
    /// Take it back: the worker takes applications again. What was moved stays where it is.
    Cancel,
    /// Say how far it is.
    Look,
}

impl DrainRequest {
    /// Drains so, and ends or moves what is left after the timeout.
    #[must_use]
    pub fn begin(mode: DrainMode, timeout: Option<Duration>) -> Self {
        let millis = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        Self::Begin {
            mode,
            timeout_millis: timeout.map(millis),
        }
    }
}

/// The answer to a [`DrainRequest`]. Later versions append variants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainAnswer {
    /// So it stands now.
    Drain(DrainStatus),
    /// There is no such worker, or more than one.
    NoSuchWorker {
        /// In words.
        reason: String,
    },
}

/// How far a drain is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(description = "How far the drain of a worker is.")]
pub enum DrainPhase {
    /// The worker is not drained.
    None,
    /// Something is left on it, or it is away.
    Draining,
    /// Nothing is left on it, and it was told to leave.
    Drained,
    /// It has left, or was lost.
    Gone,
}

impl fmt::Display for DrainPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "NONE",
            Self::Draining => "DRAINING",
            Self::Drained => "DRAINED",
            Self::Gone => "GONE",
        })
    }
}

/// What becomes of an application that is left on a worker.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DrainFate {
    /// It is being stopped, and then started elsewhere.
    Moving,
    /// It is being ended.
    Ending,
    /// It runs to its end, or to the timeout of the drain.
    RunsOn,
}

impl fmt::Display for DrainFate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Moving => "moving",
            Self::Ending => "ending",
            Self::RunsOn => "runs to its end",
        })
    }
}

/// An application that is left on a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftApp {
    /// Its id.
    pub id: AppId,
    /// What becomes of it.
    pub fate: DrainFate,
}

/// How the drain of a worker stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// The worker.
    pub worker: WorkerId,
    /// Where it is reached, `host:port`.
    pub address: String,
    /// Whether it can be reached.
    pub state: WorkerState,
    /// How far the drain is.
    pub phase: DrainPhase,
    /// What becomes of applications that may be started elsewhere; none where the worker is not drained.
    pub mode: Option<DrainMode>,
    /// When what is left is ended or moved, in milliseconds since 1970; none for never.
    pub until: Option<u64>,
    /// What is left on it.
    pub left: Vec<LeftApp>,
    /// Applications that were moved off it and wait for room elsewhere.
    pub waiting: Vec<AppId>,
    /// What a person should know, in words.
    pub message: String,
}
