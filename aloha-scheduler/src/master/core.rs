use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error};

use super::adoption::OwnEpochs;
use super::apps::Apps;
use super::drain::DrainTimeouts;
use super::effect::{Effect, Record, Reply, WorkerCommand};
use super::event::{Event, ReplyTo};
use super::keys::Keys;
use super::numbers::Numbers;
use super::placement::Placer;
use super::recovery::Recovery;
use super::resource_index::Preference;
use super::restarts::RunClocks;
use super::tag_limits::TagLimits;
use super::waits::Waits;
use super::workers::{WorkerState, Workers};
use crate::app::{AppPhase, AppState, Ending};
use crate::events::AlohaEvent;
use crate::ids::{AppId, WorkerId};
use crate::now::Now;

/// More room than this is not kept for the effects of the next event.
const EFFECTS_ROOM_MAX: usize = 16;

/// What a master is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterSettings {
    /// How long a worker may be silent before it is dead (`aloha.worker.timeout`).
    pub worker_timeout: Duration,
    /// How many ended applications stay listed (`aloha.deploy.retainedApplications`).
    pub retained_apps: usize,
    /// For how many timeouts a dead worker stays listed (`aloha.dead.worker.persistence`).
    pub dead_worker_persistence: u32,
    /// The epoch of this leadership, higher than that of every one before.
    pub epoch: u64,
    /// Whether what is to be stored is. A master without a store takes applications on that it has forgotten and a
    /// worker still holds; one with a store has them stopped.
    pub durable: bool,
    /// Whether applications spread over the workers (`aloha.deploy.spreadOut`) or fill one after the other.
    pub spread_out: bool,
    /// How many applications of a tag may be placed at once, of `*` all together (`aloha.deploy.tagLimits`).
    pub tag_limits: BTreeMap<String, u32>,
    /// How long an idempotency key is known after it was first used (`aloha.master.idempotency.ttl`).
    pub key_ttl: Duration,
    /// How many keys of applications that are no longer listed are known (`aloha.master.idempotency.keysMax`).
    pub keys_max: usize,
}

impl MasterSettings {
    /// The usual settings under this epoch, without a store.
    pub fn new(epoch: u64) -> Self {
        Self {
            worker_timeout: Duration::from_secs(60),
            retained_apps: 200,
            dead_worker_persistence: 15,
            epoch,
            durable: false,
            spread_out: true,
            tag_limits: BTreeMap::new(),
            key_ttl: Duration::from_secs(86_400),
            keys_max: 100_000,
        }
    }
}

/// The mind of a master: events and the time in, effects out.
#[derive(Debug)]
pub struct MasterCore {
    pub(super) settings: MasterSettings,
    pub(super) apps: Apps,
    pub(super) workers: Workers,
    pub(super) waits: Waits,
    pub(super) clocks: RunClocks,
    pub(super) own_epochs: OwnEpochs,
    pub(super) numbers: Numbers,
    pub(super) keys: Keys,
    pub(super) recovery: Recovery,
    /// Applications whose stored record is damaged, until a worker says what they are.
    pub(super) set_aside: BTreeSet<AppId>,
    /// Those of them of which one did.
    pub(super) taken_on: BTreeSet<AppId>,
    /// Placed applications whose worker did not name them when it registered, and was told to end them.
    pub(super) unnamed: BTreeSet<AppId>,
    pub(super) drain_timeouts: DrainTimeouts,
    pub(super) placer: Placer,
    pub(super) effects: Vec<Effect>,
    /// When the event happened that is being handled.
    pub(super) now: Now,
}

impl MasterCore {
    /// A master that knows of nothing yet.
    pub fn new(settings: MasterSettings, now: Now) -> Self {
        let listed_dead = settings
            .worker_timeout
            .saturating_mul(settings.dead_worker_persistence);
        let apps = Apps::new(TagLimits::new(&settings.tag_limits));
        let placer = Placer::new(if settings.spread_out {
            Preference::Roomiest
        } else {
            Preference::Tightest
        });
        Self {
            workers: Workers::new(settings.worker_timeout, listed_dead),
            numbers: Numbers::new(settings.durable),
            keys: Keys::new(settings.key_ttl, settings.keys_max),
            own_epochs: OwnEpochs::new(settings.epoch),
            clocks: RunClocks::default(),
            settings,
            apps,
            waits: Waits::default(),
            recovery: Recovery::default(),
            set_aside: BTreeSet::new(),
            taken_on: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            drain_timeouts: DrainTimeouts::new(),
            placer,
            effects: Vec::new(),
            now,
        }
    }

    /// Applies one event and returns what must follow, in order.
    #[must_use = "effects do nothing until the shell performs them"]
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        self.now = now;
        match event {
            Event::WorkerRegistered {
                registration,
                reply,
            } => self.on_worker_registered(registration, reply, now),
            Event::Heartbeat { worker, reply } => self.on_heartbeat(worker, reply, now),
            Event::WorkerDisconnected { worker } => self.on_worker_disconnected(&worker),
            Event::WorkerLeaving { worker } => self.on_worker_leaving(&worker, now),
            Event::DrainRequested {
                worker,
                request,
                reply,
            } => self.on_drain_requested(&worker, request, reply, now),
            Event::Submitted {
                description,
                key,
                reply,
            } => self.on_submitted(description, key, reply, now),
            Event::KillRequested { app, reply } => self.on_kill_requested(app, reply, now),
            Event::KillAllRequested { reply } => self.on_kill_all_requested(reply, now),
            Event::ForgetRequested { app, reply } => self.on_forget_requested(&app, reply),
            Event::ClearRequested { reply } => self.on_clear_requested(reply),
            Event::WaitRequested {
                app,
                reply,
                deadline,
            } => self.on_wait_requested(app, reply, deadline),
            Event::WaitAbandoned { reply } => {
                self.waits.remove(reply);
            }
            Event::AttemptStarted {
                worker,
                app,
                attempt,
                reply,
            } => {
                self.on_attempt_started(worker, app, attempt, reply, now);
            }
            Event::AttemptEnded {
                worker,
                app,
                attempt,
                outcome,
                reply,
            } => {
                self.on_attempt_ended(worker, app, attempt, outcome, reply, now);
            }
            Event::SubmissionWithdrawn { app } => self.on_submission_withdrawn(&app),
            Event::StoodStill { gap } => self.workers.excuse(gap, now.instant),
            Event::Tick => self.on_tick(now),
        }
        self.place();
        // What one event has followed is a measure of the room for the next.
        let room = Vec::with_capacity(self.effects.len().min(EFFECTS_ROOM_MAX));
        std::mem::replace(&mut self.effects, room)
    }

    /// When the shell should send the next [`Event::Tick`], if ever. Changes with every event.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.workers.next_deadline(),
            self.waits.next_deadline(),
            self.clocks.next_deadline(),
            self.drain_timeouts.values().min().copied(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The epoch of this leadership.
    pub fn epoch(&self) -> u64 {
        self.settings.epoch
    }

    fn on_tick(&mut self, now: Now) {
        while let Some((reply, app)) = self.waits.take_due(now.instant) {
            let answer = self.status(&app).map_or(Reply::NoSuchApp(app), |status| {
                Reply::Status(Box::new(status))
            });
            self.reply(reply, answer);
        }
        self.on_run_clocks(now);
        self.on_drain_timeouts(now);
        while let Some(worker) = self.workers.due(now.instant) {
            self.on_worker_due(&worker, now);
        }
    }

    /// Moves an application on, stores and publishes that. An illegal move is logged and refused.
    ///
    /// What its attempt occupied is the caller's to give back, before.
    pub(super) fn change(&mut self, id: &AppId, next: AppState) {
        self.change_because(id, next, None);
    }

    /// As [`change`](Self::change), with a reason that the state itself does not tell.
    pub(super) fn change_because(&mut self, id: &AppId, next: AppState, reason: Option<String>) {
        let (to, at) = (next.phase(), self.now.unix_millis());
        let Some(from) = self.apps.change(id, next, at, reason) else {
            error!(app = %id, %to, "refused an illegal change of state");
            return;
        };
        debug!(app = %id, %from, %to, "app changed state");
        self.clocks.keep_for(id, to);
        if !to.is_placed() {
            self.unnamed.remove(id);
        }
        if let Some(app) = self.apps.get(id)
            && to == AppPhase::Running
        {
            self.clocks.begin_run(app, self.now.instant);
        }
        // UNKNOWN is what a new leader assumes of every placed application anyway.
        if to != AppPhase::Unknown {
            self.persist_app(id);
        }
        self.publish_change(id, Some(from));
        if to.is_final() {
            self.settle(id);
        }
    }

    /// Ends an application that occupies nothing any more.
    pub(super) fn end(&mut self, id: &AppId, how: Ending, message: Option<String>, now: Now) {
        self.end_because(id, how, message, None, now);
    }

    /// As [`end`](Self::end), with a reason for the history where the message says none.
    pub(super) fn end_because(
        &mut self,
        id: &AppId,
        how: Ending,
        message: Option<String>,
        reason: impl Into<Option<String>>,
        now: Now,
    ) {
        let Some(app) = self.apps.get(id) else { return };
        let (on, since) = (app.state.placement().cloned(), app.state.since());
        let next = AppState::Ended {
            how,
            on,
            since,
            at: now.unix_millis(),
            message,
        };
        self.change_because(id, next, reason.into());
    }

    /// Answers those who waited for this end, and forgets the oldest beyond the limit.
    fn settle(&mut self, id: &AppId) {
        for reply in self.waits.take_for(id) {
            if let Some(status) = self.status(id) {
                self.reply(reply, Reply::Status(Box::new(status)));
            }
        }
        self.forget_beyond(self.settings.retained_apps);
    }

    pub(super) fn reply(&mut self, to: ReplyTo, reply: Reply) {
        self.effects.push(Effect::Reply(to, reply));
    }

    pub(super) fn send_kill(&mut self, worker: &WorkerId, app: &AppId, attempt: u32) {
        let command = WorkerCommand::KillApp {
            epoch: self.settings.epoch,
            app: app.clone(),
            attempt,
        };
        self.effects.push(Effect::Send(worker.clone(), command));
    }

    /// Tells a worker to start the current attempt; it ignores what it already has.
    pub(super) fn send_launch(&mut self, worker: &WorkerId, app: &AppId) {
        let Some(record) = self.apps.get(app) else {
            return;
        };
        let command = WorkerCommand::LaunchApp {
            epoch: self.settings.epoch,
            app: app.clone(),
            attempt: record.attempt,
            description: Arc::clone(&record.description),
        };
        self.effects.push(Effect::Send(worker.clone(), command));
    }

    pub(super) fn persist_app(&mut self, id: &AppId) {
        if let Some(record) = self.apps.record(id) {
            self.effects.push(Effect::Persist(Record::App(record)));
        }
    }

    /// Tells the listeners that a worker is now in another state than it was.
    pub(super) fn publish_worker(
        &mut self,
        id: &WorkerId,
        from: Option<WorkerState>,
        reason: impl Into<String>,
    ) {
        if let Some(to) = self.workers.state(id).filter(|to| Some(*to) != from) {
            self.effects
                .push(Effect::Publish(AlohaEvent::WorkerStateChanged {
                    id: id.clone(),
                    from,
                    to,
                    reason: reason.into(),
                }));
        }
    }

    pub(super) fn publish_change(&mut self, id: &AppId, from: Option<AppPhase>) {
        if let Some(app) = self.apps.get(id) {
            let (to, status) = (app.phase(), Box::new(self.status_of(app)));
            self.effects
                .push(Effect::Publish(AlohaEvent::AppStateChanged {
                    id: id.clone(),
                    from,
                    to,
                    status,
                }));
        }
    }

    /// Panics if the tables contradict one another. For tests, after each event.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold.
    #[cfg(any(test, feature = "testing"))]
    pub fn check_invariants(&self) {
        self.apps.check_invariants();
        self.workers.check_invariants();
        self.waits.check_invariants();
        self.keys.check_invariants(&self.apps);
        self.clocks.check_invariants(self.apps.iter());
        for app in self.apps.iter().filter(|app| app.phase().is_placed()) {
            let on = app.state.placement().expect("a placed app has a placement");
            let worker = self
                .workers
                .get(&on.worker)
                .expect("it is placed on a listed worker");
            let held = worker.has(&(app.id.clone(), app.attempt));
            assert!(held, "{} occupies nothing on {}", app.id, on.worker);
            let away = worker.state == WorkerState::Disconnected;
            assert!(
                !away || app.phase() == AppPhase::Unknown,
                "{} is {} on a lost worker",
                app.id,
                app.phase()
            );
        }
        for app in self.apps.iter().filter(|app| !app.phase().is_placed()) {
            assert!(
                app.phase().is_final() || !app.kill_requested,
                "{} waits and is to be killed",
                app.id
            );
        }
        let is_placed = |id| self.apps.get(id).is_some_and(|app| app.phase().is_placed());
        assert!(
            self.unnamed.iter().all(is_placed),
            "nobody looks for what is not placed"
        );
        for id in self.drain_timeouts.keys() {
            let drain = self.workers.get(id).and_then(|w| w.record.drain.as_ref());
            assert!(
                drain.is_some(),
                "the drain of {id} ends, and it is not drained"
            );
        }
        let (queue, limits) = (self.apps.queue(), self.apps.limits());
        self.placer.check_invariants(queue, limits, &self.workers);
        assert!(self.effects.is_empty());
    }
}
