//! What clients ask for.

use std::sync::Arc;
use std::time::Instant;

use tracing::info;

use super::apps::AppRecord;
use super::core::MasterCore;
use super::effect::{Effect, Record, Reply};
use super::event::ReplyTo;
use super::keys::{Owner, SubmissionError, is_key};
use crate::app::{AppDescription, AppPhase, AppState, Ending};
use crate::ids::AppId;
use crate::messages::ForgetAnswer;
use crate::now::Now;

impl MasterCore {
    pub(super) fn on_submitted(
        &mut self,
        description: Arc<AppDescription>,
        key: Option<String>,
        reply: ReplyTo,
        now: Now,
    ) {
        if let Err(error) = description.validate() {
            return self.reply(reply, Reply::SubmissionRefused(error.into()));
        }
        if let Some(key) = &key {
            if !is_key(key) {
                return self.reply(reply, Reply::SubmissionRefused(SubmissionError::Key));
            }
            self.forget_expired_keys();
            match self.keys.owner(key, &description) {
                Owner::Nobody => {}
                // What it was submitted as may still have to be stored: this is answered after that.
                Owner::Same(app) => {
                    let is_new = false;
                    return self.reply(reply, Reply::Submitted { app, is_new });
                }
                Owner::Other(app) => return self.reply(reply, Reply::KeyReused(app)),
            }
        }
        let (number, reserved) = self.numbers.take();
        if let Some(reserved) = reserved {
            self.effects
                .push(Effect::Persist(Record::NextNumber(reserved)));
        }
        let id = AppId::mint(now.wall, number);
        let mut record = AppRecord {
            id: id.clone(),
            number,
            key: key.map(Arc::from),
            description,
            state: AppState::Submitted,
            attempt: 0,
            kill_requested: false,
            submitted_at: now.unix_millis(),
            restarts_in_a_row: 0,
            overran: false,
            evicted: false,
            history: Vec::new(),
        };
        record.note(now.unix_millis(), None);
        info!(app = %id, name = ?record.description.name, "app submitted");
        self.keys.insert(&record);
        self.apps.insert(record);
        self.persist_app(&id);
        self.publish_change(&id, None);
        let is_new = true;
        self.reply(reply, Reply::Submitted { app: id, is_new });
    }

    /// Whether it had been placed or killed meanwhile matters not: nobody was told of either.
    pub(super) fn on_submission_withdrawn(&mut self, id: &AppId) {
        let Some(app) = self.apps.get(id) else {
            // Killed and forgotten already, which nobody was told of either.
            if self.keys.withdraw_alone(id) {
                self.effects
                    .push(Effect::Persist(Record::KeyForgotten(id.clone())));
            }
            return;
        };
        if let (Some(on), false) = (app.state.placement(), app.phase().is_final()) {
            let (worker, attempt) = (on.worker.clone(), app.attempt);
            // The launch follows the acceptance, and was held back with it: the worker never heard of it.
            self.workers.release(&worker, &(id.clone(), attempt));
            self.let_go_if_done(&worker, self.now);
        }
        if let Some(app) = self.apps.remove(id) {
            self.keys.withdraw(&app);
        }
        self.clocks.remove(id);
        self.unnamed.remove(id);
        for reply in self.waits.take_for(id) {
            self.reply(reply, Reply::NoSuchApp(id.clone()));
        }
        self.effects
            .push(Effect::Persist(Record::AppForgotten(id.clone())));
    }

    pub(super) fn on_kill_requested(&mut self, app: AppId, reply: ReplyTo, now: Now) {
        let (success, message) = self.kill(&app, now);
        self.reply(
            reply,
            Reply::Kill {
                app,
                success,
                message,
            },
        );
    }

    pub(super) fn on_kill_all_requested(&mut self, reply: ReplyTo, now: Now) {
        let apps = self.apps.with_numbers(..);
        let live = apps.filter(|app| !app.phase().is_final());
        let live: Vec<_> = live.map(|app| app.id.clone()).collect();
        let killed = live.iter().filter(|app| self.kill(app, now).0);
        let count = killed.count() as u64;
        self.reply(reply, Reply::KilledAll { count });
    }

    /// Whether an application is killed, or will be, in words too.
    fn kill(&mut self, app: &AppId, now: Now) -> (bool, String) {
        let Some(record) = self.apps.get(app) else {
            let message = if self.set_aside.contains(app) {
                format!("the record of {app} is damaged and was set aside; see the master's log")
            } else {
                format!("there is no application {app}")
            };
            return (false, message);
        };
        let (phase, attempt, already) = (record.phase(), record.attempt, record.kill_requested);
        let worker = record.state.placement().map(|on| on.worker.clone());
        if phase.is_final() {
            return (false, format!("{app} has already ended: {phase}"));
        }
        let Some(worker) = worker else {
            self.end(app, Ending::Killed, None, now);
            return (true, format!("{app} was killed before it ran"));
        };
        if !already {
            self.apps.update(app, |app| app.kill_requested = true);
            self.persist_app(app);
        }
        if phase == AppPhase::Unknown {
            let message = format!("{app} will be killed as soon as {worker} is back");
            return (true, message);
        }
        self.send_kill(&worker, app, attempt);
        (true, format!("{app} is being killed on {worker}"))
    }

    // ---- forgetting ----------------------------------------------------------------------------

    pub(super) fn on_forget_requested(&mut self, app: &AppId, reply: ReplyTo) {
        let phase = self.apps.get(app).map(AppRecord::phase);
        let answer = match phase {
            None => ForgetAnswer::NoSuchApp,
            Some(phase) if !phase.is_final() => ForgetAnswer::NotEnded { phase },
            Some(_) => {
                if let Some(app) = self.apps.remove(app) {
                    self.on_forgotten(&app);
                }
                ForgetAnswer::Forgotten
            }
        };
        self.reply(reply, Reply::Forget(answer));
    }

    pub(super) fn on_clear_requested(&mut self, reply: ReplyTo) {
        let count = self.forget_beyond(0);
        self.reply(reply, Reply::Cleared { count });
    }

    /// Forgets those that ended first, until so many are left; tells how many these were.
    pub(super) fn forget_beyond(&mut self, retained: usize) -> u64 {
        let mut count = 0;
        while let Some(app) = self.apps.forget_beyond(retained) {
            self.on_forgotten(&app);
            count += 1;
        }
        count
    }

    /// An application is no longer listed; its key may be known for a while yet.
    pub(super) fn on_forgotten(&mut self, app: &AppRecord) {
        if let Some(key) = self.keys.outlive(app, self.now.unix_millis()) {
            self.effects.push(Effect::Persist(Record::Key(key)));
        }
        self.effects
            .push(Effect::Persist(Record::AppForgotten(app.id.clone())));
        self.forget_expired_keys();
    }

    pub(super) fn forget_expired_keys(&mut self) {
        while let Some(app) = self.keys.take_expired(self.now.unix_millis()) {
            self.effects
                .push(Effect::Persist(Record::KeyForgotten(app)));
        }
    }

    pub(super) fn on_wait_requested(&mut self, app: AppId, reply: ReplyTo, deadline: Instant) {
        match self.status(&app) {
            None => self.reply(reply, Reply::NoSuchApp(app)),
            Some(status) if status.phase.is_final() => {
                self.reply(reply, Reply::Status(Box::new(status)));
            }
            Some(_) => self.waits.insert(reply, app, deadline),
        }
    }
}
