//! Finds out that this process stood still: it was stopped, or its machine was.
//!
//! Whoever stood still does not know what happened meanwhile. Another may lead, and those it took for silent may have
//! spoken.

use std::time::{Duration, Instant};

/// How often a leader looks at the clock where nothing else makes it.
const INTERVAL: Duration = Duration::from_millis(500);
/// A longer time between two looks was no accident.
const LONGEST: Duration = Duration::from_millis(1_500);

/// When a leader looked at the clock last.
#[derive(Debug)]
pub(super) struct Pulse {
    last: Instant,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// When to look at the latest.
    pub(super) fn next_deadline(&self) -> Instant {
        self.last + INTERVAL
    }

    /// Looks at the clock. `Some` is for how long this process stood still since it last did.
    pub(super) fn beat(&mut self, now: Instant) -> Option<Duration> {
        let gap = now.saturating_duration_since(self.last);
        self.last = now;
        (gap > LONGEST).then_some(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn a_long_gap_is_told_once() {
        let mut now = Instant::now();
        let mut pulse = Pulse::new(now);
        now += INTERVAL;
        assert_eq!(pulse.beat(now), None);
        assert_eq!(pulse.next_deadline(), now + INTERVAL);
        now += LONGEST + INTERVAL;
        assert_eq!(pulse.beat(now), Some(LONGEST + INTERVAL));
        assert_eq!(pulse.beat(now), None);
    }
}
