//! A day: what happens when, and what the master makes of it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aloha_scheduler::master::{Effect, Event, ReplyTo, WorkerCommand};
use aloha_scheduler::{
    AlohaEvent, AppDescription, AppId, MasterCore, MasterSettings, Now, Outcome, WorkerId,
};

use crate::chance::Chance;
use crate::report::Report;
use crate::workers::{Link, SimulatedWorker};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// A worker that is silent for this long is given up; it reports four times in it.
const WORKER_TIMEOUT: Duration = Duration::from_secs(300);
const BEAT_SECONDS: usize = 75;
/// How often the use of the cores is noted.
const SAMPLE: u64 = 5 * MINUTE;

/// How large the cluster is, and how much it has to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    workers: u64,
    apps: usize,
}

impl Size {
    pub(crate) const FULL: Self = Self {
        workers: 10_000,
        apps: 1_000_000,
    };
    pub(crate) const SHORT: Self = Self {
        workers: 100,
        apps: 10_000,
    };
}

/// Something that happens to a worker, by its place.
enum Happening {
    Ends {
        worker: usize,
        key: (AppId, u32),
        outcome: Outcome,
    },
    Fails(usize),
    Returns(usize),
    IsCutOff(usize),
    IsReachable(usize),
}

/// A cluster in the course of a day.
pub(crate) struct Day {
    chance: Chance,
    master: MasterCore,
    midnight: Now,
    /// Milliseconds since midnight.
    at: u64,
    /// When each application arrives, in order.
    arrivals: Vec<u64>,
    happenings: BTreeMap<(u64, u64), Happening>,
    happened: u64,
    workers: Vec<SimulatedWorker>,
    places: HashMap<WorkerId, usize>,
    /// What the master is still to be told, at once.
    untold: VecDeque<Event>,
    cores_used: u32,
    report: Report,
}

impl Day {
    pub(crate) fn new(size: Size, seed: u64) -> Self {
        let midnight = Now {
            instant: clock(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_552_262_400),
        };
        let mut settings = MasterSettings::new(1);
        settings.worker_timeout = WORKER_TIMEOUT;
        let mut chance = Chance::new(seed);
        let mut arrivals: Vec<_> = (0..size.apps).map(|_| arrival(&mut chance)).collect();
        arrivals.sort_unstable();
        let workers = (0..size.workers).map(|n| SimulatedWorker::new(n, midnight.wall));
        let workers: Vec<_> = workers.collect();
        let cores = workers.iter().map(|worker| worker.offers.cores).sum();
        let places = workers.iter().map(|worker| worker.id.clone()).zip(0..);
        let mut day = Self {
            places: places.collect(),
            chance,
            master: MasterCore::new(settings, midnight),
            midnight,
            at: 0,
            report: Report::new(size.workers, cores, arrivals.len()),
            arrivals,
            happenings: BTreeMap::new(),
            happened: 0,
            workers,
            untold: VecDeque::new(),
            cores_used: 0,
        };
        for worker in 0..day.workers.len() {
            day.register(worker);
        }
        // In a day one worker in fifty fails, and one in twenty-five is cut off for a while.
        for turn in 0..size.workers * 6 / 100 {
            let at = day.chance.below(DAY);
            let worker = usize::try_from(day.chance.below(size.workers)).expect("it is a place");
            let what = match turn % 3 {
                0 => Happening::Fails(worker),
                _ => Happening::IsCutOff(worker),
            };
            day.later(at, what);
        }
        day
    }

    /// Lets the day pass.
    pub(crate) fn run(mut self) -> Report {
        let started = clock();
        let (mut arrived, mut second) = (0, 0);
        loop {
            let arrives = self.arrivals.get(arrived).copied().unwrap_or(DAY);
            let happens = self.happenings.first_key_value();
            let happens = happens.map_or(DAY, |((at, _), _)| *at);
            let due = self.master.next_deadline().map_or(DAY, |deadline| {
                let after = deadline.saturating_duration_since(self.midnight.instant);
                u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(DAY)
            });
            let beat = second * SECOND;
            self.at = self.at.max(arrives.min(happens).min(due).min(beat));
            if self.at >= DAY {
                break;
            }
            if due <= self.at {
                self.tell(Event::Tick);
            } else if beat <= self.at {
                self.beat(second);
                second += 1;
            } else if happens <= self.at {
                if let Some((_, what)) = self.happenings.pop_first() {
                    self.happen(what);
                }
            } else {
                self.submit(arrived);
                arrived += 1;
            }
        }
        let left = self.master.apps();
        let left = left.iter().filter(|app| !app.phase.is_final()).count();
        self.report.close(left, clock() - started);
        self.report
    }

    fn later(&mut self, at: u64, what: Happening) {
        self.happened += 1;
        self.happenings.insert((at, self.happened), what);
    }

    fn submit(&mut self, number: usize) {
        let cores = self.chance.of([1, 1, 2, 2, 4, 8]);
        let description = AppDescription {
            name: number.to_string(),
            entry_point: "SimpleProcess".into(),
            args: vec!["simulated".into()],
            cores,
            memory_mib: u64::from(cores) * self.chance.of([1024, 2048, 4096, 6144]),
            priority: self.chance.of([10, 0, 0, 0, 0, 0, 0, 0, -10, -10]),
            supervise: self.chance.happens(0.5),
            ..AppDescription::default()
        };
        self.tell(Event::Submitted {
            key: None,
            description: description.into(),
            reply: ReplyTo(0),
        });
    }

    /// A part of the workers say that they are alive, and now and then the state of the day is noted.
    fn beat(&mut self, second: u64) {
        let first = usize::try_from(second).expect("a day is short") % BEAT_SECONDS;
        for place in (first..self.workers.len()).step_by(BEAT_SECONDS) {
            if self.workers[place].link == Link::Up {
                let worker = self.workers[place].id.clone();
                self.tell(Event::Heartbeat {
                    worker,
                    reply: ReplyTo(0),
                });
            }
        }
        if (second * SECOND).is_multiple_of(SAMPLE) {
            self.report.sample(self.cores_used);
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Ends {
                worker,
                key,
                outcome,
            } => {
                let machine = &mut self.workers[worker];
                if let Some(cores) = machine.end(&key, outcome.clone()) {
                    self.cores_used -= cores;
                    if machine.link == Link::Up {
                        self.report_end(worker, key, outcome);
                    }
                }
            }
            Happening::Fails(place) => {
                let machine = &mut self.workers[place];
                let was_up = machine.link == Link::Up;
                self.cores_used -= machine.fail();
                let worker = machine.id.clone();
                let back = self.at + 3 * MINUTE + self.chance.below(40 * MINUTE);
                self.later(back, Happening::Returns(place));
                // Some fall silent, with others the connection breaks.
                if was_up && self.chance.happens(0.5) {
                    self.tell(Event::WorkerDisconnected { worker });
                }
            }
            Happening::IsCutOff(place) if self.workers[place].link == Link::Up => {
                self.workers[place].link = Link::Cut;
                let worker = self.workers[place].id.clone();
                let back = self.at + 5 * SECOND + self.chance.below(10 * MINUTE);
                self.later(back, Happening::IsReachable(place));
                self.tell(Event::WorkerDisconnected { worker });
            }
            Happening::IsReachable(place) if self.workers[place].link == Link::Cut => {
                self.register(place);
            }
            Happening::Returns(place) if self.workers[place].link == Link::Down => {
                self.register(place);
            }
            Happening::IsCutOff(_) | Happening::IsReachable(_) | Happening::Returns(_) => {}
        }
    }

    fn register(&mut self, place: usize) {
        self.workers[place].link = Link::Up;
        let registration = self.workers[place].registration();
        self.tell(Event::WorkerRegistered {
            registration,
            reply: ReplyTo(0),
        });
        for (key, outcome) in self.workers[place].unreported() {
            self.report_end(place, key, outcome);
        }
    }

    fn report_end(&mut self, place: usize, key: (AppId, u32), outcome: Outcome) {
        self.workers[place].forget(&key);
        let (app, attempt) = key;
        self.tell(Event::AttemptEnded {
            worker: self.workers[place].id.clone(),
            app,
            attempt,
            outcome,
            reply: ReplyTo(0),
        });
    }

    /// Tells the master, and does what it says.
    fn tell(&mut self, event: Event) {
        self.untold.push_back(event);
        while let Some(event) = self.untold.pop_front() {
            let after = Duration::from_millis(self.at);
            let now = Now {
                instant: self.midnight.instant + after,
                wall: self.midnight.wall + after,
            };
            self.report.handled();
            for effect in self.master.handle(event, now) {
                match effect {
                    Effect::Send(worker, command) => self.obey(&worker, command),
                    Effect::Publish(AlohaEvent::AppStateChanged { to, .. }) if to.is_final() => {
                        self.report.ended(to);
                    }
                    Effect::Publish(AlohaEvent::AppRelaunched { .. }) => self.report.relaunched(),
                    // There is no store, and nobody waits for an answer.
                    Effect::Persist(_) | Effect::Reply(..) | Effect::Publish(_) => {}
                }
            }
        }
    }

    /// What a worker does when it is told something, if that reaches it.
    fn obey(&mut self, worker: &WorkerId, command: WorkerCommand) {
        let place = self.places[worker];
        if let WorkerCommand::LaunchApp {
            attempt,
            description,
            ..
        } = &command
        {
            self.report.decided();
            if *attempt == 1 {
                let number: usize = description.name.parse().expect("names are numbers");
                let waited = self.at - self.arrivals[number];
                self.report.waited(description.priority, waited);
            }
        }
        if self.workers[place].link != Link::Up {
            return;
        }
        match command {
            WorkerCommand::LaunchApp {
                app,
                attempt,
                description,
                ..
            } => self.launch(place, (app, attempt), description),
            WorkerCommand::KillApp { app, attempt, .. } => {
                let key = (app, attempt);
                let cores = self.workers[place].end(&key, Outcome::Killed);
                self.cores_used -= cores.unwrap_or(0);
                let outcome = self.workers[place].forget(&key);
                // One that went down with its machine was not killed.
                let outcome = outcome.unwrap_or_else(|| Outcome::Lost("it is not here".to_owned()));
                let (app, attempt) = key;
                self.untold.push_back(Event::AttemptEnded {
                    worker: worker.clone(),
                    app,
                    attempt,
                    outcome,
                    reply: ReplyTo(0),
                });
            }
            WorkerCommand::Reregister { .. } => {
                let registration = self.workers[place].registration();
                self.untold.push_back(Event::WorkerRegistered {
                    registration,
                    reply: ReplyTo(0),
                });
            }
            WorkerCommand::Leave { .. } => unreachable!("nobody drains a worker here"),
        }
    }

    fn launch(&mut self, place: usize, key: (AppId, u32), description: Arc<AppDescription>) {
        let cores = description.cores;
        if !self.workers[place].take(key.clone(), description) {
            return;
        }
        self.cores_used += cores;
        let (app, attempt) = key.clone();
        self.untold.push_back(Event::AttemptStarted {
            worker: self.workers[place].id.clone(),
            app,
            attempt,
            reply: ReplyTo(0),
        });
        let whole = self
            .chance
            .long_tailed_millis(1600.0, 1.4)
            .clamp(SECOND, 12 * HOUR);
        let (runs, outcome) = if self.chance.happens(0.04) {
            (whole / 5, Outcome::Exited(1))
        } else {
            (whole, Outcome::Exited(0))
        };
        let ends = Happening::Ends {
            worker: place,
            key,
            outcome,
        };
        self.later(self.at + runs, ends);
    }
}

/// When an application arrives: most come in the afternoon.
fn arrival(chance: &mut Chance) -> u64 {
    loop {
        let at = chance.below(DAY);
        #[expect(clippy::cast_precision_loss, reason = "a day has few milliseconds")]
        let part_of_day = at as f64 / DAY as f64;
        let rhythm = 1.0 + 0.8 * (std::f64::consts::TAU * (part_of_day - 8.0 / 24.0)).sin();
        if chance.happens(rhythm / 1.8) {
            return at;
        }
    }
}

/// Reads the clock.
#[expect(clippy::disallowed_methods, reason = "an example that measures itself")]
fn clock() -> Instant {
    Instant::now()
}
