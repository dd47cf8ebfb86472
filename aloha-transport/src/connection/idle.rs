//! Connections that nobody uses are closed, where that is asked for.

use std::time::Duration;

use tokio::time::Instant;

use super::State;
use crate::config::TransportConfig;

/// How many looks one time-out has; an idle connection is closed no later than one look after it.
const LOOKS: u32 = 4;

/// Since when nothing was seen of a connection's use. Pure.
///
/// Nothing but a flag is noted as messages pass; the looks do the rest.
#[derive(Debug, Default)]
pub(super) struct Idle {
    since: Option<Instant>,
    next: Option<Instant>,
}

impl Idle {
    pub(super) fn start(&mut self, config: &TransportConfig, now: Instant) {
        self.since = Some(now);
        self.next = config.idle().and_then(|timeout| next(now, timeout));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether nobody has used the connection for long enough.
    pub(super) fn look(&mut self, config: &TransportConfig, now: Instant, in_use: bool) -> bool {
        let Some(timeout) = config.idle() else {
            return false;
        };
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        self.next = next(now, timeout);
        if in_use {
            self.since = Some(now);
        }
        self.since.is_some_and(|since| now - since >= timeout)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }
}

fn next(now: Instant, timeout: Duration) -> Option<Instant> {
    now.checked_add((timeout / LOOKS).max(Duration::from_millis(1)))
}

impl State {
    /// Whether a message has passed since this was last asked, or anything is outstanding, queued, owed or reserved.
    pub(super) fn is_in_use(&mut self) -> bool {
        std::mem::take(&mut self.touched)
            || self.writing
            || !self.is_flushed()
            || !self.streams.is_empty()
            || self.responses.in_flight() > 0
            || self.incoming.active() > 0
            || !self.credits.is_idle()
    }
}
