//! Until when a master counts on this worker.
//!
//! A master that hears nothing for its timeout may start supervised applications elsewhere. What it heard last it heard
//! when it was sent or later, so counting from then errs on the safe side, whatever the network does. Time is shared
//! out in quarters of that timeout:
//!
//! ```text
//!   sent      1/4       1/2         3/4          1
//!    |---------|---------|-----------|-----------|
//!    '--------- runs ----'- asked to '- killed   '- may start elsewhere
//!                           end
//! ```
//!
//! A runner without its worker asks after one quarter and kills after another, for its worker may have died at the
//! half. A worker that takes over from an earlier one, which may have been cut off too, has half a quarter to be heard.

use std::time::{Duration, Instant};

/// For how long supervised applications may run without word from a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lease {
    /// The silence after which the master may start them elsewhere.
    timeout: Duration,
    /// When what it acknowledged last was sent; `None` before the first.
    sent: Option<Instant>,
    stop_at: Instant,
    kill_at: Instant,
    is_over: bool,
}

impl Lease {
    /// The time a worker has to find a master when it begins, if that has this timeout.
    pub(super) fn at_start(timeout: Duration, now: Instant) -> Self {
        Self {
            timeout,
            sent: None,
            stop_at: now + timeout / 8,
            kill_at: now + timeout / 4,
            is_over: false,
        }
    }

    /// A master with this timeout has acknowledged what was sent then.
    pub(super) fn renew(&mut self, sent: Instant, timeout: Duration) {
        if self.sent.is_none_or(|before| before < sent) {
            *self = Self {
                timeout,
                sent: Some(sent),
                stop_at: sent + timeout / 2,
                kill_at: sent + timeout / 4 * 3,
                is_over: false,
            };
        }
    }

    /// Whether applications that may be started elsewhere must not run here. A worker that stood still may be asked to
    /// start one before it is told what time it is.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.is_over || self.stop_at <= now
    }

    /// Ends it if it is due. `Some` is when to kill what was asked to end for it.
    pub(super) fn end_if_due(&mut self, now: Instant) -> Option<Instant> {
        let due = !self.is_over && self.stop_at <= now;
        self.is_over |= due;
        due.then_some(self.kill_at)
    }

    /// How long a runner waits for its worker before it asks its application to end, and then before it kills it.
    pub(super) fn runner_alone_max(&self) -> Duration {
        self.timeout / 4
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        (!self.is_over).then_some(self.stop_at)
    }
}
