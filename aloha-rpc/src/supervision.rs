//! What becomes of an endpoint that fails, and who hears of its end.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What becomes of an endpoint after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Directive {
    /// It goes on with the next message, its state as it is.
    #[default]
    Resume,
    /// It is made anew by its factory ([`EndpointBuilder::setup_with`](crate::EndpointBuilder::setup_with)) and goes on
    /// with the next message; what waits is kept. Without a factory, or when the budget is used up, it stops.
    Restart,
    /// It stops; what waits for it is answered with a failure.
    Stop,
}

/// How often an endpoint may be restarted, and how long to wait before.
///
/// The first restart waits for [`backoff_min`](Self::backoff_min); each further one within
/// [`window`](Self::window) twice as long as the last, up to [`backoff_max`](Self::backoff_max), and up to a quarter more or less
/// by chance, so that many endpoints do not come back in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// How many restarts there may be within [`window`](Self::window). Default 10. One more, and the endpoint stops.
    pub restarts_max: u32,
    /// Default 60 s.
    pub window: Duration,
    /// Default 100 ms.
    pub backoff_min: Duration,
    /// Default 10 s.
    pub backoff_max: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            restarts_max: 10,
            window: Duration::from_secs(60),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
        }
    }
}

/// The restarts that a policy still allows; pure.
#[derive(Debug)]
pub(crate) struct Budget {
    policy: RestartPolicy,
    spent: VecDeque<Instant>,
}

impl Budget {
    pub(crate) fn new(policy: RestartPolicy) -> Self {
        Self {
            policy,
            spent: VecDeque::new(),
        }
    }

    /// How long to wait before the next restart; none when there may be no more.
    pub(crate) fn spend(&mut self, now: Instant, random: u64) -> Option<Duration> {
        let RestartPolicy {
            restarts_max,
            window,
            backoff_min,
            backoff_max,
        } = self.policy;
        while self
            .spent
            .pop_front_if(|at| now.saturating_duration_since(*at) > window)
            .is_some()
        {}
        let before = u32::try_from(self.spent.len()).unwrap_or(u32::MAX);
        if before >= restarts_max {
            return None;
        }
        self.spent.push_back(now);
        let wait = backoff_min
            .saturating_mul(2_u32.saturating_pow(before))
            .min(backoff_max);
        // 0.75 to 1.25 of it.
        let quarters = wait / 4;
        let jitter = quarters.mul_f64(2.0 * (random >> 11) as f64 / (1_u64 << 53) as f64);
        Some(wait - quarters + jitter)
    }
}

/// Why an endpoint has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Termination {
    /// It was stopped, or its environment shut down.
    Stopped,
    /// An error or a panic ended it.
    Failed {
        /// That of the error.
        kind: String,
        /// What happened, in words.
        text: String,
    },
    /// There was no such endpoint when the watch began.
    NotFound,
    /// The connection to its environment ended; whether the endpoint lives is not known.
    Disconnected {
        /// Why the connection ended, in words.
        reason: String,
    },
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("it was stopped"),
            Self::Failed { text, .. } => write!(f, "it failed: {text}"),
            Self::NotFound => f.write_str("there was no such endpoint"),
            Self::Disconnected { reason } => write!(f, "its environment is out of reach: {reason}"),
        }
    }
}

/// The end of a watched endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminated {
    /// Its URI, `aloha://name@host:port`.
    pub endpoint: String,
    /// Why it ended.
    pub reason: Termination,
}

impl fmt::Display for Terminated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "endpoint {} has ended: {}", self.endpoint, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    const HALF: u64 = 1 << 63;

    #[test]
    fn a_budget_backs_off_ends_and_recovers() {
        let policy = RestartPolicy {
            restarts_max: 3,
            window: Duration::from_secs(60),
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(3),
        };
        let mut budget = Budget::new(policy);
        let start = now();
        let secs = |n| Some(Duration::from_secs(n));
        assert_eq!(budget.spend(start, HALF), secs(1));
        assert_eq!(budget.spend(start, HALF), secs(2));
        assert_eq!(budget.spend(start, HALF), secs(3));
        assert_eq!(budget.spend(start, HALF), None);
        assert_eq!(budget.spend(start + Duration::from_secs(61), HALF), secs(1));
    }

    #[test]
    fn chance_moves_a_wait_by_a_quarter_at_most() {
        let wait = |random| Budget::new(RestartPolicy::default()).spend(now(), random);
        assert_eq!(wait(0), Some(Duration::from_millis(75)));
        assert!(wait(u64::MAX) <= Some(Duration::from_millis(125)));
    }
}
