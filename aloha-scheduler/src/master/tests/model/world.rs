use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use super::super::store::Store;
use super::Rng;
use super::worker::{Key, SimWorker, ToMaster, ToWorker};
use crate::app::AppDescription;
use crate::attempt::AttemptReport;
use crate::drain::{DrainMode, DrainRequest};
use crate::ids::AppId;
use crate::master::{
    Effect, Event, MasterCore, MasterSettings, Record, Reply, ReplyTo, WorkerCommand,
};
use crate::now::Now;
use crate::resources::Resources;
use crate::restart::{RestartCondition, RestartPolicy};

const APPS_MAX: usize = 12;

pub(super) enum Caller {
    Worker(usize),
    Report(usize, Option<Key>),
    /// Under this key.
    Submit(Option<String>),
    Kill,
    Drain,
}

/// A master with its shell and its store, workers, and what is under way between them.
pub(super) struct World {
    pub(super) settings: MasterSettings,
    pub(super) master: MasterCore,
    pub(super) now: Now,
    pub(super) store: Store,
    /// What the shell has still to do, in order: the first of it waits to be stored.
    pub(super) held_back: VecDeque<Effect>,
    pub(super) workers: Vec<SimWorker>,
    pub(super) to_master: Vec<(usize, ToMaster)>,
    pub(super) to_worker: Vec<(usize, ToWorker)>,
    pub(super) callers: BTreeMap<ReplyTo, Caller>,
    pub(super) next_caller: u64,
    pub(super) submitted: Vec<AppId>,
    pub(super) acknowledged: BTreeSet<AppId>,
    /// What was acknowledged under each key.
    pub(super) keyed: BTreeMap<String, AppId>,
    pub(super) to_be_killed: BTreeSet<AppId>,
    pub(super) refused: BTreeSet<AppId>,
    /// Which worker was told to start which attempt.
    pub(super) launched: BTreeMap<Key, usize>,
    /// What may still live on a worker that was declared dead.
    pub(super) buried: BTreeSet<(usize, Key)>,
    pub(super) complaints: Vec<String>,
    pub(super) events: usize,
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
            keyed: BTreeMap::new(),
            to_be_killed: BTreeSet::new(),
            refused: BTreeSet::new(),
            launched: BTreeMap::new(),
            buried: BTreeSet::new(),
            complaints: Vec::new(),
            events: 0,
        }
    }

    pub(super) fn keep(&mut self, caller: Caller) -> ReplyTo {
        self.next_caller += 1;
        let token = ReplyTo(self.next_caller);
        self.callers.insert(token, caller);
        token
    }

    /// Tells the master, and does what its shell does: what goes ahead at once, the rest in order behind the store.
    pub(super) fn tell(&mut self, event: Event) {
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
            (Caller::Submit(key), Reply::Submitted { app, .. }) => {
                let first = key.map(|key| self.keyed.entry(key).or_insert_with(|| app.clone()));
                if let Some(first) = first.filter(|first| **first != app).cloned() {
                    self.complain(format!("one key gave both {first} and {app}"));
                }
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
            (Caller::Drain, Reply::Drain(_)) => {}
            (_, reply) => self.complain(format!("nobody expected {reply:?}")),
        }
    }

    /// The store fails. Who was not yet told that a submission is accepted is told that it is not.
    pub(super) fn refuse(&mut self) {
        while !matches!(self.held_back.front(), None | Some(Effect::Persist(_))) {
            self.commit(1);
        }
        let accepted = self.held_back.iter().filter_map(|effect| match effect {
            Effect::Reply(_, Reply::Submitted { app, is_new: true }) => Some(app.clone()),
            _ => None,
        });
        let refused: BTreeSet<_> = accepted.collect();
        // Those who ask again are told to do so once more.
        self.held_back.retain(|effect| {
            !matches!(
                effect,
                Effect::Reply(_, Reply::Submitted { is_new: false, .. })
            )
        });
        self.drop_all_of(&refused);
        for app in &refused {
            self.tell(Event::SubmissionWithdrawn { app: app.clone() });
        }
        self.drop_all_of(&refused);
        self.refused.extend(refused);
    }

    fn drop_all_of(&mut self, apps: &BTreeSet<AppId>) {
        self.held_back.retain(|effect| match effect {
            Effect::Reply(_, Reply::Submitted { app, .. })
            | Effect::Send(_, WorkerCommand::LaunchApp { app, .. }) => !apps.contains(app),
            Effect::Persist(Record::App(app)) => !apps.contains(&app.id),
            _ => true,
        });
    }

    fn complain(&mut self, complaint: String) {
        self.complaints.push(complaint);
    }

    pub(super) fn submit(&mut self, n: usize) {
        if self.submitted.len() >= APPS_MAX {
            return;
        }
        // What is submitted under one key is always the same.
        let key = (n / 512).is_multiple_of(2).then_some(n % 8);
        let n = key.map_or(n, |key| key * 1_237);
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
        let key = key.map(|key| format!("key-{key}"));
        let reply = self.keep(Caller::Submit(key.clone()));
        let before = self.newest();
        self.tell(Event::Submitted {
            description: description.into(),
            key,
            reply,
        });
        let Some(id) = self.newest().filter(|id| before.as_ref() != Some(id)) else {
            return;
        };
        if self.acknowledged.contains(&id) || self.store.knows(&id) {
            self.complain(format!("{id} was given twice"));
        }
        // Nobody was told the id of one that was refused, so it may be given again.
        self.refused.remove(&id);
        self.submitted.push(id);
    }

    fn newest(&self) -> Option<AppId> {
        let newest = self.master.apps.iter().max_by_key(|app| app.number);
        newest.map(|app| app.id.clone())
    }

    pub(super) fn kill(&mut self, n: usize) {
        if let Some(app) = self.submitted.get(n % APPS_MAX).cloned() {
            let reply = self.keep(Caller::Kill);
            self.tell(Event::KillRequested { app, reply });
        }
    }

    pub(super) fn drain(&mut self, n: usize) {
        let mode = [DrainMode::Move, DrainMode::Wait][n / 16 % 2];
        let timeout = [None, Some(0), Some(5), Some(40)][n / 32 % 4];
        let request = DrainRequest::begin(mode, timeout.map(Duration::from_secs));
        self.ask_to_drain(n, request);
    }

    pub(super) fn cancel_drain(&mut self, n: usize) {
        self.ask_to_drain(n, DrainRequest::Cancel);
    }

    fn ask_to_drain(&mut self, n: usize, request: DrainRequest) {
        let worker = self.workers[n % self.workers.len()].id.clone();
        let reply = self.keep(Caller::Drain);
        self.tell(Event::DrainRequested {
            worker,
            request,
            reply,
        });
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
}
