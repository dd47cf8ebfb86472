//! What clients ask for.

use std::sync::Arc;
use std::time::Instant;

use tracing::info;

use super::apps::AppRecord;
use super::core::MasterCore;
use super::effect::{Effect, Record, Reply};
use super::event::ReplyTo;
use crate::app::{AppDescription, AppPhase, AppState, Ending};
use crate::ids::AppId;
use crate::now::Now;

impl MasterCore {
    pub(super) fn on_submitted(&mut self, description: AppDescription, reply: ReplyTo, now: Now) {
        if let Err(error) = description.validate() {
            self.reply(reply, Reply::SubmissionRefused(error));
            return;
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
            description: Arc::new(description),
            state: AppState::Submitted,
            attempt: 0,
            kill_requested: false,
            submitted_at: now.unix_millis(),
            restarts_in_a_row: 0,
            overran: false,
            history: Vec::new(),
        };
        record.note(now.unix_millis(), None);
        info!(app = %id, name = ?record.description.name, "app submitted");
        self.apps.insert(record);
        self.persist_app(&id);
        self.publish_change(&id, None);
        self.reply(reply, Reply::Submitted { app: id });
    }

    /// Whether it had been placed or killed meanwhile matters not: nobody was told of either.
    pub(super) fn on_submission_withdrawn(&mut self, id: &AppId) {
        let Some(app) = self.apps.get(id) else { return };
        if let (Some(on), false) = (app.state.placement(), app.phase().is_final()) {
            let (worker, attempt) = (on.worker.clone(), app.attempt);
            // The launch follows the acceptance, and was held back with it: the worker never heard of it.
            self.workers.release(&worker, &(id.clone(), attempt));
        }
        self.apps.remove(id);
        self.clocks.remove(id);
        self.unnamed.remove(id);
        for reply in self.waits.take_for(id) {
            self.reply(reply, Reply::NoSuchApp(id.clone()));
        }
        self.effects
            .push(Effect::Persist(Record::AppForgotten(id.clone())));
    }

    pub(super) fn on_kill_requested(&mut self, app: AppId, reply: ReplyTo, now: Now) {
        let Some(record) = self.apps.get(&app) else {
            let message = if self.set_aside.contains(&app) {
                format!("the record of {app} is damaged and was set aside; see the master's log")
            } else {
                format!("there is no application {app}")
            };
            self.reply(
                reply,
                Reply::Kill {
                    app,
                    success: false,
                    message,
                },
            );
            return;
        };
        let (phase, attempt, already) = (record.phase(), record.attempt, record.kill_requested);
        let worker = record.state.placement().map(|on| on.worker.clone());
        let (success, message) = if phase.is_final() {
            (false, format!("{app} has already ended: {phase}"))
        } else if let Some(worker) = worker {
            if !already {
                self.apps.update(&app, |app| app.kill_requested = true);
                self.persist_app(&app);
            }
            if phase == AppPhase::Unknown {
                (
                    true,
                    format!("{app} will be killed as soon as {worker} is back"),
                )
            } else {
                self.send_kill(&worker, &app, attempt);
                (true, format!("{app} is being killed on {worker}"))
            }
        } else {
            self.end(&app, Ending::Killed, None, now);
            (true, format!("{app} was killed before it ran"))
        };
        self.reply(
            reply,
            Reply::Kill {
                app,
                success,
                message,
            },
        );
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
