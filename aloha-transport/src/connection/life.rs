//! What becomes due on a connection, seen by the keeper of its context: deadlines of requests, signs of life,
//! signs of use.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::closing::Parting;
use super::{Connection, Phase, State};
use crate::client::Body;
use crate::config::TransportConfig;
use crate::error::CloseReason;
use crate::message;
use crate::response_handler::Completion;

/// So much later than due any look may come.
const LATE_MIN: Duration = Duration::from_secs(1);

impl Connection {
    /// Lets the keeper call this connection from now on.
    pub(crate) fn keep(self: &Arc<Self>) {
        self.keeper.keep(self.number, self);
        // Whoever closed it meanwhile has let go of it too early.
        if matches!(self.lock().phase, Phase::Closed(_)) {
            self.keeper.forget(self.number);
        }
    }

    /// Tells the keeper of a moment that it has not been told of.
    pub(super) fn call_at(&self, earlier: Option<Instant>) {
        if let Some(at) = earlier {
            self.keeper.call_at(self.number, at);
        }
    }

    /// Does what is due, and says when to be called again.
    pub(crate) fn on_time(&self, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Closed(_)) {
            return None;
        }
        let (mut cancel, mut completions) = (Vec::new(), Vec::new());
        state.responses.expire(now, &mut cancel, &mut completions);
        for id in cancel {
            state.push_cancel(id, false);
        }
        if let Some(parting) = &state.parting
            && parting.until().is_some_and(|until| until <= now)
        {
            let reason = parting.reason();
            drop(state);
            self.close(reason);
            completions.into_iter().for_each(Completion::run);
            return None;
        }
        // Before the ping, which is no use.
        let mut last = None;
        if state.parting.is_none() && state.idle.is_due(now) {
            let in_use = state.is_in_use();
            if state.idle.look(&self.config, now, in_use) {
                last = self.part(&mut state);
            }
        }
        let received = self.received_bytes.load(Ordering::Relaxed);
        let sent = self.sent_bytes.load(Ordering::Relaxed);
        let writing = (state.writing || !state.is_flushed()).then_some(sent);
        let sign = state.pulse.look(&self.config, now, received, writing);
        if let Sign::Ask = sign {
            // Whatever comes is a sign of life, so the nonce tells nothing.
            state
                .queue
                .push(message::PING, None, &[0; 8], &Body::Copied(&[]));
        }
        let next = state.next_moment();
        state.named = next;
        self.wake_writer(state);
        completions.into_iter().for_each(Completion::run);
        if let Some(last) = last {
            debug!(peer = %self.peer, "nobody used the connection");
            last.run();
        }
        if let Sign::None { silence } = sign {
            self.close(CloseReason::Silent { silence });
            return None;
        }
        next
    }
}

impl State {
    /// The earliest moment at which anything is due.
    pub(super) fn next_moment(&self) -> Option<Instant> {
        let until = self.parting.as_ref().and_then(Parting::until);
        let moments = [
            self.responses.next_deadline(),
            self.pulse.next(),
            self.idle.next().filter(|_| self.parting.is_none()),
            until,
        ];
        moments.into_iter().flatten().min()
    }

    /// Notes a moment at which something is due; gives it back if the keeper has to be told.
    pub(super) fn name(&mut self, at: Instant) -> Option<Instant> {
        if self.named.is_some_and(|named| named <= at) {
            return None;
        }
        self.named = Some(at);
        Some(at)
    }
}

/// Whether the peer lives: what was received when that was last looked at, and when to look again. Pure.
///
/// Nothing is noted as bytes arrive; two looks are compared. So a silence is noticed up to one interval late.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    received: u64,
    /// When a look first found the bytes that are still the last.
    since: Option<Instant>,
    asked: bool,
    /// What had been written at the last look, while more was to be.
    writing: Option<u64>,
    next: Option<Instant>,
}

/// What a look at the peer found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is too early, or the peer lives.
    Fine,
    /// It is to be asked.
    Ask,
    /// It does not live.
    None { silence: Duration },
}

impl Pulse {
    pub(super) fn start(&mut self, config: &TransportConfig, now: Instant) {
        self.since = Some(now);
        self.next = config
            .pings()
            .and_then(|(interval, _)| now.checked_add(interval));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// `writing` is what has been written, where more is to be.
    fn look(
        &mut self,
        config: &TransportConfig,
        now: Instant,
        received: u64,
        writing: Option<u64>,
    ) -> Sign {
        let due = self.next.filter(|next| *next <= now);
        let (Some(due), Some((interval, timeout))) = (due, config.pings()) else {
            return Sign::Fine;
        };
        let late = now - due;
        // A ping may stand behind much that goes out slowly; as long as it goes, somebody takes it.
        let before = std::mem::replace(&mut self.writing, writing);
        let goes_out = writing.is_some() && before.is_some() && writing != before;
        if received != self.received {
            self.received = received;
            self.since = Some(now);
            self.asked = false;
            self.next = now.checked_add(interval);
            return Sign::Fine;
        }
        if self.asked && !goes_out && late < timeout.max(LATE_MIN) {
            let silence = now - self.since.unwrap_or(now);
            return Sign::None { silence };
        }
        // Whoever looks that late stood still itself, and the answer may wait to be read.
        let ask = !std::mem::replace(&mut self.asked, true);
        self.next = now.checked_add(timeout);
        if ask { Sign::Ask } else { Sign::Fine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> TransportConfig {
        TransportConfig {
            ping_interval: Some(15 * SECOND),
            ping_timeout: Some(10 * SECOND),
            ..TransportConfig::default()
        }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn started(config: &TransportConfig) -> (Pulse, Instant) {
        let (mut pulse, now) = (Pulse::default(), Instant::now());
        pulse.start(config, now);
        (pulse, now)
    }

    #[test]
    fn a_peer_is_asked_after_the_interval_and_given_up_after_the_timeout() {
        let config = config();
        let (mut pulse, start) = started(&config);
        assert_eq!(pulse.next(), Some(start + 15 * SECOND));
        assert_eq!(
            pulse.look(&config, start + 14 * SECOND, 0, None),
            Sign::Fine
        );
        assert_eq!(pulse.look(&config, start + 15 * SECOND, 0, None), Sign::Ask);
        assert_eq!(pulse.next(), Some(start + 25 * SECOND));
        let silence = 25 * SECOND;
        let given_up = pulse.look(&config, start + silence, 0, None);
        assert_eq!(given_up, Sign::None { silence });
    }

    #[test]
    fn any_byte_is_a_sign_of_life() {
        let config = config();
        let (mut pulse, start) = started(&config);
        assert_eq!(pulse.look(&config, start + 15 * SECOND, 0, None), Sign::Ask);
        assert_eq!(
            pulse.look(&config, start + 25 * SECOND, 1, None),
            Sign::Fine
        );
        assert_eq!(
            pulse.look(&config, start + 40 * SECOND, 2, None),
            Sign::Fine
        );
        assert_eq!(pulse.look(&config, start + 55 * SECOND, 2, None), Sign::Ask);
    }

    #[test]
    fn a_ping_that_waits_behind_much_that_still_goes_out_is_waited_for() {
        let config = config();
        let (mut pulse, start) = started(&config);
        let mut look = |at: u32, writing| pulse.look(&config, start + at * SECOND, 0, writing);
        assert_eq!(look(15, Some(10)), Sign::Ask);
        assert_eq!(look(25, Some(11)), Sign::Fine);
        assert_eq!(look(35, Some(12)), Sign::Fine);
        let silence = 45 * SECOND;
        assert_eq!(look(45, Some(12)), Sign::None { silence });
    }

    #[test]
    fn who_stood_still_itself_waits_for_the_answer_once_more() {
        let config = config();
        let (mut pulse, start) = started(&config);
        assert_eq!(pulse.look(&config, start + 15 * SECOND, 0, None), Sign::Ask);
        assert_eq!(
            pulse.look(&config, start + 60 * SECOND, 0, None),
            Sign::Fine
        );
        let silence = 70 * SECOND;
        let given_up = pulse.look(&config, start + silence, 0, None);
        assert_eq!(given_up, Sign::None { silence });
    }

    #[test]
    fn without_an_interval_or_a_timeout_nobody_is_asked() {
        for (interval, timeout) in [(None, Some(SECOND)), (Some(SECOND), Some(Duration::ZERO))] {
            let config = TransportConfig {
                ping_interval: interval,
                ping_timeout: timeout,
                ..TransportConfig::default()
            };
            assert_eq!(started(&config).0.next(), None);
        }
    }
}
