//! The workloads, several rounds, interleaved: Aloha, what the machine can do at all, and other libraries.
//!
//! ```text
//! cargo bench -p aloha-benches --bench rpc -- [NAMES...] [--peers] [--rounds N] [--short] [--record]
//! ```
//!
//! NAMES are workloads, contestants, or both; none means all.
//!
//! | | |
//! |---|---|
//! | `--peers` | builds the package in `peers/` and compares with it |
//! | `--rounds N` | the default is 5 |
//! | `--short` | one round of a twentieth, to see that all work |
//! | `--record` | writes `RESULTS.md` and `results.svg` beside the manifest |
//!
//! What the workloads are stands in `workload.rs`. Each contestant does each workload in a process of its own, with
//! another process for its server where it takes two; the driver is a spawned task on a runtime of two workers.
#![expect(clippy::print_stdout, reason = "a bench talks to whoever runs it")]
#![expect(clippy::print_stderr, reason = "a bench talks to whoever runs it")]

use std::process::ExitCode;
use std::time::Duration;

use aloha_benches::Workload;

use crate::driver::{Comparison, Program};

mod bare;
mod driver;
mod frames;
mod ours;
mod plot;
mod raw;
mod record;
mod swapped;
mod table;
mod threads;

#[derive(Debug)]
struct Options {
    /// As they were given.
    given: Vec<String>,
    workloads: Vec<Workload>,
    /// Of these alone, if there are any.
    contestants: Vec<String>,
    peers: bool,
    record: bool,
    rounds: usize,
    /// Every workload is divided by this.
    divisor: u64,
    /// How much of the machine others used just before, in per cent.
    busy: u64,
}

impl Options {
    /// Whether the figures are to show that all works, and not how fast.
    fn is_trial(&self) -> bool {
        self.divisor > 1 || self.rounds < 3 || self.busy > 5
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let entries = [
        &ours::ENTRIES[..],
        &bare::ENTRIES,
        &swapped::ENTRIES,
        &raw::ENTRIES,
        &threads::ENTRIES,
    ]
    .concat();
    if aloha_benches::take_part(&entries, &arguments) {
        return ExitCode::SUCCESS;
    }
    match compare(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: Vec<String>) -> Result<(), String> {
    let mut options = options(arguments)?;
    let mut programs = vec![Program::this()?];
    if options.peers {
        programs.extend(driver::build_peers(&options.workloads)?);
    }
    let mut comparison = Comparison::between(programs, &options.workloads, &options.contestants)?;
    options.busy = busy();
    for round in 0..options.rounds {
        comparison.round(round, options.divisor);
    }
    if options.divisor == 1 {
        comparison.count_calls();
    }
    print!("{}", table::text(&comparison));
    if options.busy > 5 {
        println!("others used {} % of the machine just before", options.busy);
    }
    if options.record {
        record::write(&comparison, &options)?;
    }
    match comparison.failures() {
        failures if failures.is_empty() => Ok(()),
        failures => Err(failures),
    }
}

fn options(arguments: Vec<String>) -> Result<Options, String> {
    let mut options = Options {
        given: arguments.clone(),
        workloads: Vec::new(),
        contestants: Vec::new(),
        peers: false,
        record: false,
        rounds: 5,
        divisor: 1,
        busy: 0,
    };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--peers" => options.peers = true,
            "--record" => options.record = true,
            "--short" => (options.rounds, options.divisor) = (1, 20),
            "--rounds" => {
                let rounds = arguments.next().and_then(|rounds| rounds.parse().ok());
                options.rounds = rounds.ok_or("--rounds takes a number")?;
            }
            unknown if unknown.starts_with('-') => {
                return Err(format!("no option is called {unknown}"));
            }
            name => match Workload::called(name) {
                Some(workload) => options.workloads.push(workload),
                None => options.contestants.push(argument),
            },
        }
    }
    if options.workloads.is_empty() {
        options.workloads = Workload::ALL.to_vec();
    }
    Ok(options)
}

/// How much of a second all processors worked, in per cent; nothing where the system does not say.
fn busy() -> u64 {
    let times = || -> Option<(u64, u64)> {
        let times = std::fs::read_to_string("/proc/stat").ok()?;
        let times = times.lines().next()?.split_whitespace().skip(1).take(8);
        let times: Vec<u64> = times.map_while(|time| time.parse().ok()).collect();
        // Idle, and waiting for disks.
        Some((times.iter().sum(), times.get(3)? + times.get(4)?))
    };
    let before = times();
    std::thread::sleep(Duration::from_secs(1));
    let (Some((all_before, idle_before)), Some((all, idle))) = (before, times()) else {
        return 0;
    };
    let all = all.saturating_sub(all_before).max(1);
    100 - (100 * idle.saturating_sub(idle_before) / all).min(100)
}
