//! What a connection is doing and since when, told by its own task and read by the server.
//!
//! ```text
//!          first byte of a head          the head is whole           the answer is all there
//!     Idle ---------------------> Head --------------------> Busy -------------------------> Answered
//!      ^                                                     |  ^                                |
//!      |                                        more of the  v  | it is whole                    |
//!      |                                        body is due  Body                                |
//!      '------------------------------------- all of it is written ------------------------------'
//! ```
//!
//! No connection has a timer, and none reads the clock: the server counts pulses, a connection notes the pulse at
//! which something changed, and the server looks at all connections with each pulse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// The pulses of a server since it began.
#[derive(Debug, Default)]
pub(super) struct Pulse(AtomicU64);

impl Pulse {
    pub(super) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// It waits for a request.
    Idle,
    /// It waits for the rest of a head.
    Head,
    /// It works on a request.
    Busy,
    /// It waits for the rest of a body.
    Body,
    /// It writes the last of an answer.
    Answered,
    /// It is being closed.
    Closing,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Idle,
        Self::Head,
        Self::Busy,
        Self::Body,
        Self::Answered,
        Self::Closing,
    ];
}

/// The lowest bits of a state are its phase, the others its pulse.
const PHASE_BITS: u32 = 3;
/// The pulse since which nothing is written, where all could be.
const FLOWING: u64 = u64::MAX;

/// One connection, as the server sees it. Only its own task changes the phase.
#[derive(Debug)]
pub(super) struct Watch {
    pulse: Arc<Pulse>,
    /// Phase and pulse in one word, so that they belong together.
    state: AtomicU64,
    /// The pulse since which the client takes nothing of what is to be written.
    stalled_since: AtomicU64,
    /// Its request waits for news, for as long as there may be any.
    is_long: AtomicBool,
    /// The request whose body is due is for one of our own resources.
    is_own: AtomicBool,
    /// It is to make room for another.
    is_evicted: AtomicBool,
    woken: Notify,
}

impl Watch {
    pub(super) fn new(pulse: Arc<Pulse>) -> Self {
        let state = packed(Phase::Idle, pulse.now());
        Self {
            pulse,
            state: AtomicU64::new(state),
            stalled_since: AtomicU64::new(FLOWING),
            is_long: AtomicBool::new(false),
            is_own: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            woken: Notify::new(),
        }
    }

    /// What it is doing, and since which pulse.
    pub(super) fn state(&self) -> (Phase, u64) {
        let state = self.state.load(Ordering::Relaxed);
        let phase = usize::try_from(state & ((1 << PHASE_BITS) - 1)).unwrap_or_default();
        (Phase::ALL[phase], state >> PHASE_BITS)
    }

    pub(super) fn phase(&self) -> Phase {
        self.state().0
    }

    pub(super) fn enter(&self, phase: Phase) {
        let state = packed(phase, self.pulse.now());
        self.state.store(state, Ordering::Relaxed);
    }

    /// Goes from one phase to the next, unless it is elsewhere.
    pub(super) fn advance(&self, from: Phase, to: Phase) {
        if self.phase() == from {
            self.enter(to);
        }
    }

    /// Notes whether something could be written.
    pub(super) fn on_write(&self, is_pending: bool) {
        let was_pending = self.stalled_since().is_some();
        if is_pending != was_pending {
            let since = if is_pending {
                self.pulse.now()
            } else {
                FLOWING
            };
            self.stalled_since.store(since, Ordering::Relaxed);
        }
    }

    /// Since when nothing could be written, if so.
    pub(super) fn stalled_since(&self) -> Option<u64> {
        let since = self.stalled_since.load(Ordering::Relaxed);
        (since != FLOWING).then_some(since)
    }

    /// Since when it waits for its client, if it does.
    pub(super) fn waits_since(&self) -> Option<u64> {
        match self.state() {
            (Phase::Idle | Phase::Head | Phase::Body, since) => Some(since),
            (Phase::Busy | Phase::Answered, _) => self.stalled_since(),
            (Phase::Closing, _) => None,
        }
    }

    pub(super) fn is_long(&self) -> bool {
        self.is_long.load(Ordering::Relaxed)
    }

    pub(super) fn set_long(&self, is_long: bool) {
        self.is_long.store(is_long, Ordering::Relaxed);
    }

    pub(super) fn is_own(&self) -> bool {
        self.is_own.load(Ordering::Relaxed)
    }

    pub(super) fn set_own(&self, is_own: bool) {
        self.is_own.store(is_own, Ordering::Relaxed);
    }

    /// Has it make room for another, unless it stops waiting for its client first.
    pub(super) fn evict(&self) {
        self.is_evicted.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether it goes, or is about to.
    pub(super) fn is_leaving(&self) -> bool {
        self.phase() == Phase::Closing || self.is_evicted.load(Ordering::Relaxed)
    }

    /// Whether it is to make room; asked once.
    pub(super) fn take_eviction(&self) -> bool {
        self.is_evicted.swap(false, Ordering::Relaxed) && self.waits_since().is_some()
    }

    /// Has its task look whether it may go on.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Completes when its task is to look.
    pub(super) fn woken(&self) -> Notified<'_> {
        self.woken.notified()
    }
}

fn packed(phase: Phase, pulse: u64) -> u64 {
    (pulse << PHASE_BITS) | u64::from(phase as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [Phase; 6] = Phase::ALL;

    #[test]
    fn a_state_is_its_phase_and_the_pulse_at_which_it_began() {
        let pulse = Arc::new(Pulse::default());
        let watch = Watch::new(Arc::clone(&pulse));
        assert_eq!(watch.state(), (Phase::Idle, 0));
        for (at, phase) in (1..).zip(PHASES) {
            pulse.beat();
            watch.enter(phase);
            assert_eq!(watch.state(), (phase, at));
        }
        watch.advance(Phase::Idle, Phase::Head);
        assert_eq!(watch.phase(), Phase::Closing);
        watch.enter(Phase::Idle);
        watch.advance(Phase::Idle, Phase::Head);
        assert_eq!(watch.phase(), Phase::Head);
    }

    #[test]
    fn it_waits_for_its_client_for_a_request_and_for_room_to_write() {
        let pulse = Arc::new(Pulse::default());
        let watch = Watch::new(Arc::clone(&pulse));
        let waits = PHASES.map(|phase| {
            watch.enter(phase);
            watch.waits_since().is_some()
        });
        assert_eq!(waits, [true, true, false, true, false, false]);
        watch.enter(Phase::Busy);
        watch.on_write(true);
        pulse.beat();
        // Still the same stall.
        watch.on_write(true);
        assert_eq!(watch.waits_since(), Some(0));
        watch.on_write(false);
        assert_eq!(watch.waits_since(), None);
    }

    #[test]
    fn a_connection_that_began_to_work_is_not_evicted_any_more() {
        let watch = Watch::new(Arc::default());
        watch.evict();
        watch.enter(Phase::Busy);
        assert!(!watch.take_eviction());
        watch.enter(Phase::Idle);
        assert!(!watch.take_eviction(), "it was asked once");
        watch.evict();
        assert!(watch.take_eviction());
    }
}
