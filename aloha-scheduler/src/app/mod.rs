//! What an application is, the states it goes through, and what a client sees of it.

mod description;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::description::{AppDescription, DescriptionError};
pub(crate) use self::description::{
    CONSTRAINTS_MAX, CORES_MAX, ENTRY_POINT_CHARS_MAX, MEMORY_MIB_MAX, MILLIS_MAX, NAME_CHARS_MAX,
    TAGS_MAX,
};
use crate::ids::{AppId, WorkerId};

/// Where an attempt runs or ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The worker's id.
    pub worker: WorkerId,
    /// The worker's address, `host:port`, as it was then.
    pub address: Arc<str>,
}

/// How an application ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It exited with code 0.
    Finished,
    /// It exited with this code, or 128 plus the number of the signal that ended it.
    Failed(i32),
    /// It was killed by request.
    Killed,
    /// It could not run, or its worker is gone.
    Error,
}

/// Where an application stands, with what belongs to each state. Moments are milliseconds since 1970.
///
/// ```text
///                 .--------- declined --------.
///                 v                           |
///  submitted -> SUBMITTED -----------> LAUNCHING ----> RUNNING ----> FINISHED | FAILED
///                                       ^   |  ^          |          KILLED | ERROR
///                                       |   |  |          |            ^
///                         RELAUNCHING --'   v  v          v            |
///                              ^         UNKNOWN (its worker is away)--'
///                              '--- worker lost, or failed, and to run again
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppState {
    /// Waits for a worker, for the first time.
    Submitted,
    /// Waits for its time and then for a worker, after an attempt came to nothing.
    Relaunching {
        /// What became of the attempt before.
        reason: String,
        /// When it may run again at the earliest; `None` for at once.
        #[serde(default)]
        not_before: Option<u64>,
    },
    /// A worker was told to start it and has not yet said that it runs.
    Launching {
        /// Where.
        on: Placement,
    },
    /// Runs.
    Running {
        /// Where.
        on: Placement,
        /// Since when.
        since: u64,
    },
    /// Its worker is away and may come back with it.
    Unknown {
        /// Where it was last.
        on: Placement,
        /// Since when it ran, `None` if the worker never said that it did.
        since: Option<u64>,
    },
    /// Is over, for good.
    Ended {
        /// How.
        how: Ending,
        /// Where its last attempt was, if there was one.
        on: Option<Placement>,
        /// Since when its last attempt ran, if it did.
        since: Option<u64>,
        /// When it ended.
        at: u64,
        /// What a user should know besides.
        message: Option<String>,
    },
}

impl AppState {
    /// The plain form of this state.
    pub fn phase(&self) -> AppPhase {
        match self {
            Self::Submitted => AppPhase::Submitted,
            Self::Relaunching { .. } => AppPhase::Relaunching,
            Self::Launching { .. } => AppPhase::Launching,
            Self::Running { .. } => AppPhase::Running,
            Self::Unknown { .. } => AppPhase::Unknown,
            Self::Ended {
                how: Ending::Finished,
                ..
            } => AppPhase::Finished,
            Self::Ended {
                how: Ending::Failed(_),
                ..
            } => AppPhase::Failed,
            Self::Ended {
                how: Ending::Killed,
                ..
            } => AppPhase::Killed,
            Self::Ended {
                how: Ending::Error, ..
            } => AppPhase::Error,
        }
    }

    /// Where the application is now, or was last if it ended.
    pub fn placement(&self) -> Option<&Placement> {
        match self {
            Self::Submitted | Self::Relaunching { .. } => None,
            Self::Launching { on } | Self::Running { on, .. } | Self::Unknown { on, .. } => {
                Some(on)
            }
            Self::Ended { on, .. } => on.as_ref(),
        }
    }

    /// Why it is so, for the history; `None` where the name of the state says it all.
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Submitted | Self::Running { .. } => None,
            Self::Launching { on } => Some(format!("on {}", on.worker)),
            Self::Relaunching { reason, .. } => Some(reason.clone()),
            Self::Unknown { on, .. } => Some(format!("{} is disconnected", on.worker)),
            Self::Ended { how, message, .. } => match (how, message) {
                (_, Some(message)) => Some(message.clone()),
                (Ending::Killed, None) => Some("killed by request".to_owned()),
                (Ending::Failed(code), None) => Some(format!("exited with code {code}")),
                (Ending::Finished | Ending::Error, None) => None,
            },
        }
    }

    /// Since when the (last) attempt runs or ran.
    pub fn since(&self) -> Option<u64> {
        match self {
            Self::Submitted | Self::Relaunching { .. } | Self::Launching { .. } => None,
            Self::Running { since, .. } => Some(*since),
            Self::Unknown { since, .. } | Self::Ended { since, .. } => *since,
        }
    }
}

/// The plain form of an [`AppState`], for the wire and for people.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(description = "The state of an application.")]
#[expect(missing_docs, reason = "each is documented at its AppState")]
pub enum AppPhase {
    Submitted,
    Launching,
    Running,
    Finished,
    Failed,
    Killed,
    Error,
    Relaunching,
    Unknown,
}

impl AppPhase {
    /// Every phase there is.
    pub const ALL: [Self; 9] = [
        Self::Submitted,
        Self::Launching,
        Self::Running,
        Self::Finished,
        Self::Failed,
        Self::Killed,
        Self::Error,
        Self::Relaunching,
        Self::Unknown,
    ];

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Finished | Self::Failed | Self::Killed | Self::Error
        )
    }

    /// Whether an application in this phase holds resources of a worker.
    pub fn is_placed(self) -> bool {
        matches!(self, Self::Launching | Self::Running | Self::Unknown)
    }

    /// Whether `next` may follow: the one place that says so.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Submitted | Self::Relaunching => {
                matches!(next, Self::Launching | Self::Killed | Self::Error)
            }
            // Back to SUBMITTED when the worker declines to start it.
            Self::Launching => next != Self::Launching,
            Self::Running => next.is_final() || matches!(next, Self::Unknown | Self::Relaunching),
            Self::Unknown => next != Self::Unknown,
            Self::Finished | Self::Failed | Self::Killed | Self::Error => false,
        }
    }
}

impl fmt::Display for AppPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Submitted => "SUBMITTED",
            Self::Launching => "LAUNCHING",
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
            Self::Error => "ERROR",
            Self::Relaunching => "RELAUNCHING",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// A text that names no state of an application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no state, expected any of {}", AppPhase::ALL.map(|phase| phase.to_string()).join(", "))]
pub struct UnknownAppPhase {
    /// The text.
    pub found: String,
}

impl FromStr for AppPhase {
    type Err = UnknownAppPhase;

    fn from_str(text: &str) -> Result<Self, UnknownAppPhase> {
        let known = Self::ALL
            .into_iter()
            .find(|phase| phase.to_string() == text);
        known.ok_or_else(|| UnknownAppPhase {
            found: text.to_owned(),
        })
    }
}

/// A change of an application's state that is past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The state it went to.
    pub to: AppPhase,
    /// Its latest attempt then.
    pub attempt: u32,
    /// Why, where the state alone does not say.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What a client sees of an application at one moment. Moments are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    /// Its id.
    pub id: AppId,
    /// As in the description.
    pub name: String,
    /// As in the description.
    pub entry_point: String,
    /// As in the description.
    pub cores: u32,
    /// As in the description.
    pub memory_mib: u64,
    /// As in the description.
    pub supervise: bool,
    /// Its state.
    pub phase: AppPhase,
    /// The exit code, once there is one.
    pub exit_code: Option<i32>,
    /// The latest attempt: 1, 2, …; 0 before the first.
    pub attempt: u32,
    /// Where it is, or where its last attempt was.
    pub worker: Option<Placement>,
    /// Why it waits, if it does.
    pub waiting_for: Option<String>,
    /// What else a user should know.
    pub message: Option<String>,
    /// When it was submitted.
    pub submitted_at: Option<u64>,
    /// When its latest attempt began to run.
    pub started_at: Option<u64>,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// As in the description.
    pub priority: i32,
    /// When it runs again at the earliest, if it waits for that.
    pub not_before: Option<u64>,
    /// Its last changes of state, the oldest first. Empty in lists of many applications and in events.
    pub history: Vec<Transition>,
}

#[cfg(test)]
mod tests;
