//! A master among honest workers on a bad day, over and over: messages are late, doubled, lost and out of order, workers
//! and machines are started anew, and the master itself ends in the middle of its effects and goes on from its store.
//!
//! After each step: nothing that was acknowledged is lost, no two attempts of one application live unless the worker of
//! the first was declared dead, no worker is promised more than it has (by the master's account and by its own), nobody
//! passes an equal that came first, an end is reached once and stored before it is acknowledged, and no id is given
//! twice. At last all faults end, and everything must come to rest.
//!
//! `ALOHA_SEQUENCES=n` runs so many sequences, `ALOHA_SEED=n` only that one, and prints its steps. A sequence that fails
//! is shortened, and printed as what [`run`] takes.

mod checks;
mod worker;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use self::world::World;
use crate::attempt::Outcome;
use crate::jitter::scramble;

/// What happens next. The number says to whom, or how.
#[derive(Debug, Clone, Copy)]
enum Step {
    Submit(usize),
    Kill(usize),
    Deliver(usize),
    DeliverCopy(usize),
    Lose(usize),
    Commit(usize),
    Begin(usize),
    End(usize),
    Heartbeat(usize),
    Register(usize),
    Disconnect(usize),
    RestartWorker(usize),
    Reboot(usize),
    Leave(usize),
    Drain(usize),
    CancelDrain(usize),
    Wait(usize),
    Crash(usize),
    /// The store fails: what was not stored of submissions is refused.
    Refuse,
}

/// A generator of numbers that a seed replays (splitmix64).
pub(super) struct Rng(pub(super) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.0)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn step(&mut self) -> Step {
        let n = usize::try_from(self.below(1 << 16)).expect("small");
        match self.below(100) {
            0..12 => Step::Submit(n),
            12..14 => Step::Kill(n),
            14 => Step::Drain(n),
            15..45 => Step::Deliver(n),
            45..47 => Step::DeliverCopy(n),
            47 => Step::CancelDrain(n),
            48..51 => Step::Lose(n),
            51..61 => Step::Commit(n),
            61..69 => Step::Begin(n),
            69..77 => Step::End(n),
            77..81 => Step::Heartbeat(n),
            81..86 => Step::Register(n),
            86..88 => Step::Disconnect(n),
            88 => Step::RestartWorker(n),
            89 => Step::Reboot(n),
            90 => Step::Leave(n),
            91..96 => Step::Wait(n),
            96 => Step::Refuse,
            _ => Step::Crash(n),
        }
    }
}

fn steps(seed: u64) -> Vec<Step> {
    let mut rng = Rng(seed);
    let count = 10 + rng.below(50);
    // All are there, and mostly as they should be.
    let beginning = [0, 1, 2]
        .into_iter()
        .flat_map(|n| [Step::Register(n), Step::Deliver(0)]);
    beginning.chain((0..count).map(|_| rng.step())).collect()
}

/// Plays a sequence, and says what was wrong.
fn run(seed: u64, steps: &[Step]) -> Result<(), String> {
    let play = || {
        let mut world = World::new(&mut Rng(!seed));
        for step in steps {
            play_step(&mut world, *step);
            world.check().map_err(|what| format!("{step:?}: {what}"))?;
        }
        world
            .heal()
            .map_err(|what| format!("when all was well again: {what}"))
    };
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

fn play_step(world: &mut World, step: Step) {
    match step {
        Step::Submit(n) => world.submit(n),
        Step::Kill(n) => world.kill(n),
        Step::Deliver(n) => world.deliver(n, false),
        Step::DeliverCopy(n) => world.deliver(n, true),
        Step::Lose(n) => world.lose(n),
        Step::Commit(n) => world.commit(n % (world.held_back() + 1)),
        Step::Begin(n) => world.on_worker(n, |worker, n| worker.begin(n % 3)),
        Step::End(n) => world.on_worker(n, |worker, n| {
            let outcome = match n / 3 % 8 {
                0 | 1 => Outcome::Exited(0),
                2 | 3 => Outcome::Exited(3),
                4 => Outcome::Signaled(11),
                5 => Outcome::OutOfMemory { limit_mib: 1 },
                6 => Outcome::CouldNotStart("no such file".into()),
                _ => Outcome::Lost("its runner is gone".into()),
            };
            worker.end(n % 3, outcome);
        }),
        Step::Heartbeat(n) => world.on_worker(n, |worker, _| worker.heartbeat()),
        Step::Register(n) => world.on_worker(n, |worker, _| worker.register()),
        Step::Disconnect(n) => world.disconnect(n),
        Step::RestartWorker(n) => world.on_worker(n, |worker, _| worker.restart()),
        Step::Reboot(n) => world.on_worker(n, |worker, _| worker.reboot()),
        Step::Leave(n) => world.on_worker(n, |worker, _| worker.leave()),
        Step::Drain(n) => world.drain(n),
        Step::CancelDrain(n) => world.cancel_drain(n),
        Step::Wait(n) => {
            let seconds = [1, 3, 8, 20, 31, 61][n % 6];
            world.advance(Duration::from_secs(seconds));
        }
        Step::Crash(n) => world.crash(n),
        Step::Refuse => world.refuse(),
    }
}

/// Leaves out what is not needed for it to fail.
fn shortened(seed: u64, mut steps: Vec<Step>) -> Vec<Step> {
    let mut at = steps.len();
    while at > 0 {
        at -= 1;
        let left_out = steps.remove(at);
        if run(seed, &steps).is_ok() {
            steps.insert(at, left_out);
        }
    }
    steps
}

fn play(seed: u64) {
    let steps = steps(seed);
    if let Err(what) = run(seed, &steps) {
        let steps = shortened(seed, steps);
        let what = run(seed, &steps).expect_err(&what);
        panic!("{what}\n  ALOHA_SEED={seed}, shortened:\n  run({seed}, &{steps:?})");
    }
}

#[test]
fn whatever_fails_and_whenever_the_master_crashes_what_it_promised_holds() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(seed) = number("ALOHA_SEED") {
        let steps = steps(seed);
        assert_eq!(run(seed, &steps), Ok(()), "seed {seed}: {steps:#?}");
        return;
    }
    let count = number("ALOHA_SEQUENCES").unwrap_or(20_000);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                let mut seed = first;
                while seed < count {
                    play(seed);
                    seed += threads;
                }
            });
        }
    });
}
