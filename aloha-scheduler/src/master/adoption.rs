//! What a master has forgotten and workers still hold, it takes on: what runs, runs on, under its id.
//!
//! A master without a store has forgotten everything when it is started anew. One with a store has forgotten only
//! applications whose record is damaged: what else it does not know is over, and stopped.

use std::collections::BTreeSet;

use tracing::{info, warn};

use super::apps::AppRecord;
use super::core::MasterCore;
use super::effect::{Effect, Record};
use crate::app::{AppState, Placement};
use crate::attempt::{AttemptState, HeldAttempt};
use crate::ids::{AppId, WorkerId};
use crate::worker::WorkerRegistration;

/// The epochs under which this master has spoken. What was launched in one of them and is not known any more is
/// forgotten, not new.
#[derive(Debug)]
pub(super) struct OwnEpochs(BTreeSet<u64>);

impl OwnEpochs {
    pub(super) fn new(epoch: u64) -> Self {
        Self(BTreeSet::from([epoch]))
    }
}

impl MasterCore {
    /// Without a store the epoch is a time on the wall. A clock that stepped back must lock no worker out, which has
    /// seen a higher one.
    pub(super) fn outdo_epoch_of(&mut self, registration: &WorkerRegistration) {
        let (theirs, ours) = (registration.epoch, self.settings.epoch);
        let stranger = self.workers.get(&registration.id).is_none();
        if !self.settings.durable && (theirs > ours || theirs == ours && stranger) {
            let epoch = theirs.saturating_add(1);
            warn!(worker = %registration.id, theirs, ours, epoch, "a worker has seen a later epoch; raised ours");
            self.settings.epoch = epoch;
            self.own_epochs.0.insert(epoch);
        }
    }

    /// Whether an attempt is of an earlier leadership of which nothing is stored, or nothing that can be read, and not
    /// known to be over or outdated.
    fn may_adopt(&self, held: &HeldAttempt) -> bool {
        let earlier = held.epoch < self.settings.epoch && !self.own_epochs.0.contains(&held.epoch);
        let of_damaged = match self.apps.get(&held.app) {
            None => &self.set_aside,
            Some(_) => &self.taken_on,
        };
        let forgotten = !self.settings.durable || of_damaged.contains(&held.app);
        let newest = self.apps.get(&held.app).is_none_or(|app| {
            let same = held.description.as_ref() == Some(&app.description);
            same && !app.phase().is_final() && held.attempt > app.attempt
        });
        forgotten && earlier && newest && held.state != AttemptState::Ended
    }

    /// Makes an attempt that a worker holds the current one of its application, if it is to be that; says whether it is.
    ///
    /// Of several attempts of one application the highest is the one that an earlier master wanted.
    pub(super) fn adopt(&mut self, worker: &WorkerId, held: &HeldAttempt) -> bool {
        let description = held.description.as_ref().filter(|_| self.may_adopt(held));
        let Some(description) = description.filter(|it| it.validate().is_ok()) else {
            return false;
        };
        let Some(on) = self.workers.get(worker).map(|found| Placement {
            worker: worker.clone(),
            address: found.record.address().into(),
        }) else {
            return false;
        };
        let (id, attempt) = (&held.app, held.attempt);
        info!(app = %id, attempt, %worker, "took an application on that was forgotten");
        let reason = format!("found on {worker}");
        if let Some(app) = self.apps.get(id) {
            let outdated = app.state.placement().cloned().map(|on| (on, app.attempt));
            if let Some((on, attempt)) = outdated {
                let state = AppState::Relaunching {
                    reason: reason.clone(),
                    not_before: None,
                };
                self.change(id, state);
                self.send_kill(&on.worker, id, attempt);
            }
            self.apps.update(id, |app| {
                app.attempt = attempt;
                app.overran = false;
                app.evicted = false;
            });
        } else {
            let number = self.number_for(id);
            if self.set_aside.remove(id) {
                self.taken_on.insert(id.clone());
            }
            let mut record = AppRecord {
                id: id.clone(),
                number,
                key: None,
                description: description.clone(),
                state: AppState::Submitted,
                attempt,
                kill_requested: false,
                submitted_at: self.now.unix_millis(),
                restarts_in_a_row: 0,
                overran: false,
                evicted: false,
                history: Vec::new(),
            };
            record.note(self.now.unix_millis(), Some(reason));
            self.apps.insert(record);
            self.publish_change(id, None);
        }
        self.change(id, AppState::Launching { on });
        true
    }

    /// The number that an id was minted with, and so its place in the queue; another if that is taken.
    fn number_for(&mut self, id: &AppId) -> u64 {
        if let Some(number) = id.number() {
            self.numbers.leave_out(number);
            if self.apps.with_numbers(number..=number).next().is_none() {
                return number;
            }
        }
        let (number, reserved) = self.numbers.take();
        if let Some(reserved) = reserved {
            self.effects
                .push(Effect::Persist(Record::NextNumber(reserved)));
        }
        number
    }
}
