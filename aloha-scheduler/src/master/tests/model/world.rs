use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use super::super::store::Store;
use super::Rng;
use super::worker::{Key, SimWorker, ToMaster, ToWorker, total};
use crate::app::{AppDescription, AppPhase, AppState};
use crate::attempt::{AttemptReport, Outcome};
use crate::events::AlohaEvent;
use crate::ids::AppId;
use crate::master::{
    Effect, Event, MasterCore, MasterSettings, Record, Reply, ReplyTo, WorkerCommand,
};
use crate::now::Now;
use crate::resources::Resources;
use crate::restart::{RestartCondition, RestartPolicy};

const APPS_MAX: usize = 12;

enum Caller {
    Worker(usize),
    Report(usize, Option<Key>),
    Submit,
    Kill,
}

/// A master with its shell and its store, workers, and what is under way between them.
pub(super) struct World {
    settings: MasterSettings,
    master: MasterCore,
    now: Now,
    store: Store,
    /// What the shell has still to do, in order: the first of it waits to be stored.
    held_back: VecDeque<Effect>,
    workers: Vec<SimWorker>,
    to_master: Vec<(usize, ToMaster)>,
    to_worker: Vec<(usize, ToWorker)>,
    callers: BTreeMap<ReplyTo, Caller>,
    next_caller: u64,
    submitted: Vec<AppId>,
    acknowledged: BTreeSet<AppId>,
    to_be_killed: BTreeSet<AppId>,
    refused: BTreeSet<AppId>,
    /// Which worker was told to start which attempt.
    launched: BTreeMap<Key, usize>,
    /// What may still live on a worker that was declared dead.
    buried: BTreeSet<(usize, Key)>,
    complaints: Vec<String>,
    events: usize,
}

impl World {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let settings = MasterSettings {
            retained_apps: if rng.below(4) == 0 { 2 } else { 1000 },
            epoch: 1,
            durable: true,
            ..super::super::settings()
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant will do, and there is no other way to have one"
        )]
        let instant = Instant::now();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_552_342_651);
        let now = Now { instant, wall };
        let (master, effects) = MasterCore::recover(settings.clone(), Store::default().read(), now);
        assert_eq!(effects, []);
        let workers = (0..2 + rng.below(2)).map(|n| {
            let offers = Resources {
                cores: 2 + u32::try_from(rng.below(3)).expect("small"),
                memory_mib: 10,
            };
            SimWorker::new(format!("w{n}").parse().expect("a good id"), offers)
        });
        Self {
            workers: workers.collect(),
            settings,
            master,
            now,
            store: Store::default(),
            held_back: VecDeque::new(),
            to_master: Vec::new(),
            to_worker: Vec::new(),
            callers: BTreeMap::new(),
            next_caller: 0,
            submitted: Vec::new(),
            acknowledged: BTreeSet::new(),
            to_be_killed: BTreeSet::new(),
            refused: BTreeSet::new(),
            launched: BTreeMap::new(),
            buried: BTreeSet::new(),
            complaints: Vec::new(),
            events: 0,
        }
    }

    fn keep(&mut self, caller: Caller) -> ReplyTo {
        self.next_caller += 1;
        let token = ReplyTo(self.next_caller);
        self.callers.insert(token, caller);
        token
    }

    /// Tells the master, and does what its shell does: what goes ahead at once, the rest in order behind the store.
    fn tell(&mut self, event: Event) {
        let effects = self.master.handle(event, self.now);
        self.events += 1;
        if self.events.is_multiple_of(8) {
            self.master.check_invariants();
        }
        self.check_order(&effects);
        self.take_on(effects);
    }

    fn take_on(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let stores = matches!(effect, Effect::Persist(_));
            if effect.goes_ahead() || self.held_back.is_empty() && !stores {
                self.perform(effect);
            } else {
                self.held_back.push_back(effect);
            }
        }
    }

    /// The store has got so far, and what waited for that follows.
    pub(super) fn commit(&mut self, n: usize) {
        for _ in 0..n {
            let Some(effect) = self.held_back.pop_front() else {
                return;
            };
            self.perform(effect);
        }
    }

    pub(super) fn held_back(&self) -> usize {
        self.held_back.len()
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(record) => {
                if let Record::WorkerForgotten(id) = &record {
                    let dead = self.workers.iter().position(|worker| worker.id == *id);
                    let dead = dead.expect("it is one of ours");
                    let there = self.launched.iter().filter(|(_, worker)| **worker == dead);
                    self.buried
                        .extend(there.map(|(key, _)| (dead, key.clone())));
                }
                self.store.put(record);
            }
            Effect::Publish(_) => {}
            Effect::Send(worker, command) => {
                let worker = self.workers.iter().position(|known| known.id == worker);
                let worker = worker.expect("it is one of ours");
                if let WorkerCommand::LaunchApp { app, attempt, .. } = &command {
                    self.on_launch(worker, app, *attempt);
                }
                self.to_worker.push((worker, ToWorker::Command(command)));
            }
            Effect::Reply(to, reply) => {
                let caller = self
                    .callers
                    .remove(&to)
                    .expect("everybody is answered once");
                self.on_reply(caller, reply);
            }
        }
    }

    fn on_launch(&mut self, worker: usize, app: &AppId, attempt: u32) {
        let first = *self
            .launched
            .entry((app.clone(), attempt))
            .or_insert(worker);
        if first != worker {
            self.complain(format!("{app} #{attempt} was launched on two workers"));
        }
        if self.refused.contains(app) {
            self.complain(format!("{app} was launched although it was refused"));
        }
        if self.to_be_killed.contains(app) {
            self.complain(format!("{app} was launched although it is to be killed"));
        }
        if !self.store.is_placed(app, attempt) {
            self.complain(format!("{app} #{attempt} was launched and not stored"));
        }
    }

    fn on_reply(&mut self, caller: Caller, reply: Reply) {
        match (caller, reply) {
            (Caller::Worker(worker), Reply::Registered { epoch, .. }) => {
                self.to_worker
                    .push((worker, ToWorker::Registered { epoch }));
            }
            (Caller::Worker(_), Reply::HeartbeatNoted) => {}
            (Caller::Report(worker, ended), Reply::Acknowledged | Reply::Refused { .. }) => {
                let Some(key) = ended else { return };
                if self.store.is_placed(&key.0, key.1) && self.launched.get(&key) == Some(&worker) {
                    self.complain(format!("the end of {} #{} was not stored", key.0, key.1));
                }
                self.to_worker.push((worker, ToWorker::Acknowledged(key)));
            }
            (Caller::Submit, Reply::Submitted { app }) => {
                if !self.store.knows(&app) {
                    self.complain(format!("{app} was acknowledged and not stored"));
                }
                self.acknowledged.insert(app);
            }
            (Caller::Kill, Reply::Kill { app, success, .. }) => {
                if success {
                    self.to_be_killed.insert(app);
                }
            }
            (_, reply) => self.complain(format!("nobody expected {reply:?}")),
        }
    }

    /// The store fails. Who was not yet told that a submission is accepted is told that it is not.
    pub(super) fn refuse(&mut self) {
        while !matches!(self.held_back.front(), None | Some(Effect::Persist(_))) {
            self.commit(1);
        }
        let accepted = self.held_back.iter().filter_map(|effect| match effect {
            Effect::Reply(_, Reply::Submitted { app }) => Some(app.clone()),
            _ => None,
        });
        let refused: BTreeSet<_> = accepted.collect();
        self.drop_all_of(&refused);
        for app in &refused {
            self.tell(Event::SubmissionWithdrawn { app: app.clone() });
        }
        self.drop_all_of(&refused);
        self.refused.extend(refused);
    }

    fn drop_all_of(&mut self, apps: &BTreeSet<AppId>) {
        self.held_back.retain(|effect| match effect {
            Effect::Reply(_, Reply::Submitted { app })
            | Effect::Send(_, WorkerCommand::LaunchApp { app, .. }) => !apps.contains(app),
            Effect::Persist(Record::App(app)) => !apps.contains(&app.id),
            _ => true,
        });
    }

    fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }

    /// Among equals, none is placed before one that came first.
    fn check_order(&mut self, effects: &[Effect]) {
        let placed = effects.iter().filter_map(|effect| match effect {
            Effect::Publish(AlohaEvent::AppStateChanged {
                id,
                from: Some(AppPhase::Submitted | AppPhase::Relaunching),
                to: AppPhase::Launching,
                ..
            }) => self.master.apps.get(id),
            _ => None,
        });
        let mut complaints = Vec::new();
        for app in placed {
            let waits = |state: &AppState| match state {
                AppState::Submitted => true,
                AppState::Relaunching { not_before, .. } => not_before.is_none(),
                _ => false,
            };
            let (needs, priority) = (app.description.needs(), app.description.priority);
            let passed = self.master.apps.iter().find(|other| {
                waits(&other.state)
                    && other.description.needs() == needs
                    && other.description.priority == priority
                    && other.number < app.number
            });
            if let Some(passed) = passed {
                complaints.push(format!("{} passed {}", app.id, passed.id));
            }
        }
        self.complaints.append(&mut complaints);
    }

    /// What must hold after every step.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let mut living: BTreeMap<&AppId, (usize, u32)> = BTreeMap::new();
        for (n, worker) in self.workers.iter().enumerate() {
            for key in worker
                .live()
                .filter(|key| !self.buried.contains(&(n, (*key).clone())))
            {
                if let Some((other, attempt)) = living.insert(&key.0, (n, key.1)) {
                    return Err(format!(
                        "{} lives twice: #{attempt} on w{other} and #{} on w{n}",
                        key.0, key.1
                    ));
                }
            }
        }
        let mut promised = vec![Resources::default(); self.workers.len()];
        for app in self
            .master
            .apps
            .iter()
            .filter(|app| app.phase().is_placed())
        {
            let on = app.state.placement().expect("it is placed");
            let n = self
                .workers
                .iter()
                .position(|worker| worker.id == on.worker);
            let n = n.expect("it is one of ours");
            promised[n] = promised[n].plus(app.description.needs());
            if !promised[n].fits_in(&self.workers[n].offers) {
                return Err(format!("w{n} is promised {}", promised[n]));
            }
        }
        for app in &self.acknowledged {
            if self.master.apps.get(app).is_none() && !self.store.forgotten.contains(app) {
                let waits = self.held_back.iter().any(
                    |effect| matches!(effect, Effect::Persist(Record::AppForgotten(id)) if id == app),
                );
                if !waits {
                    return Err(format!("{app} was acknowledged and is lost"));
                }
            }
        }
        for (n, worker) in self.workers.iter_mut().enumerate() {
            for held in worker.refused.drain(..) {
                // A launch may arrive after its worker was given up and taken on again.
                let known = held
                    .iter()
                    .filter(|(key, _)| !self.buried.contains(&(n, key.clone())));
                if !total(known).fits_in(&worker.offers) {
                    return Err(format!("w{n} is to hold {held:?} of {}", worker.offers));
                }
            }
        }
        self.complaints.append(&mut self.store.complaints);
        self.complaints.pop().map_or(Ok(()), Err)
    }

    pub(super) fn submit(&mut self, n: usize) {
        if self.submitted.len() >= APPS_MAX {
            return;
        }
        let pick = |from: usize, count: usize| n / from % count;
        let condition = match pick(16, 4) {
            0 => Some(RestartCondition::Always),
            1 => Some(RestartCondition::OnFailure),
            2 => Some(RestartCondition::Never),
            _ => None,
        };
        let description = AppDescription {
            name: "a".into(),
            entry_point: "Process".into(),
            cores: 1 + u32::try_from(pick(1, 4)).expect("small"),
            supervise: condition.is_none() && pick(128, 2) == 0,
            priority: i32::try_from(pick(4, 2)).expect("small"),
            restart: RestartPolicy {
                condition,
                backoff_max_millis: Some(8_000),
                in_a_row_max: (pick(256, 4) == 0).then_some(2),
                ..RestartPolicy::default()
            },
            run_millis_max: (pick(8, 4) == 0).then_some(20_000),
            ..AppDescription::default()
        };
        let reply = self.keep(Caller::Submit);
        self.tell(Event::Submitted { description, reply });
        let newest = self.master.apps.iter().max_by_key(|app| app.number);
        let id = newest.expect("it was accepted").id.clone();
        if self.acknowledged.contains(&id) || self.store.knows(&id) {
            self.complain(format!("{id} was given twice"));
        }
        // Nobody was told the id of one that was refused, so it may be given again.
        self.refused.remove(&id);
        self.submitted.push(id);
    }

    pub(super) fn kill(&mut self, n: usize) {
        if let Some(app) = self.submitted.get(n % APPS_MAX).cloned() {
            let reply = self.keep(Caller::Kill);
            self.tell(Event::KillRequested { app, reply });
        }
    }

    /// One message arrives, not always the oldest. A copy of it may stay under way.
    pub(super) fn deliver(&mut self, n: usize, stays: bool) {
        let under_way = self.to_master.len() + self.to_worker.len();
        if under_way == 0 {
            return;
        }
        let n = n % under_way;
        if n < self.to_master.len() {
            let (worker, message) = self.to_master[n].clone();
            if !stays {
                self.to_master.remove(n);
            }
            self.master_hears(worker, message);
        } else {
            let n = n - self.to_master.len();
            let (worker, message) = self.to_worker[n].clone();
            if !stays {
                self.to_worker.remove(n);
            }
            self.workers[worker].hear(message);
            self.collect();
        }
    }

    fn master_hears(&mut self, n: usize, message: ToMaster) {
        let worker = self.workers[n].id.clone();
        let event = match message {
            ToMaster::Register(registration) => {
                let reply = self.keep(Caller::Worker(n));
                Event::WorkerRegistered {
                    registration,
                    reply,
                }
            }
            ToMaster::Heartbeat => {
                let reply = self.keep(Caller::Worker(n));
                Event::Heartbeat { worker, reply }
            }
            ToMaster::Leaving => Event::WorkerLeaving { worker },
            ToMaster::Gone => Event::WorkerDisconnected { worker },
            ToMaster::Report(AttemptReport::Started { app, attempt }) => {
                let reply = self.keep(Caller::Report(n, None));
                Event::AttemptStarted {
                    worker,
                    app,
                    attempt,
                    reply,
                }
            }
            ToMaster::Report(AttemptReport::Ended {
                app,
                attempt,
                outcome,
            }) => {
                let reply = self.keep(Caller::Report(n, Some((app.clone(), attempt))));
                Event::AttemptEnded {
                    worker,
                    app,
                    attempt,
                    outcome,
                    reply,
                }
            }
        };
        self.tell(event);
    }

    /// What the workers said is under way now.
    fn collect(&mut self) {
        for (n, worker) in self.workers.iter_mut().enumerate() {
            self.to_master
                .extend(worker.says.drain(..).map(|message| (n, message)));
        }
    }

    pub(super) fn lose(&mut self, n: usize) {
        let under_way = self.to_master.len() + self.to_worker.len();
        if under_way == 0 {
            return;
        }
        let n = n % under_way;
        if n < self.to_master.len() {
            self.to_master.remove(n);
        } else {
            self.to_worker.remove(n - self.to_master.len());
        }
    }

    /// Something happens to a worker, or on it.
    pub(super) fn on_worker(&mut self, n: usize, what: impl FnOnce(&mut SimWorker, usize)) {
        let count = self.workers.len();
        what(&mut self.workers[n % count], n / count);
        self.collect();
    }

    /// A connection ends: what was under way is lost, and each end may or may not notice.
    pub(super) fn disconnect(&mut self, n: usize) {
        let (worker, n) = (n % self.workers.len(), n / self.workers.len());
        if n & 1 == 0 {
            self.to_master.retain(|(from, _)| *from != worker);
            self.to_worker.retain(|(to, _)| *to != worker);
        }
        if n & 6 != 0 {
            self.workers[worker].lose_master();
        }
        if n & 8 == 0 {
            self.to_master.push((worker, ToMaster::Gone));
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.now.instant += by;
        self.now.wall += by;
        if self
            .master
            .next_deadline()
            .is_some_and(|at| at <= self.now.instant)
        {
            self.tell(Event::Tick);
        }
    }

    /// The master ends after it did so much of what it had to do, and another goes on from what is stored. The clock on
    /// the wall may have stepped.
    pub(super) fn crash(&mut self, n: usize) {
        let done = n % (self.held_back.len() + 1);
        self.commit(done);
        self.held_back.clear();
        self.to_master.clear();
        self.callers.clear();
        let hour = Duration::from_secs(3600);
        match n / 16 % 4 {
            0 => self.now.wall += hour,
            1 => self.now.wall -= hour,
            _ => {}
        }
        for (bit, worker) in self.workers.iter_mut().enumerate() {
            if n >> (8 + bit) & 1 == 0 {
                worker.lose_master();
            }
        }
        self.now.instant += Duration::from_secs(5);
        self.settings.epoch += 1;
        let stored = self.store.read();
        let (master, effects) = MasterCore::recover(self.settings.clone(), stored, self.now);
        master.check_invariants();
        self.master = master;
        self.take_on(effects);
    }

    /// Nothing fails any more: everything must come to rest.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        for app in self.submitted.clone() {
            let forever =
                self.master.apps.get(&app).is_some_and(|app| {
                    app.description.restart_condition() == RestartCondition::Always
                });
            if forever {
                let reply = self.keep(Caller::Kill);
                self.tell(Event::KillRequested { app, reply });
            }
        }
        for n in 0..self.workers.len() {
            self.on_worker(n, |worker, _| {
                worker.stay();
                worker.register();
            });
        }
        for _ in 0..60 {
            self.settle()?;
            if self.is_at_rest() {
                return self.check_rest();
            }
            for n in 0..self.workers.len() {
                self.on_worker(n, |worker, _| worker.end(0, Outcome::Exited(0)));
                self.on_worker(n, |worker, _| worker.heartbeat());
            }
            self.advance(Duration::from_secs(5));
        }
        Err(format!("no rest: {:?}", self.master.apps()))
    }

    /// Delivers, stores and starts all there is.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            self.commit(usize::MAX);
            for n in 0..self.workers.len() {
                self.on_worker(n, |worker, _| worker.begin(0));
            }
            self.check()?;
            if self.to_master.is_empty() && self.to_worker.is_empty() {
                return Ok(());
            }
            self.deliver(0, false);
        }
    }

    fn is_at_rest(&self) -> bool {
        let fits = |needs: Resources| self.workers.iter().any(|w| needs.fits_in(&w.offers));
        let rests = |app: &crate::master::AppRecord| match app.state {
            AppState::Ended { .. } => true,
            AppState::Submitted
            | AppState::Relaunching {
                not_before: None, ..
            } => !fits(app.description.needs()),
            _ => false,
        };
        self.workers.iter().all(SimWorker::is_idle) && self.master.apps.iter().all(rests)
    }

    fn check_rest(&mut self) -> Result<(), String> {
        self.master.check_invariants();
        for status in self.master.workers(self.now) {
            if status.cores_used > 0 || !status.apps.is_empty() {
                return Err(format!("{} is still counted as busy", status.id));
            }
        }
        for app in &self.to_be_killed {
            if self
                .master
                .status(app)
                .is_some_and(|status| !status.phase.is_final())
            {
                return Err(format!("{app} was to be killed"));
            }
        }
        if self.master.is_recovering() {
            return Err("it still recovers".to_owned());
        }
        Ok(())
    }
}
