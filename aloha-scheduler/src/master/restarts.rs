//! What follows the end of a run: the end of the application, or a pause and then another run. And the longest run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::apps::AppRecord;
use super::core::MasterCore;
use super::drain::moved_from;
use super::effect::Effect;
use super::timers::Timers;
use super::workers::WorkerState;
use crate::app::{AppPhase, AppState, Ending};
use crate::events::AlohaEvent;
use crate::ids::AppId;
use crate::now::Now;
use crate::restart::{NextRun, RestartCondition};

/// The code of an attempt that had to be killed, as a shell reports it.
pub(super) const KILLED_CODE: i32 = 137;

/// How long an application waits whose attempt was lost on a worker that is there, in less than this.
const AFTER_LOST: Duration = Duration::from_secs(1);

/// The times of applications that decide something. None of them is a time on the wall, which may step.
#[derive(Debug, Default)]
pub(super) struct RunClocks {
    /// Since when the current attempt of each application runs.
    running: BTreeMap<AppId, Instant>,
    /// When an attempt has run for as long as it may.
    overruns: Timers,
    /// When an application may run again.
    pauses: Timers,
}

impl RunClocks {
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.overruns.next(), self.pauses.next()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Forgets an application.
    pub(super) fn remove(&mut self, id: &AppId) {
        self.running.remove(id);
        self.overruns.remove(id);
        self.pauses.remove(id);
    }

    /// Keeps what still matters to an application in this phase.
    pub(super) fn keep_for(&mut self, id: &AppId, phase: AppPhase) {
        if phase != AppPhase::Relaunching {
            self.pauses.remove(id);
        }
        if !phase.is_placed() {
            self.running.remove(id);
            self.overruns.remove(id);
        }
    }

    /// Counts the run of an application from this moment on, unless it is counted already.
    pub(super) fn begin_run(&mut self, app: &AppRecord, since: Instant) {
        if self.running.contains_key(&app.id) {
            return;
        }
        self.running.insert(app.id.clone(), since);
        let limit = app.description.run_millis_max.filter(|_| !app.overran);
        if let Some(at) = limit.and_then(|limit| since.checked_add(Duration::from_millis(limit))) {
            self.overruns.set(&app.id, at);
        }
    }

    pub(super) fn begin_pause(&mut self, id: &AppId, until: Instant) {
        self.pauses.set(id, until);
    }

    fn ran_for(&self, id: &AppId, now: Now) -> Duration {
        self.running.get(id).map_or(Duration::ZERO, |since| {
            now.instant.saturating_duration_since(*since)
        })
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check_invariants<'a>(&self, apps: impl Iterator<Item = &'a AppRecord>) {
        let (mut running, mut overruns, mut pauses) = (0, 0, 0);
        for app in apps {
            let id = &app.id;
            if app.phase().is_placed() && app.state.since().is_some() {
                assert!(
                    self.running.contains_key(id),
                    "nobody counts how long {id} runs"
                );
                running += 1;
                if app.description.run_millis_max.is_some() && !app.overran {
                    assert!(self.overruns.contains(id), "nothing ends {id}");
                    overruns += 1;
                }
            }
            if let AppState::Relaunching {
                not_before: Some(_),
                ..
            } = app.state
            {
                assert!(self.pauses.contains(id), "{id} pauses for ever");
                pauses += 1;
            }
        }
        let counted = (self.running.len(), self.overruns.len(), self.pauses.len());
        assert_eq!(counted, (running, overruns, pauses), "clocks of nothing");
    }
}

impl MasterCore {
    /// An attempt ended by itself. Its application runs again where its policy says so, and has else ended like this.
    pub(super) fn end_or_restart(
        &mut self,
        id: &AppId,
        how: Ending,
        why: String,
        message: Option<String>,
        now: Now,
    ) {
        let Some(app) = self.apps.get(id) else { return };
        let runs_again = match app.description.restart_condition() {
            RestartCondition::Never => false,
            RestartCondition::OnFailure => how != Ending::Finished,
            RestartCondition::Always => true,
        };
        if !runs_again || app.kill_requested {
            self.end_because(id, how, message, why, now);
            return;
        }
        let ran_for = self.clocks.ran_for(id, now);
        // The same for everybody who knows the application, different for each attempt.
        let seed = app.number.rotate_left(32) ^ u64::from(app.attempt);
        let policy = &app.description.restart;
        match policy.after_run(app.restarts_in_a_row, ran_for, seed) {
            NextRun::After { in_a_row, pause } => {
                let seconds = pause.as_secs_f64();
                let reason = format!("{why}; restart {in_a_row} in a row, after {seconds:.1} s");
                self.apps.update(id, |app| app.restarts_in_a_row = in_a_row);
                self.pause(id, reason.clone(), pause, now);
                self.publish_relaunch(id, reason);
            }
            NextRun::TooOften { in_a_row_max } => {
                let plural = if in_a_row_max == 1 { "" } else { "s" };
                let message = format!(
                    "{why}; not restarted again after {in_a_row_max} restart{plural} in a row"
                );
                info!(app = %id, message, "app gives up");
                self.end(id, how, Some(message), now);
            }
        }
    }

    /// An attempt came to nothing through no fault of its own; what it occupied is given back already.
    ///
    /// An application that is ever restarted runs again at once, and that counts for nothing.
    pub(super) fn lose_attempt(&mut self, id: &AppId, reason: String, now: Now) {
        let Some(app) = self.apps.get(id) else { return };
        warn!(app = %id, attempt = app.attempt, reason, "attempt lost");
        if app.kill_requested {
            self.end(id, Ending::Killed, Some(reason), now);
        } else if app.description.survives_its_worker() {
            let ran_for = self.clocks.ran_for(id, now);
            if app.description.restart.was_long(ran_for) {
                self.apps.update(id, |app| app.restarts_in_a_row = 0);
            }
            let next = AppState::Relaunching {
                reason: reason.clone(),
                not_before: None,
            };
            self.change(id, next);
            self.publish_relaunch(id, reason);
        } else {
            self.end(id, Ending::Error, Some(reason), now);
        }
    }

    /// A worker says that an attempt is lost, and is there itself.
    ///
    /// One that was lost as soon as it was launched would often be so the next time. It counts for nothing, as every
    /// loss, but waits a moment, lest master and worker do nothing else.
    pub(super) fn on_attempt_lost(&mut self, id: &AppId, reason: String, now: Now) {
        let Some(app) = self.apps.get(id) else { return };
        let on = app.state.placement().map(|on| &on.worker);
        let takes_more = on.and_then(|on| self.workers.state(on)) == Some(WorkerState::Alive);
        let at_once = self.clocks.ran_for(id, now) < AFTER_LOST;
        let runs_again = app.description.survives_its_worker() && !app.kill_requested;
        if takes_more && at_once && runs_again {
            self.pause(id, reason.clone(), AFTER_LOST, now);
            self.publish_relaunch(id, reason);
        } else {
            self.lose_attempt(id, reason, now);
        }
    }

    /// Keeps an application out of the queue for a while, before it runs again.
    pub(super) fn pause(&mut self, id: &AppId, reason: String, pause: Duration, now: Now) {
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let not_before = Some(now.unix_millis().saturating_add(millis));
        self.change(id, AppState::Relaunching { reason, not_before });
        if let Some(until) = now.instant.checked_add(pause) {
            self.clocks.begin_pause(id, until);
        }
    }

    /// An attempt was ended for its worker is drained.
    fn on_evicted(&mut self, id: &AppId, now: Now) {
        let Some(app) = self.apps.get(id) else { return };
        let Some(on) = app.state.placement() else {
            return;
        };
        let reason = match app.description.survives_its_worker() {
            true => moved_from(&on.worker),
            false => format!("ended, for the drain of {} took too long", on.worker),
        };
        self.lose_attempt(id, reason, now);
    }

    fn publish_relaunch(&mut self, id: &AppId, reason: String) {
        if let Some(attempt) = self.apps.get(id).map(|app| app.attempt) {
            let id = id.clone();
            let event = AlohaEvent::AppRelaunched {
                id,
                attempt,
                reason,
            };
            self.effects.push(Effect::Publish(event));
        }
    }

    pub(super) fn on_run_clocks(&mut self, now: Now) {
        while let Some(app) = self.clocks.pauses.take_due(now.instant) {
            debug!(%app, "its pause is over");
            self.apps.end_pause(&app);
        }
        while let Some(app) = self.clocks.overruns.take_due(now.instant) {
            self.on_overrun(&app);
        }
    }

    /// Ends an attempt that ran for too long. On a worker that is away this waits until that is back.
    fn on_overrun(&mut self, id: &AppId) {
        let Some(app) = self.apps.get(id).filter(|app| app.phase().is_placed()) else {
            return;
        };
        let (attempt, away) = (app.attempt, app.phase() == AppPhase::Unknown);
        let worker = app.state.placement().map(|on| on.worker.clone());
        info!(app = %id, attempt, "app ran for too long");
        self.apps.update(id, |app| app.overran = true);
        self.persist_app(id);
        if let Some(worker) = worker.filter(|_| !away) {
            self.send_kill(&worker, id, attempt);
        }
    }

    /// An attempt was ended by request of a master.
    pub(super) fn on_attempt_killed(&mut self, id: &AppId, now: Now) {
        let Some(app) = self.apps.get(id) else { return };
        let limit = app.description.run_millis_max.map(Duration::from_millis);
        // A request to end it may have gone out before it was stored why.
        let overran =
            app.overran || limit.is_some_and(|limit| self.clocks.ran_for(id, now) >= limit);
        if app.kill_requested {
            self.end(id, Ending::Killed, None, now);
        } else if let (true, Some(limit)) = (overran, limit) {
            let why = format!("ran longer than {limit:?}");
            let message = Some(why.clone());
            self.end_or_restart(id, Ending::Failed(KILLED_CODE), why, message, now);
        } else if app.evicted {
            self.on_evicted(id, now);
        } else if let (true, Some(on)) = (self.unnamed.contains(id), app.state.placement()) {
            let worker = &on.worker;
            let reason = format!("stopped, for {worker} did not name it when it registered");
            self.lose_attempt(id, reason, now);
        } else if self.settings.durable {
            // So it was for somebody who was never told that it is done, or for a change that was never stored.
            let reason = "stopped for a reason that was not stored".to_owned();
            self.lose_attempt(id, reason, now);
        } else {
            self.end(id, Ending::Killed, None, now);
        }
    }
}
