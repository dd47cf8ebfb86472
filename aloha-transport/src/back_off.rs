//! How long an address that could not be reached is left alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::TransportConfig;
use crate::context::TransportContext;
use crate::error::ConnectError;

/// Failed attempts at one address, and when the next may be made. Pure but for the seams of the context.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    failures: u32,
    until: Option<Instant>,
    cause: Option<Arc<ConnectError>>,
}

impl BackOff {
    /// How long to wait before the next attempt, if that is so.
    pub(crate) fn retry_in(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// The error of an attempt that is not made, if it may not be made yet.
    pub(crate) fn fast_fail(&self, address: &Arc<str>, now: Instant) -> Option<ConnectError> {
        let retry_in = self.retry_in(now)?;
        Some(ConnectError::FastFail {
            address: Arc::clone(address),
            retry_in,
            cause: Arc::clone(self.cause.as_ref()?),
        })
    }

    /// An attempt succeeded.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// An attempt failed: the next is to wait.
    pub(crate) fn failed(&mut self, cause: &ConnectError, context: &TransportContext) {
        if self.retry_in(context.now()).is_some() {
            // One of several that were made at once.
            return;
        }
        let window = window(context.limits(), self.failures, context.random_u64());
        self.failures = self.failures.saturating_add(1);
        self.until = context.now().checked_add(window);
        self.cause = Some(Arc::new(cause.clone()));
    }
}

/// The window after so many failures and one more: doubled each time, and between a half and all of that, so that
/// those who failed together do not come back together.
fn window(config: &TransportConfig, failures: u32, random: u64) -> Duration {
    let (min, max) = (config.reconnect_backoff_min, config.reconnect_backoff_max);
    let whole = min
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(max.max(min));
    // 53 bits of chance fit a float.
    let chance = (random >> 11) as f64 / (1_u64 << 53) as f64;
    whole.mul_f64(0.5 + chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_from_its_least_to_its_most_less_up_to_a_half() {
        let config = TransportConfig::default();
        for (failures, millis) in [
            (0, 50),
            (1, 100),
            (2, 200),
            (6, 3200),
            (7, 5000),
            (99, 5000),
        ] {
            let whole = Duration::from_millis(millis);
            assert_eq!(window(&config, failures, 0), whole / 2);
            let longest = window(&config, failures, u64::MAX);
            assert!(
                longest <= whole && longest > whole.mul_f64(0.99),
                "{longest:?}"
            );
        }
    }

    #[test]
    fn no_window_at_all_is_allowed() {
        let config = TransportConfig {
            reconnect_backoff_min: Duration::ZERO,
            ..TransportConfig::default()
        };
        assert_eq!(window(&config, 3, u64::MAX), Duration::ZERO);
    }
}
