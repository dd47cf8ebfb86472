//! A master's beginning: what the one before it stored becomes its own.
//!
//! There is no phase in which nothing can be done. A recovered master answers everything at once: what waited waits on
//! in its old order, what was placed is UNKNOWN until its worker is heard from, and a worker that was stored is
//! DISCONNECTED and has a full timeout to come back. "Recovering" only says that some of those workers are still
//! awaited.
//!
//! Whatever was stored is survived, however its parts contradict one another: damaged records are set aside one by one,
//! so that any of them may be missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::adoption::OwnEpochs;
use super::apps::AppRecord;
use super::core::{MasterCore, MasterSettings};
use super::effect::{Effect, Record};
use super::keys::KeyRecord;
use super::shadow::Shadow;
use super::workers::{AttemptKey, WorkerRecord};
use crate::app::{AppState, Ending};
use crate::ids::{AppId, WorkerId};
use crate::now::Now;
use crate::resources::Resources;

/// What an earlier leadership stored, as far as it could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The applications, in any order.
    pub apps: Vec<AppRecord>,
    /// The workers, in any order.
    pub workers: Vec<WorkerRecord>,
    /// Numbers of applications below this one may have been given; 0 where nothing says so.
    pub next_number: u64,
    /// Applications whose record is damaged, or was. Those that run on a worker are taken on again.
    pub set_aside: BTreeSet<AppId>,
    /// Idempotency keys of applications that are no longer listed, in any order.
    pub keys: Vec<KeyRecord>,
}

/// Which stored workers are still awaited, and what became of the others.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    awaited: BTreeSet<WorkerId>,
    back: usize,
    gone: usize,
}

impl Shadow {
    /// Begins to lead under this epoch, and goes on from what was stored. Its effects come before those of any event.
    ///
    /// What this costs goes by what is placed or pauses, by the workers, by who has ended and is still listed, and by what
    /// must be repaired; not by how many wait.
    #[must_use = "effects do nothing until the shell performs them"]
    pub fn take_over(mut self, epoch: u64, now: Now) -> (MasterCore, Vec<Effect>) {
        self.core.now = now;
        self.core.settings.epoch = epoch;
        self.core.own_epochs = OwnEpochs::new(epoch);
        let set_aside = self.take_set_aside();
        self.restore_numbers(&set_aside);
        let Self {
            mut core,
            claims,
            unsettled,
            workers,
            ..
        } = self;
        // A record that is there again was written after the damaged one.
        let is_there = |id: &AppId| core.apps.get(id).is_some();
        (core.taken_on, core.set_aside) = set_aside.into_iter().partition(is_there);
        let unsettled: Vec<_> = unsettled.into_iter().map(|(_, app)| app).collect();
        core.restore_workers(workers, &unsettled);
        core.apps.order_ended();
        let (listed, alone) = claims.into_contested();
        while let Some(forgotten) = core.apps.forget_beyond(core.settings.retained_apps) {
            core.keys.insert(&forgotten);
            core.on_forgotten(&forgotten);
        }
        core.restore_keys(listed, alone);
        for app in &unsettled {
            core.restore_app(app, now);
        }
        info!(
            epoch,
            apps = core.apps.len(),
            workers = core.recovery.awaited.len(),
            set_aside = core.set_aside.len(),
            "recovered"
        );
        core.end_recovery_if_done();
        core.place();
        let effects = std::mem::take(&mut core.effects);
        (core, effects)
    }

    /// Each number is one application's, and the next one is higher than all that may have been given.
    fn restore_numbers(&mut self, set_aside: &BTreeSet<AppId>) {
        while let Some((first, _)) = self.crowded.first_key_value() {
            self.spread_from(*first);
        }
        let last = self.core.apps.with_numbers(..).next_back();
        let next = last.map_or(0, |app| app.number.saturating_add(1));
        let named = set_aside.iter().filter_map(AppId::number).max();
        let known = named.map_or(next, |named| next.max(named.saturating_add(1)));
        self.core.numbers.restore(known, self.next_number);
    }

    /// Moves up whoever has the number of another, from this number on until one is free.
    fn spread_from(&mut self, first: u64) {
        let mut crowd = BTreeMap::new();
        for number in first..=u64::MAX {
            let same = self.core.apps.numbered(number).map(|app| app.id.clone());
            let listed = same.and_then(|id| self.unlist(&id));
            let listed = listed.map(Arc::unwrap_or_clone);
            let crowded = std::iter::from_fn(|| self.take_crowded(number));
            for app in listed.into_iter().chain(crowded) {
                crowd.insert((app.number, app.submitted_at, app.id.clone()), app);
            }
            let Some((_, mut app)) = crowd.pop_first() else {
                return;
            };
            if app.number != number {
                warn!(app = %app.id, number = app.number, "moved up, its number is another's");
                app.number = number;
                let record = Arc::new(app.clone());
                let moved = Effect::Persist(Record::App(record));
                self.core.effects.push(moved);
            }
            self.admit(app);
        }
    }
}

impl MasterCore {
    /// A master that goes on from what was stored. Its effects come before those of any event.
    pub fn recover(settings: MasterSettings, stored: Stored, now: Now) -> (Self, Vec<Effect>) {
        let epoch = settings.epoch;
        Shadow::of(settings, stored, now).take_over(epoch, now)
    }

    /// Whether some stored worker has neither come back nor been given up.
    pub fn is_recovering(&self) -> bool {
        !self.recovery.awaited.is_empty()
    }

    /// Workers that were stored, and those that applications are placed on.
    fn restore_workers(&mut self, mut known: BTreeMap<WorkerId, WorkerRecord>, placed: &[AppId]) {
        let mut attempts: BTreeMap<WorkerId, BTreeMap<AttemptKey, Resources>> = BTreeMap::new();
        for app in placed.iter().filter_map(|app| self.apps.get(app)) {
            let Some(on) = app.state.placement().filter(|_| app.phase().is_placed()) else {
                continue;
            };
            let key = (app.id.clone(), app.attempt);
            let attempts = attempts.entry(on.worker.clone()).or_default();
            attempts.insert(key, app.description.needs());
            known
                .entry(on.worker.clone())
                .or_insert_with(|| WorkerRecord::of_placement(on));
        }
        for (id, record) in known {
            if let Some(drain) = &record.drain {
                self.set_drain_timeout(&id, drain, self.now);
            }
            let attempts = attempts.remove(&id).unwrap_or_default();
            self.workers.restore(record, attempts, self.now.instant);
            self.publish_worker(&id, None, "restored, and not heard from yet");
            self.recovery.awaited.insert(id);
        }
    }

    /// Goes on with an application with which there is something to do.
    fn restore_app(&mut self, id: &AppId, now: Now) {
        let Some(app) = self.apps.get(id) else { return };
        let unwanted = app.kill_requested;
        match app.state.clone() {
            AppState::Submitted | AppState::Relaunching { .. } if unwanted => {
                self.end(id, Ending::Killed, None, now);
            }
            AppState::Relaunching {
                not_before: Some(not_before),
                ..
            } => self.restore_pause(id, not_before, now),
            AppState::Launching { on } => self.change(id, AppState::Unknown { on, since: None }),
            AppState::Running { on, since } => {
                let since = Some(since);
                self.restore_run(id, since, now);
                self.change(id, AppState::Unknown { on, since });
            }
            AppState::Unknown { since, .. } => self.restore_run(id, since, now),
            AppState::Submitted | AppState::Relaunching { .. } | AppState::Ended { .. } => {}
        }
    }

    /// Settles whose the keys are that several have: of those listed the one that came first, then one that is not.
    fn restore_keys(&mut self, listed: Vec<AppId>, mut alone: Vec<KeyRecord>) {
        let mut listed: Vec<_> = listed
            .iter()
            .filter_map(|app| self.apps.record(app))
            .collect();
        listed.sort_unstable_by_key(|app| match &app.state {
            AppState::Ended { at, .. } => (true, *at, app.number),
            _ => (false, 0, app.number),
        });
        for app in listed {
            self.keys.insert(&app);
        }
        alone.sort_unstable_by(|a, b| a.app.cmp(&b.app));
        for record in alone {
            let app = record.app.clone();
            if !self.keys.restore(record) {
                self.effects
                    .push(Effect::Persist(Record::KeyForgotten(app)));
            }
        }
        self.forget_expired_keys();
    }

    /// The stored workers that have neither come back nor been given up.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &WorkerRecord> {
        let awaited = self.recovery.awaited.iter();
        awaited.filter_map(|id| self.awaited_worker(id))
    }

    /// This one, if it is among them.
    pub(super) fn awaited_worker(&self, id: &WorkerId) -> Option<&WorkerRecord> {
        let is_awaited = self.recovery.awaited.contains(id);
        Some(&self.workers.get(id).filter(|_| is_awaited)?.record)
    }

    /// Stores once more what is stored anyway: that it can be says that no later leadership has begun.
    pub(super) fn proof(&self) -> Record {
        Record::NextNumber(self.numbers.reserved())
    }

    /// A clock on the wall that stepped makes a pause no longer than it was meant to be.
    fn restore_pause(&mut self, id: &AppId, not_before: u64, now: Now) {
        let left = Duration::from_millis(not_before.saturating_sub(now.unix_millis()));
        let mut pause = Duration::ZERO;
        self.apps.update(id, |app| {
            let nominal = app.description.restart.pause(app.restarts_in_a_row);
            pause = left.min(nominal);
            if let AppState::Relaunching { not_before, .. } = &mut app.state {
                let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                *not_before = Some(now.unix_millis().saturating_add(millis));
            }
        });
        if let Some(until) = now.instant.checked_add(pause) {
            self.clocks.begin_pause(id, until);
        }
    }

    /// An attempt ran on while there was no master. A start that lies in the future is one just now.
    fn restore_run(&mut self, id: &AppId, since: Option<u64>, now: Now) {
        let Some((app, since)) = self.apps.get(id).zip(since) else {
            return;
        };
        let ran_for = Duration::from_millis(now.unix_millis().saturating_sub(since));
        let since = now.instant.checked_sub(ran_for).unwrap_or(now.instant);
        self.clocks.begin_run(app, since);
    }

    /// A stored worker has registered or is given up: one less to wait for.
    pub(super) fn no_longer_await(&mut self, worker: &WorkerId, is_back: bool) {
        if !self.recovery.awaited.remove(worker) {
            return;
        }
        if is_back {
            self.recovery.back += 1;
        } else {
            self.recovery.gone += 1;
        }
        self.end_recovery_if_done();
    }

    fn end_recovery_if_done(&self) {
        let Recovery {
            awaited,
            back,
            gone,
        } = &self.recovery;
        if awaited.is_empty() {
            info!(
                workers_back = back,
                workers_gone = gone,
                "recovery is complete"
            );
        }
    }
}
