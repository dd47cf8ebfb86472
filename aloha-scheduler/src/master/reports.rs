//! What workers report of the attempts they were given.

use std::time::Duration;

use tracing::{debug, warn};

use super::core::MasterCore;
use super::effect::Reply;
use super::event::ReplyTo;
use super::restarts::KILLED_CODE;
use super::workers::WorkerState;
use crate::app::{AppPhase, AppState, Ending};
use crate::attempt::{AttemptState, Outcome};
use crate::ids::{AppId, WorkerId};
use crate::now::Now;

/// What a report is to us.
enum Standing {
    /// About the current attempt, from the worker that has it.
    Current,
    /// About an attempt that is over for us, or of an application we no longer know.
    Stale,
    /// About an attempt that this worker was never given.
    Foreign { reason: String },
}

/// How long an application waits that was declined by a worker which takes others.
const AFTER_DECLINED: Duration = Duration::from_secs(1);
/// The longest reason that is kept, in bytes.
const REASON_MAX: usize = 1024;

/// A reason from outside, cut to what is kept of it.
fn clipped(mut reason: String) -> String {
    if reason.len() > REASON_MAX {
        reason.truncate(reason.floor_char_boundary(REASON_MAX));
        reason.push('…');
    }
    reason
}

impl MasterCore {
    pub(super) fn on_attempt_started(
        &mut self,
        worker: WorkerId,
        app: AppId,
        attempt: u32,
        reply: ReplyTo,
        now: Now,
    ) {
        match self.standing(&worker, &app, attempt) {
            Standing::Current => {
                // From a worker that is away this waits for its registration, which says it again.
                if self
                    .apps
                    .get(&app)
                    .is_some_and(|app| app.phase() == AppPhase::Launching)
                {
                    self.on_app_back(&app, AttemptState::Running, now);
                }
                self.reply(reply, Reply::Acknowledged);
            }
            Standing::Stale => {
                debug!(%app, attempt, %worker, "an attempt started that is not wanted");
                let reachable = self.workers.state(&worker);
                let set_aside = self.set_aside.contains(&app);
                if !set_aside
                    && matches!(reachable, Some(WorkerState::Alive | WorkerState::Leaving))
                {
                    // It occupies the worker until that reports it ended, which it does even if it is already.
                    if let Some(needs) = self.apps.get(&app).map(|app| app.description.needs()) {
                        self.workers.occupy(&worker, (app.clone(), attempt), needs);
                    }
                    self.send_kill(&worker, &app, attempt);
                }
                self.reply(reply, Reply::Acknowledged);
            }
            Standing::Foreign { reason } => self.refuse(reply, reason),
        }
    }

    pub(super) fn on_attempt_ended(
        &mut self,
        worker: WorkerId,
        app: AppId,
        attempt: u32,
        outcome: Outcome,
        reply: ReplyTo,
        now: Now,
    ) {
        self.outnumber(&app, attempt);
        let standing = self.standing(&worker, &app, attempt);
        if let Standing::Foreign { reason } = standing {
            self.refuse(reply, reason);
            return;
        }
        self.workers.release(&worker, &(app.clone(), attempt));
        if matches!(standing, Standing::Current) {
            self.conclude(&app, outcome, now);
        } else {
            debug!(%app, attempt, %worker, %outcome, "ignored a late report");
        }
        self.reply(reply, Reply::Acknowledged);
        self.let_go_if_done(&worker, now);
    }

    fn standing(&self, worker: &WorkerId, id: &AppId, attempt: u32) -> Standing {
        if self.is_current(worker, &(id.clone(), attempt)).is_some() {
            return Standing::Current;
        }
        let Some(app) = self.apps.get(id).filter(|app| attempt >= app.attempt) else {
            return Standing::Stale;
        };
        if attempt > app.attempt {
            return Standing::Foreign {
                reason: format!("attempt {attempt} of {id} was never launched"),
            };
        }
        match app.state.placement() {
            Some(on) if on.worker != *worker => Standing::Foreign {
                reason: format!("attempt {attempt} of {id} belongs to worker {}", on.worker),
            },
            Some(_) | None => Standing::Stale,
        }
    }

    fn refuse(&mut self, reply: ReplyTo, reason: String) {
        warn!(reason, "refused a report");
        self.reply(reply, Reply::Refused { reason });
    }

    /// Decides what follows the end of the current attempt.
    fn conclude(&mut self, id: &AppId, outcome: Outcome, now: Now) {
        let Some(app) = self.apps.get(id) else { return };
        let why = clipped(outcome.to_string());
        match outcome {
            Outcome::Exited(0) => self.end_or_restart(id, Ending::Finished, why, None, now),
            Outcome::Exited(code) => self.end_or_restart(id, Ending::Failed(code), why, None, now),
            Outcome::Signaled(signal) => {
                let code = signal.saturating_add(128);
                let message = Some(why.clone());
                self.end_or_restart(id, Ending::Failed(code), why, message, now);
            }
            Outcome::OutOfMemory { .. } => {
                let message = Some(why.clone());
                self.end_or_restart(id, Ending::Failed(KILLED_CODE), why, message, now);
            }
            Outcome::Killed => self.on_attempt_killed(id, now),
            Outcome::CouldNotStart(reason) | Outcome::Declined(reason) if app.kill_requested => {
                self.end(id, Ending::Killed, Some(clipped(reason)), now);
            }
            Outcome::CouldNotStart(reason) => {
                self.end(id, Ending::Error, Some(clipped(reason)), now);
            }
            Outcome::Lost(reason) => self.on_attempt_lost(id, clipped(reason), now),
            Outcome::Declined(reason) => self.requeue(id, clipped(reason), now),
        }
    }

    /// Puts an application that was never started back in the queue.
    fn requeue(&mut self, id: &AppId, reason: String, now: Now) {
        let Some(app) = self.apps.get(id) else { return };
        if app.state.since().is_some() {
            self.lose_attempt(id, reason, now); // it was started all the same
            return;
        }
        let on = app.state.placement().map(|on| on.worker.clone());
        let takes_more = on.and_then(|on| self.workers.state(&on)) == Some(WorkerState::Alive);
        if takes_more {
            // Worker and master do not agree. Offered again at once, it would be declined again at once.
            self.pause(id, reason, AFTER_DECLINED, now);
        } else if app.attempt <= 1 {
            self.change_because(id, AppState::Submitted, Some(reason));
        } else {
            let state = AppState::Relaunching {
                reason,
                not_before: None,
            };
            self.change(id, state);
        }
    }
}
