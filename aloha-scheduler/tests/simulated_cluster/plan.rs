//! What befalls a cluster, and when: all of it follows from the seed.

use std::fmt;
use std::time::Duration;

use aloha_rpc::testing::SimConditions;
use aloha_scheduler::testing::{SessionEnd, SimClusterSettings, StoreTrouble};
use aloha_scheduler::{DrainMode, DrainRequest};

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(60);

/// A run.
pub(crate) struct Plan {
    pub(crate) settings: SimClusterSettings,
    pub(crate) faults: Vec<(Duration, Fault)>,
}

/// Something that happens to a host. Each is followed by what ends it, some at the end of all.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Partition(String, String),
    Heal(String, String),
    Isolate(String),
    Return(String),
    /// The network falls apart: a master and these on the one side, all others on the other.
    Split(Who, Vec<String>),
    /// These workers hear the next leader only after it gave them up, and after that what the one before it had told
    /// them.
    Strand(Vec<String>),
    Rejoin,
    Cut(String, String),
    Conditions(SimConditions),
    Pause(Who),
    Resume,
    Crash(Who),
    HandOver(Who),
    CrashMachine(String),
    Restart,
    /// A worker is drained, or no more. One that has left comes back with those that crashed.
    Drain(String, DrainRequest),
    Clock(String, i64),
    Store(StoreTrouble),
    /// Masters that follow the store hear of what is stored so much later.
    News(Duration),
}

/// A host by name, or whichever leads then.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    Host(String),
    Leader,
}

/// Numbers that follow from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x6a09_e667_f3bc_c908)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let settings = SimClusterSettings {
            stop_when_cut_off: dice.below(3) > 0,
            // With few of them applications have to wait.
            workers: if dice.below(2) == 0 { 20 } else { 4 },
            session_end: match dice.below(2) {
                0 => SessionEnd::Noted,
                _ => SessionEnd::Told,
            },
            // With little time others are started elsewhere before what is under way has come to nothing.
            worker_timeout: Duration::from_secs(if dice.below(3) == 0 { 20 } else { 8 }),
            ..SimClusterSettings::default()
        };
        let mut plan = Self {
            settings,
            faults: Vec::new(),
        };
        for _ in 0..3 + dice.below(10) {
            let at = dice.millis(0, TROUBLE.as_millis() as u64);
            plan.add(at, &mut dice);
        }
        if dice.below(2) == 0 {
            plan.push(Duration::ZERO, Fault::News(dice.millis(100, 15_000)));
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    fn add(&mut self, at: Duration, dice: &mut Dice) {
        let lasts = match dice.below(3) {
            0 => dice.millis(100, 3_000),
            1 => dice.millis(3_000, 15_000),
            _ => dice.millis(15_000, 40_000),
        };
        let end = at + lasts;
        let workers = self.settings.workers as u64;
        let (one, other) = (any_host(workers, dice), any_host(workers, dice));
        match dice.below(26) {
            0..=2 => {
                if one != other {
                    self.push(at, Fault::Partition(one.clone(), other.clone()));
                    self.push(end, Fault::Heal(one, other));
                }
            }
            3 | 4 => {
                self.push(at, Fault::Isolate(one.clone()));
                self.push(end, Fault::Return(one));
            }
            5 => self.push(at, Fault::Cut(one, other)),
            6 => {
                let conditions = SimConditions {
                    delay: Duration::from_millis(1)..=dice.millis(50, 800),
                    loss: dice.below(20) as f64 / 100.0,
                    reset: dice.below(3) as f64 / 1_000.0,
                    ..SimConditions::default()
                };
                self.push(at, Fault::Conditions(conditions));
                self.push(end, Fault::Conditions(SimConditions::default()));
            }
            7..=9 => {
                self.push(at, Fault::Pause(master(dice)));
                self.push(end, Fault::Resume);
            }
            10 | 11 => {
                self.push(at, Fault::Crash(master(dice)));
                self.push(end, Fault::Restart);
            }
            12 => {
                self.push(at, Fault::Crash(Who::Host(one)));
                self.push(end, Fault::Restart);
            }
            13 => {
                self.push(at, Fault::CrashMachine(format!("w{}", dice.below(workers))));
                self.push(end, Fault::Restart);
            }
            14 => {
                let millis = i64::try_from(dice.below(7_200_000)).expect("small");
                self.push(at, Fault::Clock(one, millis - 3_600_000));
            }
            15..=17 => {
                // One that leads, cut off from who says so, with some of its workers.
                let workers = some_workers(workers, dice);
                self.push(at, Fault::Split(master(dice), workers));
                self.push(at + dice.millis(15_000, 50_000), Fault::Rejoin);
            }
            18 | 19 => {
                self.push(at, Fault::HandOver(master(dice)));
                self.push(end, Fault::Restart);
            }
            20 => {
                if !self.settings.stop_when_cut_off {
                    self.push(
                        at,
                        Fault::Pause(Who::Host(format!("w{}", dice.below(workers)))),
                    );
                    self.push(end, Fault::Resume);
                }
            }
            21 | 22 => self.push(at, Fault::Strand(some_workers(workers, dice))),
            23 | 24 => {
                let mode = match dice.below(2) {
                    0 => DrainMode::Move,
                    _ => DrainMode::Wait,
                };
                let timeout = (dice.below(2) == 0).then(|| dice.millis(0, 15_000));
                let worker = format!("w{}", dice.below(workers));
                let begin = DrainRequest::begin(mode, timeout);
                self.push(at, Fault::Drain(worker.clone(), begin));
                self.push(end, Fault::Drain(worker, DrainRequest::Cancel));
                self.push(end + dice.millis(0, 10_000), Fault::Restart);
            }
            _ => {
                let trouble = match dice.below(2) {
                    0 => StoreTrouble::Refuses,
                    _ => StoreTrouble::Slow(dice.millis(100, 9_000)),
                };
                self.push(at, Fault::Store(trouble));
                self.push(end, Fault::Store(StoreTrouble::None));
            }
        }
    }

    fn push(&mut self, at: Duration, fault: Fault) {
        self.faults.push((at, fault));
    }
}

/// Masters and the coordinator as often as all workers.
fn any_host(workers: u64, dice: &mut Dice) -> String {
    match dice.below(8) {
        0..=2 => format!("m{}", dice.below(3)),
        3 => "coordinator".to_owned(),
        _ => format!("w{}", dice.below(workers)),
    }
}

fn some_workers(workers: u64, dice: &mut Dice) -> Vec<String> {
    let some = (0..workers).filter(|_| dice.below(2) == 0);
    some.map(|number| format!("w{number}")).collect()
}

fn master(dice: &mut Dice) -> Who {
    match dice.below(3) {
        0 => Who::Host(format!("m{}", dice.below(3))),
        _ => Who::Leader,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:?}", self.settings)?;
        for (at, fault) in &self.faults {
            writeln!(f, "  {at:?} {fault:?}")?;
        }
        Ok(())
    }
}
