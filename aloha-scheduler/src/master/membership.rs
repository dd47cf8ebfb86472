//! How workers come, stay and go.

use std::collections::BTreeMap;

use tracing::{info, warn};

use super::apps::AppRecord;
use super::core::MasterCore;
use super::effect::{Effect, Record, Reply, WorkerCommand};
use super::event::ReplyTo;
use super::workers::{AttemptKey, Worker, WorkerRecord, WorkerState};
use crate::app::{AppPhase, AppState, CORES_MAX, MEMORY_MIB_MAX};
use crate::attempt::{AttemptState, HeldAttempt};
use crate::ids::{AppId, WorkerId};
use crate::now::Now;
use crate::resources::Resources;
use crate::worker::WorkerRegistration;

/// Attempts, and what they occupy.
type Counted = Vec<(AttemptKey, Resources)>;

impl MasterCore {
    /// A worker that is known registers again whenever it lost its master: its attempts are compared with ours.
    pub(super) fn on_worker_registered(
        &mut self,
        registration: WorkerRegistration,
        reply: ReplyTo,
        now: Now,
    ) {
        if let Some(reason) = objection(&registration) {
            warn!(worker = %registration.id, reason, "refused a registration");
            self.reply(reply, Reply::Refused { reason });
            return;
        }
        self.outdo_epoch_of(&registration);
        let WorkerRegistration {
            id,
            host,
            port,
            offers,
            attempts,
            enforces,
            attributes,
            epoch: _,
        } = registration;
        // One that was given up comes back as if it were new.
        let before = self.workers.get(&id);
        let drain = before.and_then(|before| before.record.drain.clone());
        let record = WorkerRecord {
            id: id.clone(),
            host,
            port,
            offers,
            enforces,
            attributes,
            drain,
        };
        let from = before.map(|w| w.state);
        let stored = before.is_some_and(|w| w.record == record && w.state != WorkerState::Dead);
        let counted: Counted = before
            .into_iter()
            .flat_map(|w| w.attempts().map(|key| (key.clone(), w.occupied_by(key))))
            .collect();
        info!(worker = %id, address = record.address(), %offers, attempts = attempts.len(), "worker registered");

        let held: BTreeMap<AttemptKey, HeldAttempt> = attempts
            .into_iter()
            .map(|held| ((held.app.clone(), held.attempt), held))
            .collect();
        let (unstarted, missing) = self.missing(&id, counted, &held);
        let mut occupied: BTreeMap<_, _> = missing.iter().chain(&unstarted).cloned().collect();
        for (key, stray) in &held {
            let needs = match self.is_current(&id, key) {
                Some(app) => app,
                None if stray.state != AttemptState::Ended => stray.occupies,
                None => continue,
            };
            occupied.insert(key.clone(), needs);
        }
        if !stored {
            self.effects
                .push(Effect::Persist(Record::Worker(record.clone())));
        }
        self.workers.register(record, occupied, now.instant);
        self.no_longer_await(&id, true);
        self.publish_worker(
            &id,
            from,
            match from {
                None => "registered",
                Some(WorkerState::Dead) => "registered after it had been given up",
                Some(_) => "registered again",
            },
        );
        let heartbeat_interval = self.settings.worker_timeout / 4;
        self.reply(
            reply,
            Reply::Registered {
                epoch: self.settings.epoch,
                heartbeat_interval,
            },
        );

        for held in held.into_values() {
            self.reconcile(&id, held, now);
        }
        for ((app, _), _) in unstarted {
            self.on_app_back(&app, AttemptState::Starting, now);
            self.send_launch(&id, &app);
        }
        for (key, _) in missing {
            let (app, attempt) = &key;
            if self.is_current(&id, &key).is_some() {
                self.unnamed.insert(app.clone());
            }
            self.send_kill(&id, app, *attempt);
        }
        self.go_on_draining(&id, now);
    }

    pub(super) fn on_heartbeat(&mut self, worker: WorkerId, reply: ReplyTo, now: Now) {
        match self.workers.state(&worker) {
            Some(WorkerState::Alive | WorkerState::Leaving) => {
                self.workers.heard_from(&worker, now.instant);
                self.reply(reply, Reply::HeartbeatNoted);
                self.remind(&worker);
            }
            Some(WorkerState::Disconnected | WorkerState::Dead) | None => {
                self.effects.push(Effect::Send(
                    worker,
                    WorkerCommand::Reregister {
                        epoch: self.settings.epoch,
                    },
                ));
            }
        }
    }

    /// Says again what a worker has not said it has done: a command can be lost on its way, as to a worker that was just
    /// being connected to, and nobody is told of that. A worker ignores what it has heard before.
    fn remind(&mut self, worker: &WorkerId) {
        let attempts = self.workers.get(worker).into_iter();
        let attempts: Vec<AttemptKey> = attempts.flat_map(|it| it.attempts()).cloned().collect();
        for key in attempts {
            let is_current = self.is_current(worker, &key).is_some();
            let (app, attempt) = key;
            match self.apps.get(&app).filter(|_| is_current) {
                None if self.set_aside.contains(&app) => {} // nobody can say whether it is wanted
                None => self.send_kill(worker, &app, attempt),
                Some(it) if it.is_to_end() => self.send_kill(worker, &app, attempt),
                Some(it) if it.state.since().is_none() => self.send_launch(worker, &app),
                Some(_) => {}
            }
        }
    }

    pub(super) fn on_worker_disconnected(&mut self, id: &WorkerId) {
        match self.workers.state(id) {
            // What one that leaves still has is being ended, which takes its time, and may not run twice meanwhile.
            Some(WorkerState::Alive | WorkerState::Leaving) => {
                self.lose_sight_of(id, "its connection ended");
            }
            Some(WorkerState::Disconnected | WorkerState::Dead) | None => {}
        }
    }

    pub(super) fn on_worker_leaving(&mut self, id: &WorkerId, now: Now) {
        match self.workers.state(id) {
            Some(WorkerState::Alive) => {
                info!(worker = %id, "worker is leaving");
                let from = self.workers.set_state(id, WorkerState::Leaving);
                self.workers.note_leaves(id);
                self.publish_worker(id, from, "takes no more applications");
                self.let_go_if_done(id, now);
            }
            // So does one that is drained, when it was told to or is stopped.
            Some(WorkerState::Leaving) => {
                self.workers.note_leaves(id);
                self.let_go_if_done(id, now);
            }
            Some(WorkerState::Disconnected | WorkerState::Dead) | None => {}
        }
    }

    /// A deadline of the worker table has come.
    pub(super) fn on_worker_due(&mut self, id: &WorkerId, now: Now) {
        match self.workers.state(id) {
            Some(WorkerState::Dead) => self.workers.forget(id),
            Some(WorkerState::Disconnected) => self.lose_worker(id, "lost", now),
            Some(WorkerState::Alive | WorkerState::Leaving) => {
                let silence = self.settings.worker_timeout / 2;
                self.lose_sight_of(id, &format!("silent for {silence:?}"));
            }
            None => {}
        }
    }

    /// A worker is away. What it has may well run on, and is nobody else's yet.
    fn lose_sight_of(&mut self, id: &WorkerId, why: &str) {
        warn!(worker = %id, why, "worker disconnected");
        let from = self.workers.set_state(id, WorkerState::Disconnected);
        self.publish_worker(id, from, why);
        for app in self.apps_on(id) {
            let Some(state) = self.apps.get(&app).map(|app| app.state.clone()) else {
                continue;
            };
            let since = state.since();
            if let AppState::Launching { on } | AppState::Running { on, .. } = state {
                self.change(&app, AppState::Unknown { on, since });
            }
        }
    }

    /// Lets a leaving worker go when nothing is left on it; one that is drained and has not said that it goes is told to.
    pub(super) fn let_go_if_done(&mut self, id: &WorkerId, now: Now) {
        let done = |w: &&Worker| w.state == WorkerState::Leaving && w.is_idle();
        match self
            .workers
            .get(id)
            .filter(done)
            .map(|w| w.leaves_by_itself)
        {
            Some(true) => self.lose_worker(id, "left", now),
            Some(false) => self.tell_to_leave(id),
            None => {}
        }
    }

    /// Whether this is the current attempt of an application, and this the worker that has it or is to have it.
    pub(super) fn is_placed_on(&self, worker: &WorkerId, app: &AppId, attempt: u32) -> bool {
        self.is_current(worker, &(app.clone(), attempt)).is_some()
    }

    /// What an application needs, if this is its current attempt and this is the worker that has it.
    pub(super) fn is_current(
        &self,
        worker: &WorkerId,
        (app, attempt): &AttemptKey,
    ) -> Option<Resources> {
        let app = self
            .apps
            .get(app)
            .filter(|app| app.attempt == *attempt && app.phase().is_placed())?;
        app.state
            .placement()
            .filter(|on| on.worker == *worker)
            .map(|_| app.description.needs())
    }

    fn lose_worker(&mut self, id: &WorkerId, how: &str, now: Now) {
        warn!(worker = %id, how, "worker gone");
        let from = self.workers.state(id);
        let attempts = self.workers.bury(id, now.instant);
        self.drain_timeouts.remove(id);
        self.effects
            .push(Effect::Persist(Record::WorkerForgotten(id.clone())));
        self.publish_worker(id, from, how);
        self.no_longer_await(id, false);
        for key in attempts {
            if self.is_current(id, &key).is_some() {
                self.lose_attempt(&key.0, format!("worker {id} {how}"), now);
            }
        }
    }

    pub(super) fn apps_on(&self, worker: &WorkerId) -> Vec<AppId> {
        let attempts = self
            .workers
            .get(worker)
            .into_iter()
            .flat_map(|w| w.attempts());
        attempts
            .filter(|key| self.is_current(worker, key).is_some())
            .map(|(app, _)| app.clone())
            .collect()
    }

    /// Of what is counted on this worker and it does not name: what it never got and is told again, and what is gone.
    ///
    /// An attempt it never said it started may have been lost on the way to it, and telling it twice does no harm.
    /// Another may be gone, but the registration may also be an old one that was late: only a report that it has ended
    /// says so for certain, and whoever is told to end an attempt sends one.
    fn missing(
        &self,
        worker: &WorkerId,
        counted: Counted,
        held: &BTreeMap<AttemptKey, HeldAttempt>,
    ) -> (Counted, Counted) {
        let unnamed = counted
            .into_iter()
            .filter(|(key, _)| !held.contains_key(key));
        unnamed.partition(|(key, _)| {
            let app = self
                .apps
                .get(&key.0)
                .filter(|_| self.is_current(worker, key).is_some());
            app.is_some_and(|app| {
                app.state.since().is_none() && !app.kill_requested && !app.evicted
            })
        })
    }

    fn reconcile(&mut self, worker: &WorkerId, held: HeldAttempt, now: Now) {
        if held.state == AttemptState::Ended {
            self.outnumber(&held.app, held.attempt);
            return; // its report follows, and says how
        }
        let known = self.is_current(worker, &(held.app.clone(), held.attempt));
        let current = known.is_some() || self.adopt(worker, &held);
        if self.set_aside.contains(&held.app) {
            return; // nobody can say whether it is wanted
        }
        let HeldAttempt {
            app,
            attempt,
            state,
            ..
        } = held;
        if current {
            self.on_app_back(&app, state, now);
        } else {
            warn!(%app, attempt, %worker, "worker holds an attempt that is not wanted");
            self.outnumber(&app, attempt);
        }
        if !current || self.apps.get(&app).is_some_and(AppRecord::is_to_end) {
            self.send_kill(worker, &app, attempt);
        }
    }

    /// Makes the next attempt of a waiting application higher than this one, of which a worker knows.
    ///
    /// A request to end an attempt may overtake the launch of it, which then was never stored. The worker will start no
    /// attempt of that number. For the same reason the id of an application that is not known here is not given again.
    pub(super) fn outnumber(&mut self, id: &AppId, attempt: u32) {
        if let (None, Some(number)) = (self.apps.get(id), id.number()) {
            self.numbers.leave_out(number);
        }
        let waits = |app: &&AppRecord| !app.phase().is_placed() && !app.phase().is_final();
        let app = self.apps.get(id).filter(waits);
        if app.is_some_and(|app| app.attempt < attempt) {
            self.apps.update(id, |app| app.attempt = attempt);
            self.persist_app(id);
        }
    }

    /// The current attempt of an application is where we left it.
    pub(super) fn on_app_back(&mut self, id: &AppId, found: AttemptState, now: Now) {
        let Some(state) = self.apps.get(id).map(|app| app.state.clone()) else {
            return;
        };
        let (phase, since) = (state.phase(), state.since());
        let (AppState::Launching { on }
        | AppState::Running { on, .. }
        | AppState::Unknown { on, .. }) = state
        else {
            return;
        };
        let next = match (found, since) {
            (AttemptState::Ended, _) => return,
            (AttemptState::Starting, None) => AppState::Launching { on },
            (AttemptState::Running, None) => AppState::Running {
                on,
                since: now.unix_millis(),
            },
            (AttemptState::Starting | AttemptState::Running, Some(since)) => {
                AppState::Running { on, since }
            }
        };
        if next.phase() != phase
            && (phase == AppPhase::Unknown || next.phase() == AppPhase::Running)
        {
            self.change(id, next);
        }
    }
}

/// What is wrong with a registration, if anything.
fn objection(registration: &WorkerRegistration) -> Option<String> {
    let Resources { cores, memory_mib } = registration.offers;
    if cores == 0 || cores > CORES_MAX {
        return Some(format!(
            "a worker has between 1 and {CORES_MAX} cores, not {cores}"
        ));
    }
    if memory_mib > MEMORY_MIB_MAX {
        return Some(format!(
            "a worker has at most {MEMORY_MIB_MAX} MiB, not {memory_mib}"
        ));
    }
    let host = &registration.host;
    if host.is_empty()
        || host.len() > 255
        || host.chars().any(|c| c.is_control() || c.is_whitespace())
    {
        return Some("a worker's host is a name or an address".to_owned());
    }
    None
}
