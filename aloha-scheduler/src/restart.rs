//! When an application that ended runs again, and how soon.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// After which ends an application runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// After none.
    Never,
    /// After a code other than 0, a signal, too much memory or too long a run.
    OnFailure,
    /// After every end but a kill by request.
    Always,
}

impl RestartCondition {
    /// Every condition there is.
    pub const ALL: [Self; 3] = [Self::Never, Self::OnFailure, Self::Always];

    /// As it is written, such as `on-failure`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnFailure => "on-failure",
            Self::Always => "always",
        }
    }
}

impl fmt::Display for RestartCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is no restart condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no restart condition, expected never, on-failure or always")]
pub struct UnknownRestartCondition {
    /// The text.
    pub found: String,
}

impl FromStr for RestartCondition {
    type Err = UnknownRestartCondition;

    fn from_str(text: &str) -> Result<Self, UnknownRestartCondition> {
        let known = Self::ALL.into_iter().find(|it| it.as_str() == text);
        known.ok_or_else(|| UnknownRestartCondition {
            found: text.to_owned(),
        })
    }
}

/// When an application runs again after an end of its own. What nobody set has a sensible default.
///
/// The loss of a worker is no end of its own: an application that is ever restarted runs again then at once, and it
/// counts for nothing here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// After which ends; where it is not set, on failure for a supervised application, and never for others.
    pub condition: Option<RestartCondition>,
    /// The pause before the first restart in a row, in milliseconds; it doubles with each. A second where not set.
    pub backoff_initial_millis: Option<u64>,
    /// The longest such pause, in milliseconds. A minute where not set.
    pub backoff_max_millis: Option<u64>,
    /// A run of this many milliseconds was long: the restarts in a row are counted from 0 again. Ten seconds where not set.
    pub reset_after_millis: Option<u64>,
    /// How many restarts in a row there may be, after which the application has failed. Any number where not set.
    pub in_a_row_max: Option<u32>,
}

impl RestartPolicy {
    /// The pause before the first restart in a row.
    pub fn backoff_initial(&self) -> Duration {
        Duration::from_millis(self.backoff_initial_millis.unwrap_or(1_000))
    }

    /// The longest pause.
    pub fn backoff_max(&self) -> Duration {
        Duration::from_millis(self.backoff_max_millis.unwrap_or(60_000))
    }

    /// How long a run must be to be a long one.
    pub fn reset_after(&self) -> Duration {
        Duration::from_millis(self.reset_after_millis.unwrap_or(10_000))
    }
}
