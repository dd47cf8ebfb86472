//! A cluster around the master's core: workers and clients without processes, sockets or waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aloha_scheduler::master::{Effect, Event, Record, ReplyTo, Shadow, WorkerCommand};
use aloha_scheduler::runner::CgroupSupport;
use aloha_scheduler::{
    AppDescription, AppId, Attributes, MasterCore, MasterSettings, Now, Outcome, Resources,
    WorkerId, WorkerRegistration,
};

/// What every worker offers.
pub(crate) const OFFERS: Resources = Resources {
    cores: 32,
    memory_mib: 128 * 1024,
};

/// A master's core, and what it believes of the world.
pub(crate) struct Cluster {
    pub(crate) master: MasterCore,
    pub(crate) now: Now,
    pub(crate) workers: Vec<WorkerId>,
    /// A standby that follows what is stored.
    pub(crate) standby: Option<Shadow>,
    random: Random,
    running: VecDeque<(AppId, u32, WorkerId)>,
}

impl Cluster {
    /// A master without workers.
    pub(crate) fn new() -> Self {
        let now = Now {
            instant: crate::beginning(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_552_342_651),
        };
        let settings = MasterSettings::new(1);
        Self {
            master: MasterCore::new(settings, now),
            now,
            workers: Vec::new(),
            standby: None,
            random: Random(7),
            running: VecDeque::new(),
        }
    }

    /// A master without workers that stores what it must, and a standby that follows.
    pub(crate) fn followed() -> Self {
        let settings = MasterSettings {
            durable: true,
            ..MasterSettings::new(1)
        };
        let empty = Self::new();
        Self {
            master: MasterCore::new(settings.clone(), empty.now),
            standby: Some(Shadow::new(settings, empty.now)),
            ..empty
        }
    }

    /// Registers so many workers; returns how many applications were placed by that.
    pub(crate) fn register(&mut self, count: usize) -> usize {
        let mut placed = 0;
        for n in 0..count {
            let id = WorkerId::mint(
                self.now.wall,
                &format!("10.0.{}.{}", n / 256, n % 256),
                7078,
            );
            self.workers.push(id.clone());
            let registration = WorkerRegistration {
                id,
                host: format!("10.0.{}.{}", n / 256, n % 256),
                port: 7078,
                offers: OFFERS,
                attempts: Vec::new(),
                enforces: CgroupSupport::default(),
                attributes: Attributes::new(),
                epoch: 0,
            };
            placed += self.tell(Event::WorkerRegistered {
                registration,
                reply: ReplyTo(0),
            });
        }
        placed
    }

    /// Submits an application of one of 24 shapes; returns how many were placed by that.
    pub(crate) fn submit(&mut self) -> usize {
        let cores = [1, 1, 1, 2, 2, 4][self.random.below(6)];
        let memory_mib = u64::from(cores) * [512, 1024, 2048, 4096][self.random.below(4)];
        let description = AppDescription {
            name: "nightly import".into(),
            entry_point: "SimpleProcess".into(),
            args: vec!["./import --from /data/in --to /data/out".into()],
            cores,
            memory_mib,
            ..AppDescription::default()
        };
        self.tell(Event::Submitted {
            key: None,
            description: description.into(),
            reply: ReplyTo(0),
        })
    }

    /// Ends one of those that have run longest; returns how many were placed by that.
    pub(crate) fn end_one(&mut self) -> usize {
        let among = self.running.len().min(64);
        let Some(last) = among.checked_sub(1) else {
            return 0;
        };
        self.running.swap(0, self.random.below(last + 1));
        let Some((app, attempt, worker)) = self.running.pop_front() else {
            return 0;
        };
        self.tell(Event::AttemptEnded {
            worker,
            app,
            attempt,
            outcome: Outcome::Exited(0),
            reply: ReplyTo(0),
        })
    }

    /// Has a worker say that it is alive.
    pub(crate) fn heartbeat(&mut self, worker: usize) {
        let worker = self.workers[worker % self.workers.len()].clone();
        self.now.instant += Duration::from_micros(10);
        self.tell(Event::Heartbeat {
            worker,
            reply: ReplyTo(0),
        });
    }

    fn tell(&mut self, event: Event) -> usize {
        let mut placed = 0;
        for effect in self.master.handle(event, self.now) {
            match (effect, &mut self.standby) {
                (Effect::Send(worker, WorkerCommand::LaunchApp { app, attempt, .. }), _) => {
                    self.running.push_back((app, attempt, worker));
                    placed += 1;
                }
                // A copy of its own, as if it had come from a store.
                (Effect::Persist(record), Some(standby)) => standby.note(copy_of(record)),
                _ => {}
            }
        }
        placed
    }
}

fn copy_of(record: Record) -> Record {
    match record {
        Record::App(app) => {
            let mut copy = (*app).clone();
            copy.description = Arc::new((*app.description).clone());
            Record::App(Arc::new(copy))
        }
        record => record,
    }
}

/// Steele, Lea and Flood's SplitMix64: a few lines, and good enough to mix shapes.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }
}
