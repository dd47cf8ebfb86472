//! What a runner costs, and how many applications a cluster completes.
//!
//! ```text
//! cargo bench -p aloha-benches --bench scheduler [-- --short]
//! ```
//!
//! The application is `true` by the shell, as in `bash -c true`. A runner's cost is the time from its launch to the
//! outcome, less that of the bare process, both one after another and interleaved; and its resident memory beside an
//! application that sleeps. Completions are counted with a master, a worker of eight cores and REST in one process
//! (`aloha local`, which logs warnings alone), beside a loop that does nothing but start and wait. Submissions are put
//! to a master without workers, over RPC and over REST; in between it is killed and started again. The executable is built as `cargo build --release`
//! does. `-- submissions` measures those
//! alone, `-- rest` those over REST. With three ZooKeeper servers and two masters, `-- failover` measures how soon the one takes
//! submissions after the other was killed or asked to end.
#![expect(clippy::print_stdout, reason = "a bench talks to whoever runs it")]

mod cluster;
mod failover;
#[path = "../../aloha-scheduler/tests/common/ports.rs"]
#[allow(unreachable_pub, reason = "tests use it too")]
mod ports;
mod rest;
mod runner;
mod submissions;
#[path = "../../aloha-scheduler/tests/common/zookeeper.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests use the rest")]
mod zookeeper;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    // Cargo's own runs of it, as under `cargo test --benches`, only show that it starts.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let short = arguments.iter().any(|argument| argument == "--short");
    let aloha = match build() {
        Ok(path) => path,
        Err(reason) => {
            println!("cannot build aloha: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let divisor = if short { 20 } else { 1 };
    let failed = |what: &str, error: Box<dyn std::error::Error>| {
        println!("{what} failed: {error}");
        ExitCode::FAILURE
    };
    // Removed at the end alone: for some seconds after a removal, ext4 looks long for each file that is made.
    let work = std::env::temp_dir().join(format!("aloha-bench-{}", std::process::id()));
    let only = |what: &str| arguments.iter().any(|argument| argument == what);
    let fail_over = || {
        let rounds = 30_u32.div_ceil(divisor);
        failover::run(&aloha, &work.join("failover"), rounds, 50_000 / divisor)
    };
    if only("failover") {
        let done = fail_over();
        let _ = std::fs::remove_dir_all(&work);
        return done.map_or_else(|error| failed("failover", error), |()| ExitCode::SUCCESS);
    }
    let (master, count) = (work.join("master"), 100_000 / divisor);
    let submissions = match only("rest") {
        true => Ok(()),
        false => submissions::run(&aloha, &master, count),
    };
    let submissions = submissions.and_then(|()| rest::run(&aloha, &master, count));
    if let Err(error) = submissions {
        return failed("submissions", error);
    }
    if only("submissions") || only("rest") {
        let _ = std::fs::remove_dir_all(&work);
        return ExitCode::SUCCESS;
    }
    if let Err(error) = fail_over() {
        return failed("failover", error);
    }
    let measured = runner::run(&aloha, &work.join("alone"), 400 / divisor);
    let measured = measured.map_err(|error| failed("the runner's cost", error));
    let measured = measured.and_then(|()| {
        let rounds = 5.min(20 / divisor);
        let measured = cluster::run(
            &aloha,
            &work.join("cluster"),
            200 / divisor,
            4000 / divisor,
            rounds,
        );
        measured.map_err(|error| failed("the cluster's throughput", error))
    });
    if let Err(error) = std::fs::remove_dir_all(&work) {
        println!("cannot remove {}: {error}", work.display());
    }
    if let Err(code) = measured {
        return code;
    }
    if short {
        println!("a short run: it shows that all works, not how fast");
    }
    ExitCode::SUCCESS
}

/// Builds the executable with the profile of this one, and gives its path; or that of `ALOHA_BENCH_EXECUTABLE`, where one is there.
fn build() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("ALOHA_BENCH_EXECUTABLE") {
        return Ok(path.into());
    }
    // …/release/deps/scheduler-0123456789abcdef
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let profile = this
        .ancestors()
        .nth(2)
        .ok_or("this executable lies nowhere")?;
    let target = profile.parent().ok_or("this executable lies nowhere")?;
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["-p", "aloha-scheduler", "--bin", "aloha"])
        .arg("--target-dir")
        .arg(target)
        .stdin(Stdio::null())
        .status();
    match built {
        Ok(status) if status.success() => Ok(profile.join("aloha")),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The bare process: the one that all of this is compared with.
fn bare() -> Command {
    let mut command = Command::new("/bin/bash");
    command.args(["-c", "true"]).stdin(Stdio::null());
    command
}

/// Reads the clock.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}

/// Sorts, and gives the value below which this part of all lies.
fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a few hundred at the most"
    )]
    let place = (last as f64 * part).round() as usize;
    times.get(place).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
