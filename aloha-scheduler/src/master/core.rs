use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, error, info};

use super::adoption::OwnEpochs;
use super::apps::{AppRecord, Apps};
use super::effect::{Effect, Record, Reply, WorkerCommand};
use super::event::{Event, ReplyTo};
use super::numbers::Numbers;
use super::placement::Placer;
use super::recovery::Recovery;
use super::resource_index::Preference;
use super::restarts::RunClocks;
use super::tag_limits::TagLimits;
use super::waits::Waits;
use super::workers::{WorkerState, WorkerStatus, Workers};
use crate::app::{AppDescription, AppPhase, AppState, AppStatus, Ending};
use crate::events::AlohaEvent;
use crate::ids::{AppId, WorkerId};
use crate::now::Now;

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
        }
    }
}

/// The mind of a master: events and the time in, effects out.
#[derive(Debug)]
pub struct MasterCore {
    pub(super) settings: MasterSettings,
    pub(super) apps: Apps,
    pub(super) workers: Workers,
    waits: Waits,
    pub(super) clocks: RunClocks,
    pub(super) own_epochs: OwnEpochs,
    pub(super) numbers: Numbers,
    pub(super) recovery: Recovery,
    /// Applications whose stored record is damaged: what workers hold of them is left alone.
    pub(super) set_aside: BTreeSet<AppId>,
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
            own_epochs: OwnEpochs::new(settings.epoch),
            clocks: RunClocks::default(),
            settings,
            apps,
            waits: Waits::default(),
            recovery: Recovery::default(),
            set_aside: BTreeSet::new(),
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
            Event::WorkerDisconnected { worker } => self.on_worker_disconnected(&worker, now),
            Event::WorkerLeaving { worker } => self.on_worker_leaving(&worker, now),
            Event::Submitted { description, reply } => self.on_submitted(description, reply, now),
            Event::KillRequested { app, reply } => self.on_kill_requested(app, reply, now),
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
            Event::Tick => self.on_tick(now),
        }
        self.place();
        std::mem::take(&mut self.effects)
    }

    /// When the shell should send the next [`Event::Tick`], if ever. Changes with every event.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.workers.next_deadline(),
            self.waits.next_deadline(),
            self.clocks.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The epoch of this leadership.
    pub fn epoch(&self) -> u64 {
        self.settings.epoch
    }

    /// One application as it stands now.
    pub fn status(&self, id: &AppId) -> Option<AppStatus> {
        self.apps.get(id).map(|app| AppStatus {
            history: app.history.clone(),
            ..self.status_of(app)
        })
    }

    /// Every listed application, in the order of submission.
    pub fn apps(&self) -> Vec<AppStatus> {
        let mut apps: Vec<_> = self.apps.iter().collect();
        apps.sort_unstable_by_key(|app| app.number);
        apps.into_iter().map(|app| self.status_of(app)).collect()
    }

    /// Every listed worker, by id.
    pub fn workers(&self, now: Now) -> Vec<WorkerStatus> {
        self.workers.statuses(now.instant)
    }

    fn on_submitted(&mut self, description: AppDescription, reply: ReplyTo, now: Now) {
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
    fn on_submission_withdrawn(&mut self, id: &AppId) {
        let Some(app) = self.apps.get(id) else { return };
        if let (Some(on), false) = (app.state.placement(), app.phase().is_final()) {
            let (worker, attempt) = (on.worker.clone(), app.attempt);
            self.workers.release(&worker, &(id.clone(), attempt));
        }
        self.apps.remove(id);
        self.clocks.remove(id);
        for reply in self.waits.take_for(id) {
            self.reply(reply, Reply::NoSuchApp(id.clone()));
        }
        self.effects
            .push(Effect::Persist(Record::AppForgotten(id.clone())));
    }

    fn on_kill_requested(&mut self, app: AppId, reply: ReplyTo, now: Now) {
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

    fn on_wait_requested(&mut self, app: AppId, reply: ReplyTo, deadline: Instant) {
        match self.status(&app) {
            None => self.reply(reply, Reply::NoSuchApp(app)),
            Some(status) if status.phase.is_final() => {
                self.reply(reply, Reply::Status(Box::new(status)));
            }
            Some(_) => self.waits.insert(reply, app, deadline),
        }
    }

    fn on_tick(&mut self, now: Now) {
        while let Some((reply, app)) = self.waits.take_due(now.instant) {
            let answer = self.status(&app).map_or(Reply::NoSuchApp(app), |status| {
                Reply::Status(Box::new(status))
            });
            self.reply(reply, answer);
        }
        self.on_run_clocks(now);
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
        while let Some(forgotten) = self.apps.forget_beyond(self.settings.retained_apps) {
            self.effects
                .push(Effect::Persist(Record::AppForgotten(forgotten)));
        }
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

    /// What a client sees of an application, but for its history.
    pub(super) fn status_of(&self, app: &AppRecord) -> AppStatus {
        let description = &*app.description;
        let (mut exit_code, mut message, mut waiting_for, mut ended_at) = (None, None, None, None);
        match &app.state {
            AppState::Submitted => waiting_for = self.why_waiting(app),
            AppState::Relaunching { reason, .. } => {
                waiting_for = self.why_waiting(app);
                message = Some(reason.clone());
            }
            AppState::Launching { .. } | AppState::Running { .. } => {}
            AppState::Unknown { on, .. } => {
                message = Some(format!("{} is disconnected", on.worker))
            }
            AppState::Ended {
                how,
                at,
                message: said,
                ..
            } => {
                exit_code = match how {
                    Ending::Finished => Some(0),
                    Ending::Failed(code) => Some(*code),
                    Ending::Killed | Ending::Error => None,
                };
                message.clone_from(said);
                ended_at = Some(*at);
            }
        }
        AppStatus {
            id: app.id.clone(),
            name: description.name.clone(),
            entry_point: description.entry_point.clone(),
            cores: description.cores,
            memory_mib: description.memory_mib,
            supervise: description.supervise,
            phase: app.phase(),
            exit_code,
            attempt: app.attempt,
            worker: app.state.placement().cloned(),
            waiting_for,
            message,
            submitted_at: Some(app.submitted_at),
            started_at: app.state.since(),
            ended_at,
            priority: description.priority,
            not_before: match app.state {
                AppState::Relaunching { not_before, .. } => not_before,
                _ => None,
            },
            history: Vec::new(),
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
        let (queue, limits) = (self.apps.queue(), self.apps.limits());
        self.placer.check_invariants(queue, limits, &self.workers);
        assert!(self.effects.is_empty());
    }
}
