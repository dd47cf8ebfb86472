//! When an application that ended runs again, and how soon.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::jitter;

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

/// What follows the end of a run after which an application is to run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NextRun {
    /// It runs again after a pause.
    After {
        /// How many restarts there are in a row with this one.
        in_a_row: u32,
        /// How long to wait.
        pause: Duration,
    },
    /// It does not: so many restarts in a row were in vain.
    TooOften {
        /// How many there may be.
        in_a_row_max: u32,
    },
}

impl RestartPolicy {
    /// What follows a run of `ran_for`, before which there were `before` restarts in a row.
    pub(crate) fn after_run(&self, before: u32, ran_for: Duration, seed: u64) -> NextRun {
        let before = if self.was_long(ran_for) { 0 } else { before };
        match self.in_a_row_max {
            Some(in_a_row_max) if before >= in_a_row_max => NextRun::TooOften { in_a_row_max },
            Some(_) | None => {
                let in_a_row = before.saturating_add(1);
                let pause = jitter::shorten(self.pause(in_a_row), 0.75, seed);
                NextRun::After { in_a_row, pause }
            }
        }
    }

    /// Whether a run was so long that restarts are counted from 0 again.
    pub(crate) fn was_long(&self, ran_for: Duration) -> bool {
        ran_for >= self.reset_after()
    }

    /// The nominal pause before so manieth a restart in a row, counted from 1: truncated exponential back-off. By
    /// chance it is shortened by up to a quarter, so that what failed together does not come back together.
    pub(crate) fn pause(&self, in_a_row: u32) -> Duration {
        let doubled = 2u32.saturating_pow(in_a_row.saturating_sub(1));
        self.backoff_initial()
            .saturating_mul(doubled)
            .min(self.backoff_max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nominal pauses, in seconds, after runs of so many seconds each.
    fn pauses(policy: &RestartPolicy, runs: &[u64]) -> Vec<u64> {
        let mut in_a_row = 0;
        let mut pauses = Vec::new();
        for (seed, seconds) in (0..).zip(runs) {
            match policy.after_run(in_a_row, Duration::from_secs(*seconds), seed) {
                NextRun::After { in_a_row: n, pause } => {
                    let nominal = policy.pause(n);
                    assert!(nominal.mul_f64(0.75) <= pause && pause <= nominal);
                    in_a_row = n;
                    pauses.push(nominal.as_secs());
                }
                NextRun::TooOften { .. } => break,
            }
        }
        pauses
    }

    #[test]
    fn pauses_double_after_each_failure_in_a_row() {
        assert_eq!(pauses(&RestartPolicy::default(), &[0, 0, 0]), [1, 2, 4]);
    }

    #[test]
    fn pauses_begin_anew_after_a_long_run() {
        let runs = [0, 1, 10, 9];
        assert_eq!(pauses(&RestartPolicy::default(), &runs), [1, 2, 1, 2]);
    }

    #[test]
    fn pauses_grow_no_longer_than_the_longest() {
        let policy = RestartPolicy {
            backoff_initial_millis: Some(20_000),
            backoff_max_millis: Some(50_000),
            ..RestartPolicy::default()
        };
        assert_eq!(pauses(&policy, &[0; 4]), [20, 40, 50, 50]);
        assert_eq!(policy.pause(u32::MAX), Duration::from_secs(50));
    }

    #[test]
    fn after_so_many_restarts_in_a_row_there_are_no_more() {
        let policy = RestartPolicy {
            in_a_row_max: Some(2),
            ..RestartPolicy::default()
        };
        assert_eq!(pauses(&policy, &[0; 9]), [1, 2]);
        assert_eq!(pauses(&policy, &[0, 0, 10, 0, 0, 0]), [1, 2, 1, 2]);
        let never = RestartPolicy {
            in_a_row_max: Some(0),
            ..policy
        };
        assert_eq!(pauses(&never, &[99]), [0; 0]);
    }

    #[test]
    fn pauses_of_two_applications_differ() {
        let policy = RestartPolicy::default();
        let run = |seed| policy.after_run(0, Duration::ZERO, seed);
        assert_ne!(run(1), run(2));
        assert_eq!(run(1), run(1));
    }
}
