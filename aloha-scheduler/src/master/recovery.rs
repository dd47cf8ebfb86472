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

use super::apps::AppRecord;
use super::core::{MasterCore, MasterSettings};
use super::effect::{Effect, Record};
use super::keys::KeyRecord;
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

impl MasterCore {
    /// A master that goes on from what was stored. Its effects come before those of any event.
    pub fn recover(settings: MasterSettings, stored: Stored, now: Now) -> (Self, Vec<Effect>) {
        let mut core = Self::new(settings, now);
        let Stored {
            mut apps,
            workers,
            next_number,
            set_aside,
            keys,
        } = stored;
        let mut seen = BTreeSet::new();
        apps.retain(|app| seen.insert(app.id.clone()));
        apps.sort_unstable_by(|a, b| {
            (a.number, a.submitted_at, &a.id).cmp(&(b.number, b.submitted_at, &b.id))
        });
        core.restore_numbers(&mut apps, next_number, &set_aside);
        // A record that is there again was written after the damaged one.
        (core.taken_on, core.set_aside) = set_aside.into_iter().partition(|id| seen.contains(id));
        core.restore_workers(workers, &apps, now);
        core.restore_apps(apps, now);
        core.restore_keys(keys);
        info!(
            epoch = core.settings.epoch,
            apps = core.apps.iter().count(),
            workers = core.recovery.awaited.len(),
            set_aside = core.set_aside.len(),
            "recovered"
        );
        core.end_recovery_if_done();
        core.place();
        let effects = std::mem::take(&mut core.effects);
        (core, effects)
    }

    /// Whether some stored worker has neither come back nor been given up.
    pub fn is_recovering(&self) -> bool {
        !self.recovery.awaited.is_empty()
    }

    /// Each number is one application's, and the next one is higher than all that may have been given.
    fn restore_numbers(
        &mut self,
        apps: &mut [AppRecord],
        stored: u64,
        set_aside: &BTreeSet<AppId>,
    ) {
        let mut next = 0;
        for app in apps.iter_mut() {
            if app.number < next {
                warn!(app = %app.id, number = app.number, "moved up, its number is another's");
                app.number = next;
                let record = Arc::new(app.clone());
                self.effects.push(Effect::Persist(Record::App(record)));
            }
            next = app.number.saturating_add(1);
        }
        let named = set_aside.iter().filter_map(AppId::number).max();
        let known = named.map_or(next, |named| next.max(named.saturating_add(1)));
        self.numbers.restore(known, stored);
    }

    fn restore_workers(&mut self, workers: Vec<WorkerRecord>, apps: &[AppRecord], now: Now) {
        let mut placed: BTreeMap<WorkerId, BTreeMap<AttemptKey, Resources>> = BTreeMap::new();
        let mut known: BTreeMap<WorkerId, WorkerRecord> = BTreeMap::new();
        for app in apps.iter().filter(|app| app.phase().is_placed()) {
            let Some(on) = app.state.placement() else {
                continue;
            };
            let key = (app.id.clone(), app.attempt);
            let attempts = placed.entry(on.worker.clone()).or_default();
            attempts.insert(key, app.description.needs());
            known
                .entry(on.worker.clone())
                .or_insert_with(|| WorkerRecord::of_placement(on));
        }
        known.extend(
            workers
                .into_iter()
                .map(|record| (record.id.clone(), record)),
        );
        for (id, record) in known {
            if let Some(drain) = &record.drain {
                self.set_drain_timeout(&id, drain, now);
            }
            let attempts = placed.remove(&id).unwrap_or_default();
            self.workers.restore(record, attempts, now.instant);
            self.publish_worker(&id, None, "restored, and not heard from yet");
            self.recovery.awaited.insert(id);
        }
    }

    fn restore_apps(&mut self, apps: Vec<AppRecord>, now: Now) {
        let (mut ended, mut others): (Vec<_>, Vec<_>) =
            apps.into_iter().partition(|app| app.phase().is_final());
        ended.sort_by_key(|app| match &app.state {
            AppState::Ended { at, .. } => *at,
            _ => 0,
        });
        let beyond = ended.len().saturating_sub(self.settings.retained_apps);
        for forgotten in ended.drain(..beyond) {
            self.keys.insert(&forgotten);
            self.on_forgotten(&forgotten);
        }
        others.append(&mut ended);
        for app in others {
            self.restore_app(app, now);
        }
    }

    fn restore_app(&mut self, app: AppRecord, now: Now) {
        let (id, state, unwanted) = (app.id.clone(), app.state.clone(), app.kill_requested);
        self.keys.insert(&app);
        self.apps.insert(app);
        match state {
            AppState::Submitted | AppState::Relaunching { .. } if unwanted => {
                self.end(&id, Ending::Killed, None, now);
            }
            AppState::Relaunching {
                not_before: Some(not_before),
                ..
            } => self.restore_pause(&id, not_before, now),
            AppState::Launching { on } => self.change(&id, AppState::Unknown { on, since: None }),
            AppState::Running { on, since } => {
                let since = Some(since);
                self.restore_run(&id, since, now);
                self.change(&id, AppState::Unknown { on, since });
            }
            AppState::Unknown { since, .. } => self.restore_run(&id, since, now),
            AppState::Submitted | AppState::Relaunching { .. } | AppState::Ended { .. } => {}
        }
    }

    fn restore_keys(&mut self, keys: Vec<KeyRecord>) {
        for record in keys {
            let app = record.app.clone();
            if !self.keys.restore(record) {
                self.effects
                    .push(Effect::Persist(Record::KeyForgotten(app)));
            }
        }
        self.forget_expired_keys();
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
