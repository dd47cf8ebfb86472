//! What the master's mind costs: how many applications it places in a second, what each waiting one weighs, and how long
//! a standby takes to become it.
//!
//! ```text
//! cargo bench -p aloha-benches --bench master [-- --short]
//! ```
//!
//! The core alone, without a store or sockets: events go in, effects come out and are dropped. A decision is one
//! waiting application placed. In the steady state the cluster is full: whenever one application ends, the queue is
//! served, and what was placed is replaced by new submissions between the measurements. The core has one thread; what
//! is measured is the time that the processor spent on it, and each figure is the best of several rounds, for the
//! machine may be shared.
#![expect(clippy::print_stdout, reason = "a bench talks to whoever runs it")]

mod cluster;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use aloha_benches::resident_bytes;
use cluster::Cluster;

/// The goals, at 10,000 workers and 100,000 waiting.
const DECISIONS_A_SECOND: f64 = 200_000.0;
const HEARTBEAT: Duration = Duration::from_micros(1);
const WAITING_BYTES: u64 = 200_000_000;

/// Asks this program to fill a queue and to say what that weighs.
const WEIGH: &str = "--weigh";
/// Likewise, what it weighs beside that to follow it.
const WEIGH_STANDBY: &str = "--weigh-standby";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, what, count] = &arguments[..]
        && [WEIGH, WEIGH_STANDBY].contains(&what.as_str())
    {
        return weigh(count.parse().unwrap_or(0), what == WEIGH_STANDBY);
    }
    // Cargo's own runs of it, as under `cargo test --benches`, only show that it starts.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let short = arguments.iter().any(|argument| argument == "--short");
    let (rounds, waiting, ends) = if short {
        (1, 2_000, 1_000)
    } else {
        (7, 100_000, 50_000)
    };
    println!("{waiting} applications wait, of 24 shapes; the best of {rounds} rounds\n");
    println!("   workers   decisions/s   µs each");
    let sizes = [10, 100, 1_000, 10_000];
    for workers in sizes {
        let workers = if short { workers / 10 } else { workers }.max(2);
        let (rate, each) = decisions(workers, waiting, rounds, ends);
        let goal = if workers == 10_000 {
            format!(
                "goal {DECISIONS_A_SECOND:.0}: {:.0} %",
                100.0 * rate / DECISIONS_A_SECOND
            )
        } else {
            String::new()
        };
        println!("{workers:>10}{rate:>14.0}{:>10.2}    {goal}", micros(each));
    }
    let workers = if short { 100 } else { 10_000 };
    let (placed, time) = at_once(workers, waiting);
    println!(
        "\n{placed} placed while {workers} workers register: {:.0} decisions/s",
        placed as f64 / time.as_secs_f64()
    );
    let each = submission(workers, waiting);
    println!(
        "a submission to a queue of {waiting}: {:.2} µs",
        micros(each)
    );
    let each = heartbeat(workers, rounds, 20 * workers);
    println!(
        "a heartbeat among {workers} workers: {:.0} ns (goal {} ns)",
        each.as_nanos(),
        HEARTBEAT.as_nanos()
    );
    println!("\na standby takes over, with 100 workers:");
    for waiting in [1_000, 50_000, 200_000] {
        let waiting = if short { waiting / 100 } else { waiting };
        let (placed, time, noted) = take_over(waiting);
        println!(
            "{waiting:>10} waiting, {placed} placed: {:.2} ms; it had followed at {:.2} µs a record",
            micros(time) / 1e3,
            micros(noted)
        );
    }
    match weigh_elsewhere(WEIGH_STANDBY, waiting) {
        Ok(bytes) => println!(
            "a standby of {waiting} waiting: {} MB beside its leader, {} bytes each",
            bytes / 1_000_000,
            bytes / waiting as u64
        ),
        Err(reason) => {
            println!("cannot weigh a standby: {reason}");
            return ExitCode::FAILURE;
        }
    }
    match weigh_elsewhere(WEIGH, waiting) {
        Ok(bytes) => println!(
            "{waiting} waiting: {} MB resident, {} bytes each (goal {} MB for 100000)",
            bytes / 1_000_000,
            bytes / waiting as u64,
            WAITING_BYTES / 1_000_000
        ),
        Err(reason) => {
            println!("cannot weigh a queue: {reason}");
            return ExitCode::FAILURE;
        }
    }
    if short {
        println!("a short run: it shows that all works, not how fast");
    }
    ExitCode::SUCCESS
}

/// A full cluster, one application ends and others are placed: the best rate, and the time of each decision.
fn decisions(workers: usize, waiting: usize, rounds: usize, ends: usize) -> (f64, Duration) {
    let mut cluster = Cluster::new();
    cluster.register(workers);
    let mut queued = 0;
    while queued < waiting {
        if cluster.submit() == 0 {
            queued += 1;
        }
    }
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        let (mut placed, started) = (0, spent());
        for _ in 0..ends {
            placed += cluster.end_one();
        }
        let each = (spent() - started) / u32::try_from(placed.max(1)).unwrap_or(u32::MAX);
        best = best.min(each);
        for _ in 0..placed {
            cluster.submit();
        }
    }
    (1.0 / best.as_secs_f64(), best)
}

/// An empty cluster comes, and all that waits is placed.
fn at_once(workers: usize, waiting: usize) -> (usize, Duration) {
    let mut cluster = Cluster::new();
    for _ in 0..waiting {
        cluster.submit();
    }
    let started = spent();
    (cluster.register(workers), (spent() - started))
}

/// What a submission costs when many others wait.
fn submission(workers: usize, waiting: usize) -> Duration {
    let mut cluster = Cluster::new();
    cluster.register(workers / 100);
    for _ in 0..waiting {
        cluster.submit();
    }
    let count = 10_000;
    let started = spent();
    for _ in 0..count {
        cluster.submit();
    }
    (spent() - started) / count
}

fn heartbeat(workers: usize, rounds: usize, count: usize) -> Duration {
    let mut cluster = Cluster::new();
    cluster.register(workers);
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        let started = spent();
        for worker in 0..count {
            cluster.heartbeat(worker * 7919);
        }
        best = best.min((spent() - started) / u32::try_from(count).unwrap_or(u32::MAX));
    }
    best
}

/// What it takes a standby to lead while so many wait: how many are placed, how long it took, and what following had
/// cost for each record.
fn take_over(waiting: usize) -> (usize, Duration, Duration) {
    let mut cluster = Cluster::followed();
    cluster.register(100);
    let (mut placed, mut queued) = (0, 0);
    while queued < waiting {
        match cluster.submit() {
            0 => queued += 1,
            now => placed += now,
        }
    }
    let standby = cluster.standby.take().expect("it follows");
    let now = cluster.now;
    let started = spent();
    let (master, effects) = standby.take_over(2, now);
    let time = spent() - started;
    assert!(master.is_recovering() && !effects.is_empty());

    // The same once more without a standby, to know what that had cost.
    let count = 10_000;
    let cost = |mut cluster: Cluster| {
        let started = spent();
        for _ in 0..count {
            cluster.submit();
        }
        (spent() - started) / count
    };
    let with = cost(Cluster::followed());
    (placed, time, with.saturating_sub(cost(Cluster::new())))
}

/// Fills a queue, and prints what it weighs, or what it weighs to follow it.
fn weigh(count: usize, standby: bool) -> ExitCode {
    let mut cluster = if standby {
        Cluster::followed()
    } else {
        Cluster::new()
    };
    let before = resident_bytes();
    for _ in 0..count {
        cluster.submit();
    }
    let mut bytes = resident_bytes().saturating_sub(before);
    if standby {
        let alone = weigh_elsewhere(WEIGH, count).unwrap_or_default();
        bytes = bytes.saturating_sub(alone);
    }
    println!("{bytes}");
    ExitCode::SUCCESS
}

/// What a queue weighs in a process of its own.
fn weigh_elsewhere(what: &str, count: usize) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(this)
        .args([what, &count.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| format!("it said {text:?}"))
}

/// The time that the processor spent on this thread.
fn spent() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it never goes back")
}

/// Some moment, from which simulated time goes on.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to have one"
)]
fn beginning() -> Instant {
    Instant::now()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
