//! The mind of a runner: events and the time in, effects out.
//!
//! ```text
//!               asked to end
//!   Running ───────────────────► Running, to be killed when the grace is over
//!      │ start returned                 │ start returned
//!      ▼                                ▼
//!   Clearing: what is left            Clearing: what is left has the rest of the grace, for it was asked as well
//!   is killed at once                   │
//!      │ nothing is left                │ nothing is left
//!      ▼                                ▼
//!   Finished ◄──────────────────────────'
//! ```

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::application::{ExitState, ShutdownReason};
use crate::attempt::Outcome;
use crate::now::Now;

/// The pause between two rounds of killing: something may have forked during the first.
const KILL_INTERVAL: Duration = Duration::from_millis(20);
/// How long processes that were killed may take to vanish: it needs no cooperation of theirs, only the kernel's.
const VANISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Something that happened around the runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The application is to end.
    StopRequested(ShutdownReason),
    /// It is to end at once.
    KillRequested(ShutdownReason),
    /// `Application::start` returned.
    Returned {
        /// What it said.
        seen: Result<ExitState, String>,
        /// Whether processes of it are left.
        leftovers: bool,
    },
    /// No process of the application is left, and all of its output is written.
    AllGone,
    /// A worker is there.
    WorkerAttached,
    /// The worker is gone.
    WorkerDetached,
    /// The time of [`RunnerCore::next_deadline`] has come.
    Tick,
}

/// Something the shell must do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Call `Application::shutdown`.
    Shutdown(ShutdownReason),
    /// Kill everything below this process.
    KillAll,
    /// Call `Application::clean`, record how it ended, then say so and exit.
    Finish(Outcome),
}

#[derive(Debug)]
enum Phase {
    Running,
    /// The application has ended, and the rest of it is to follow.
    Clearing(Result<ExitState, String>),
    Finished,
}

/// The mind of a runner.
#[derive(Debug)]
pub(super) struct RunnerCore {
    grace: Duration,
    worker_timeout: Duration,
    /// The grace where the worker did not come back.
    worker_lost_grace: Duration,
    phase: Phase,
    /// Why it was asked to end, if it was.
    asked: Option<ShutdownReason>,
    /// When to kill what is left.
    kill_at: Option<Instant>,
    /// When to stop waiting for what was killed.
    give_up_at: Option<Instant>,
    /// When the worker has been away for too long.
    worker_lost_at: Option<Instant>,
}

impl RunnerCore {
    /// A runner whose application was just started and whose worker is still to attach.
    pub(super) fn new(grace: Duration, worker_timeout: Duration, now: Now) -> Self {
        Self {
            grace,
            worker_timeout,
            worker_lost_grace: grace,
            phase: Phase::Running,
            asked: None,
            kill_at: None,
            give_up_at: None,
            worker_lost_at: now.instant.checked_add(worker_timeout),
        }
    }

    /// Gives the application another grace where the worker does not come back.
    #[must_use]
    pub(super) fn worker_lost_grace(self, worker_lost_grace: Duration) -> Self {
        Self {
            worker_lost_grace,
            ..self
        }
    }

    /// Applies one event and returns what must follow, in order. After an [`Effect::Finish`] nothing does.
    #[must_use = "effects do nothing until the shell performs them"]
    pub(super) fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let now = now.instant;
        if matches!(self.phase, Phase::Finished) {
            return Vec::new();
        }
        match event {
            Event::StopRequested(reason) => self.on_stop_requested(reason, now),
            Event::KillRequested(reason) => {
                self.asked.get_or_insert(reason);
                self.kill_at = Some(now);
                self.on_tick(now)
            }
            Event::Returned { seen, leftovers } => {
                self.phase = Phase::Clearing(seen);
                if self.asked.is_none() {
                    self.kill_at = Some(now);
                }
                if leftovers {
                    self.on_tick(now)
                } else {
                    // Only its last output is waited for; whoever else holds the pipe does not hold us up for ever.
                    self.give_up_at = now.checked_add(VANISH_TIMEOUT);
                    Vec::new()
                }
            }
            Event::AllGone => self.finish(),
            Event::WorkerAttached => {
                self.worker_lost_at = None;
                Vec::new()
            }
            Event::WorkerDetached => {
                self.worker_lost_at = now.checked_add(self.worker_timeout);
                Vec::new()
            }
            Event::Tick => self.on_tick(now),
        }
    }

    /// When the shell should send the next [`Event::Tick`], if ever. Changes with every event.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if matches!(self.phase, Phase::Finished) {
            return None;
        }
        [self.kill_at, self.give_up_at, self.worker_lost_at]
            .into_iter()
            .flatten()
            .min()
    }

    fn on_stop_requested(&mut self, reason: ShutdownReason, now: Instant) -> Vec<Effect> {
        if let Some(before) = &mut self.asked {
            // What somebody asked for is what they will be told, however else the end began.
            if reason == ShutdownReason::Killed {
                *before = reason;
            }
            return Vec::new();
        }
        info!(%reason, "asking the application to end");
        self.asked = Some(reason.clone());
        if matches!(self.phase, Phase::Clearing(_)) {
            return Vec::new(); // the rest of it is being killed already
        }
        let grace = if reason == ShutdownReason::WorkerLost {
            self.worker_lost_grace
        } else {
            self.grace
        };
        self.kill_at = now.checked_add(grace);
        vec![Effect::Shutdown(reason)]
    }

    fn on_tick(&mut self, now: Instant) -> Vec<Effect> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let mut effects = Vec::new();
        if due(self.worker_lost_at) {
            warn!("the worker did not come back");
            self.worker_lost_at = None;
            effects = self.on_stop_requested(ShutdownReason::WorkerLost, now);
        }
        if due(self.kill_at) {
            self.kill_at = now.checked_add(KILL_INTERVAL);
            if matches!(self.phase, Phase::Clearing(_)) && self.give_up_at.is_none() {
                self.give_up_at = now.checked_add(VANISH_TIMEOUT);
            }
            effects.push(Effect::KillAll);
        }
        if due(self.give_up_at) {
            warn!("some process of the application cannot be ended");
            effects.extend(self.finish());
        }
        effects
    }

    fn finish(&mut self) -> Vec<Effect> {
        let seen = match std::mem::replace(&mut self.phase, Phase::Finished) {
            Phase::Clearing(seen) => seen,
            before @ (Phase::Running | Phase::Finished) => {
                // Between two processes of the application there may be none for a moment.
                self.phase = before;
                return Vec::new();
            }
        };
        let outcome = match (&self.asked, seen) {
            (Some(ShutdownReason::Killed), _) => Outcome::Killed,
            (Some(reason), _) => Outcome::Lost(reason.to_string()),
            (None, Ok(ExitState::Code(code))) => Outcome::Exited(code),
            (None, Ok(ExitState::Signal(signal))) => Outcome::Signaled(signal),
            (None, Err(reason)) => Outcome::CouldNotStart(reason),
        };
        vec![Effect::Finish(outcome)]
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GRACE: Duration = Duration::from_secs(10);
    const AWAY: Duration = Duration::from_secs(600);

    struct Harness {
        core: RunnerCore,
        now: Now,
    }

    impl Harness {
        fn new() -> Self {
            #[expect(
                clippy::disallowed_methods,
                reason = "any instant will do, and there is no other way to have one"
            )]
            let now = Now {
                instant: Instant::now(),
                wall: SystemTime::UNIX_EPOCH,
            };
            let core = RunnerCore::new(GRACE, AWAY, now);
            Self { core, now }
        }

        fn attached() -> Self {
            let mut t = Self::new();
            t.expect(Event::WorkerAttached, &[]);
            t
        }

        #[track_caller]
        fn expect(&mut self, event: Event, effects: &[Effect]) {
            assert_eq!(self.core.handle(event, self.now), effects);
        }

        #[track_caller]
        fn advance(&mut self, by: Duration, effects: &[Effect]) {
            self.now.instant += by;
            self.expect(Event::Tick, effects);
        }
    }

    fn returned(code: i32, leftovers: bool) -> Event {
        let seen = Ok(ExitState::Code(code));
        Event::Returned { seen, leftovers }
    }

    fn stop(reason: ShutdownReason) -> Event {
        Event::StopRequested(reason)
    }

    #[test]
    fn what_ended_by_itself_keeps_its_exit_code() {
        let mut t = Harness::attached();
        assert_eq!(t.core.next_deadline(), None);
        t.expect(returned(3, false), &[]);
        t.expect(Event::AllGone, &[Effect::Finish(Outcome::Exited(3))]);
        t.expect(Event::AllGone, &[]);
        assert_eq!(t.core.next_deadline(), None);
    }

    #[test]
    fn what_is_left_behind_is_killed_until_it_is_gone() {
        let mut t = Harness::attached();
        t.expect(returned(0, true), &[Effect::KillAll]);
        t.advance(KILL_INTERVAL / 2, &[]);
        t.advance(KILL_INTERVAL, &[Effect::KillAll]);
        t.expect(Event::AllGone, &[Effect::Finish(Outcome::Exited(0))]);
    }

    #[test]
    fn what_cannot_be_killed_does_not_hold_up_the_end_for_ever() {
        let mut t = Harness::attached();
        t.expect(returned(0, true), &[Effect::KillAll]);
        let finish = Effect::Finish(Outcome::Exited(0));
        t.advance(VANISH_TIMEOUT, &[Effect::KillAll, finish]);
    }

    #[test]
    fn asked_to_end_it_has_the_grace_and_so_has_what_it_leaves_behind() {
        let mut t = Harness::attached();
        let shutdown = Effect::Shutdown(ShutdownReason::Killed);
        t.expect(stop(ShutdownReason::Killed), &[shutdown]);
        t.expect(stop(ShutdownReason::Killed), &[]);
        t.advance(GRACE / 2, &[]);
        t.expect(returned(0, true), &[]);
        t.advance(GRACE / 2, &[Effect::KillAll]);
        t.expect(Event::AllGone, &[Effect::Finish(Outcome::Killed)]);
    }

    #[test]
    fn what_ignores_the_request_is_killed_and_counts_as_killed() {
        let mut t = Harness::attached();
        let shutdown = Effect::Shutdown(ShutdownReason::Killed);
        t.expect(stop(ShutdownReason::Killed), &[shutdown]);
        t.advance(GRACE, &[Effect::KillAll]);
        let seen = Ok(ExitState::Signal(9));
        let leftovers = false;
        t.expect(Event::Returned { seen, leftovers }, &[]);
        t.expect(Event::AllGone, &[Effect::Finish(Outcome::Killed)]);
    }

    #[test]
    fn a_kill_needs_no_grace() {
        let mut t = Harness::attached();
        t.expect(
            Event::KillRequested(ShutdownReason::Killed),
            &[Effect::KillAll],
        );
        t.advance(KILL_INTERVAL, &[Effect::KillAll]);
    }

    #[test]
    fn a_request_by_somebody_outweighs_other_reasons() {
        let mut t = Harness::attached();
        let shutdown = Effect::Shutdown(ShutdownReason::WorkerStops);
        t.expect(stop(ShutdownReason::WorkerStops), &[shutdown]);
        t.expect(stop(ShutdownReason::Killed), &[]);
        t.expect(returned(0, false), &[]);
        t.expect(Event::AllGone, &[Effect::Finish(Outcome::Killed)]);
    }

    #[test]
    fn without_a_worker_for_too_long_the_application_ends() {
        let mut t = Harness::new();
        t.advance(AWAY - SECOND, &[]);
        t.expect(Event::WorkerAttached, &[]);
        t.advance(AWAY, &[]);
        t.expect(Event::WorkerDetached, &[]);
        t.advance(AWAY - SECOND, &[]);
        let shutdown = Effect::Shutdown(ShutdownReason::WorkerLost);
        t.advance(SECOND, &[shutdown]);
        t.expect(returned(0, false), &[]);
        let lost = Outcome::Lost("its worker did not come back".into());
        t.expect(Event::AllGone, &[Effect::Finish(lost)]);
    }

    #[test]
    fn where_the_worker_does_not_come_back_the_grace_may_be_shorter_than_otherwise() {
        let mut t = Harness::new();
        t.core = RunnerCore::new(GRACE, AWAY, t.now).worker_lost_grace(SECOND);
        let shutdown = Effect::Shutdown(ShutdownReason::WorkerLost);
        t.advance(AWAY, &[shutdown]);
        t.advance(SECOND - Duration::from_millis(1), &[]);
        t.advance(Duration::from_millis(1), &[Effect::KillAll]);
    }

    #[test]
    fn what_could_not_start_says_why() {
        let mut t = Harness::new();
        let seen = Err("no such program".to_owned());
        let leftovers = false;
        t.expect(Event::Returned { seen, leftovers }, &[]);
        let outcome = Outcome::CouldNotStart("no such program".into());
        t.expect(Event::AllGone, &[Effect::Finish(outcome)]);
    }

    #[test]
    fn a_moment_without_processes_is_no_end() {
        let mut t = Harness::attached();
        t.expect(Event::AllGone, &[]);
        t.expect(returned(0, false), &[]);
        t.expect(Event::AllGone, &[Effect::Finish(Outcome::Exited(0))]);
    }
}
