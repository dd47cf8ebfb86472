//! A day of a large cluster, simulated around the real mind of the master: 10,000 workers, a million applications.
//!
//! [`MasterCore`](aloha_scheduler::MasterCore) reads no clock and touches no network, so that a day takes as long as
//! its decisions do. Applications arrive with the rhythm of a day, run for a minute or for hours, fail, and are of
//! three priorities; workers are lost, come back, and are cut off for a while. All is drawn from one seed.
//!
//! ```text
//! cargo run --release -p aloha-examples --example cluster_simulation [-- [--short] [--seed N] [REPORT.svg]]
//! ```
//!
//! prints how long applications waited, how the cores were used, and how many decisions the master made in a second of
//! real time; given the name of a file, it draws the day there. `--short` simulates a hundredth of that.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]
#![expect(clippy::print_stderr, reason = "an example talks to whoever runs it")]

mod chance;
mod day;
mod report;
mod workers;

use std::process::ExitCode;

use day::{Day, Size};

fn main() -> ExitCode {
    let (mut size, mut seed, mut drawing) = (Size::FULL, 1, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--short" => size = Size::SHORT,
            "--seed" => match arguments.next().and_then(|seed| seed.parse().ok()) {
                Some(given) => seed = given,
                None => return usage(),
            },
            option if option.starts_with('-') => return usage(),
            _ => drawing = Some(argument),
        }
    }
    let report = Day::new(size, seed).run();
    println!("{report}");
    if let Some(path) = drawing
        && let Err(error) = std::fs::write(&path, report.to_svg())
    {
        eprintln!("cannot write {path}: {error}");
        return ExitCode::FAILURE;
    }
    if report.adds_up() {
        ExitCode::SUCCESS
    } else {
        eprintln!("some applications were lost or counted twice");
        ExitCode::FAILURE
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: cluster_simulation [--short] [--seed N] [REPORT.svg]");
    ExitCode::from(2)
}
