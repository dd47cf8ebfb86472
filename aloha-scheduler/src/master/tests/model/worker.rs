use std::collections::BTreeMap;
use std::sync::Arc;

use crate::app::AppDescription;
use crate::attempt::{AttemptReport, AttemptState, HeldAttempt, Outcome};
use crate::constraint::Attributes;
use crate::ids::{AppId, WorkerId};
use crate::master::WorkerCommand;
use crate::resources::Resources;
use crate::runner::CgroupSupport;
use crate::worker::WorkerRegistration;

pub(super) type Key = (AppId, u32);

/// What a worker says.
#[derive(Debug, Clone)]
pub(super) enum ToMaster {
    Register(WorkerRegistration),
    Heartbeat,
    Leaving,
    Report(AttemptReport),
    /// Not said by the worker: its connection ended.
    Gone,
}

/// What a worker is told.
#[derive(Debug, Clone)]
pub(super) enum ToWorker {
    Command(WorkerCommand),
    Registered { epoch: u64 },
    Acknowledged(Key),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for an earlier attempt of the same application to end.
    Queued,
    Starting,
    Running,
}

#[derive(Debug)]
struct Held {
    stage: Stage,
    is_to_end: bool,
    epoch: u64,
    description: Arc<AppDescription>,
}

pub(super) fn total<'a>(held: impl Iterator<Item = &'a (Key, Resources)>) -> Resources {
    held.map(|(_, needs)| *needs)
        .fold(Resources::default(), Resources::plus)
}

/// A worker that keeps to the rules: it starts no attempt twice, ends what it is told to, and reports an end until
/// that is acknowledged.
#[derive(Debug)]
pub(super) struct SimWorker {
    pub(super) id: WorkerId,
    pub(super) offers: Resources,
    pub(super) says: Vec<ToMaster>,
    /// Launches for which there was no room, with all that it would have held.
    pub(super) refused: Vec<Vec<(Key, Resources)>>,
    held: BTreeMap<Key, Held>,
    unacknowledged: BTreeMap<Key, Outcome>,
    latest: BTreeMap<AppId, u32>,
    epoch: u64,
    registered: bool,
    leaving: bool,
}

impl SimWorker {
    pub(super) fn new(id: WorkerId, offers: Resources) -> Self {
        Self {
            id,
            offers,
            says: Vec::new(),
            refused: Vec::new(),
            held: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            latest: BTreeMap::new(),
            epoch: 0,
            registered: false,
            leaving: false,
        }
    }

    /// The attempts that have a process.
    pub(super) fn live(&self) -> impl Iterator<Item = &Key> {
        let live = self
            .held
            .iter()
            .filter(|(_, held)| held.stage != Stage::Queued);
        live.map(|(key, _)| key)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.registered && self.held.is_empty() && self.unacknowledged.is_empty()
    }

    pub(super) fn hear(&mut self, message: ToWorker) {
        match message {
            ToWorker::Registered { epoch } => {
                if epoch >= self.epoch {
                    self.epoch = epoch;
                    self.registered = true;
                    if self.leaving {
                        self.say(ToMaster::Leaving);
                    }
                    self.report_ends();
                }
            }
            ToWorker::Acknowledged(key) => {
                self.unacknowledged.remove(&key);
            }
            ToWorker::Command(command) => self.obey(command),
        }
    }

    fn obey(&mut self, command: WorkerCommand) {
        let (WorkerCommand::LaunchApp { epoch, .. }
        | WorkerCommand::KillApp { epoch, .. }
        | WorkerCommand::Reregister { epoch }
        | WorkerCommand::Leave { epoch }) = command;
        if epoch < self.epoch {
            return;
        }
        self.epoch = epoch;
        match command {
            WorkerCommand::LaunchApp {
                app,
                attempt,
                description,
                ..
            } => self.launch((app, attempt), description),
            WorkerCommand::KillApp { app, attempt, .. } => self.kill((app, attempt)),
            WorkerCommand::Reregister { .. } => self.register(),
            // Its process ends with that, and a new one may begin later.
            WorkerCommand::Leave { .. } if self.held.is_empty() => {
                self.leaving = true;
                self.say(ToMaster::Leaving);
            }
            WorkerCommand::Leave { .. } => {}
        }
    }

    fn launch(&mut self, key: Key, description: Arc<AppDescription>) {
        let latest = self.latest.entry(key.0.clone()).or_default();
        if key.1 <= *latest {
            if !self.held.contains_key(&key) && !self.unacknowledged.contains_key(&key) {
                self.ended(key, Outcome::Lost("it is over".into()));
            }
            return;
        }
        *latest = key.1;
        if self.leaving {
            return self.ended(key, Outcome::Declined("leaving".into()));
        }
        let held = self.held.iter();
        let mut used: Vec<_> = held
            .map(|(key, held)| (key.clone(), held.description.needs()))
            .collect();
        used.push((key.clone(), description.needs()));
        if !total(used.iter()).fits_in(&self.offers) {
            self.refused.push(used);
            return self.ended(key, Outcome::Declined("no room".into()));
        }
        let earlier = self.of(&key.0);
        let held = Held {
            stage: Stage::Queued,
            is_to_end: false,
            epoch: self.epoch,
            description,
        };
        let app = key.0.clone();
        self.held.insert(key, held);
        for key in earlier {
            self.kill(key);
        }
        self.start_next(&app);
    }

    fn kill(&mut self, key: Key) {
        let latest = self.latest.entry(key.0.clone()).or_default();
        *latest = key.1.max(*latest);
        match self.held.get_mut(&key) {
            Some(held) if held.stage == Stage::Queued => {
                self.held.remove(&key);
                self.ended(key, Outcome::Killed);
            }
            Some(held) => held.is_to_end = true,
            None if self.unacknowledged.contains_key(&key) => {}
            None => self.ended(key, Outcome::Lost("not held".into())),
        }
    }

    fn of(&self, app: &AppId) -> Vec<Key> {
        let all = (app.clone(), 0)..=(app.clone(), u32::MAX);
        self.held.range(all).map(|(key, _)| key.clone()).collect()
    }

    fn start_next(&mut self, app: &AppId) {
        if let [key] = self.of(app).as_slice()
            && let Some(held) = self
                .held
                .get_mut(key)
                .filter(|held| held.stage == Stage::Queued)
        {
            held.stage = Stage::Starting;
        }
    }

    fn ended(&mut self, key: Key, outcome: Outcome) {
        let app = key.0.clone();
        self.say(ToMaster::Report(AttemptReport::Ended {
            app: key.0.clone(),
            attempt: key.1,
            outcome: outcome.clone(),
        }));
        self.unacknowledged.insert(key, outcome);
        self.start_next(&app);
    }

    fn report_ends(&mut self) {
        for ((app, attempt), outcome) in self.unacknowledged.clone() {
            self.say(ToMaster::Report(AttemptReport::Ended {
                app,
                attempt,
                outcome,
            }));
        }
    }

    fn say(&mut self, message: ToMaster) {
        if self.registered {
            self.says.push(message);
        }
    }

    /// The process of one attempt begins to run.
    pub(super) fn begin(&mut self, n: usize) {
        let mut starting = self
            .held
            .iter_mut()
            .filter(|(_, held)| held.stage == Stage::Starting);
        let Some(((app, attempt), held)) = starting.nth(n) else {
            return;
        };
        held.stage = Stage::Running;
        let report = AttemptReport::Started {
            app: app.clone(),
            attempt: *attempt,
        };
        self.say(ToMaster::Report(report));
    }

    /// One attempt ends, like this if nobody asked for it.
    pub(super) fn end(&mut self, n: usize, outcome: Outcome) {
        let Some(key) = self.live().nth(n).cloned() else {
            return;
        };
        let held = self.held.remove(&key).expect("it was just seen");
        let outcome = match outcome {
            _ if held.is_to_end => Outcome::Killed,
            Outcome::CouldNotStart(_) if held.stage == Stage::Running => Outcome::Exited(1),
            outcome => outcome,
        };
        self.ended(key, outcome);
    }

    pub(super) fn register(&mut self) {
        let held = self.held.iter().map(|((app, attempt), held)| HeldAttempt {
            app: app.clone(),
            attempt: *attempt,
            occupies: held.description.needs(),
            state: match held.stage {
                Stage::Running => AttemptState::Running,
                Stage::Queued | Stage::Starting => AttemptState::Starting,
            },
            epoch: held.epoch,
            description: Some(Arc::clone(&held.description)),
        });
        let ended = self
            .unacknowledged
            .keys()
            .map(|(app, attempt)| HeldAttempt {
                app: app.clone(),
                attempt: *attempt,
                occupies: Resources::default(),
                state: AttemptState::Ended,
                epoch: 0,
                description: None,
            });
        let registration = WorkerRegistration {
            id: self.id.clone(),
            host: "h".into(),
            port: 1,
            offers: self.offers,
            attempts: held.chain(ended).collect(),
            enforces: CgroupSupport::default(),
            attributes: Attributes::new(),
            epoch: self.epoch,
        };
        self.registered = false;
        self.says.push(ToMaster::Register(registration));
    }

    pub(super) fn heartbeat(&mut self) {
        if self.registered {
            self.say(ToMaster::Heartbeat);
            self.report_ends();
        } else {
            self.register();
        }
    }

    pub(super) fn lose_master(&mut self) {
        self.registered = false;
    }

    /// Its process is started anew; the attempts run on, and it knows of them.
    pub(super) fn restart(&mut self) {
        self.registered = false;
        self.leaving = false;
        self.epoch = 0;
        for held in self.held.values_mut() {
            held.epoch = 0;
        }
    }

    /// Its machine is started anew; the attempts are gone, and it knows of them.
    pub(super) fn reboot(&mut self) {
        self.restart();
        for key in std::mem::take(&mut self.held).into_keys() {
            self.ended(key, Outcome::Lost("the machine was restarted".into()));
        }
    }

    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.say(ToMaster::Leaving);
        for key in std::mem::take(&mut self.held).into_keys() {
            self.ended(key, Outcome::Lost("stopped with its worker".into()));
        }
    }

    /// A worker that left is started anew.
    pub(super) fn come_back(&mut self) {
        if self.leaving && self.held.is_empty() {
            self.restart();
            self.register();
        }
    }

    pub(super) fn stay(&mut self) {
        self.leaving = false;
    }
}
