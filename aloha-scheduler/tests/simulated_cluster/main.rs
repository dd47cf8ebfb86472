//! A whole cluster, from many seeds: three masters, up to twenty workers, clients, an election and a store, over a network that
//! delays, parts and loses, while processes stand still, crash and come back, machines die, and clocks step. Whatever
//! happens, what [`Checker`](aloha_scheduler::testing::Checker) says must hold holds, and once all is healed the cluster
//! comes to rest.
//!
//! ```text
//! cargo test -p aloha-scheduler --all-features --test simulated_cluster    300 seeds
//! ALOHA_SEEDS=10000 cargo test ... --release                               as many as said
//! ALOHA_SEED=4711 cargo test ... -- --nocapture                            one, with its log
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it prints what it ran, and the log of a seed"
)]

mod clients;
mod plan;
mod run;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use self::plan::Plan;
use self::run::{Seen, run, run_with};

const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn whatever_befalls_a_cluster_it_keeps_its_promises_and_comes_to_rest() {
    if let Some(seed) = number("ALOHA_SEED") {
        if std::env::var_os("RUST_LOG").is_some() {
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
                .with_writer(std::io::stderr)
                .without_time()
                .init();
        }
        let seen = run(seed, true);
        assert!(seen.wrong.is_empty(), "{}", report(seed, &seen));
        return;
    }
    let seeds = number("ALOHA_SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(0), AtomicUsize::new(0));
    let [runs, takeovers, accepted, unknown] = [const { AtomicUsize::new(0) }; 4];
    let histories = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let seen = run(seed, false);
                    histories.fetch_xor(seen.history, Ordering::Relaxed);
                    runs.fetch_add(seen.runs, Ordering::Relaxed);
                    takeovers.fetch_add(seen.epochs - 1, Ordering::Relaxed);
                    accepted.fetch_add(seen.accepted, Ordering::Relaxed);
                    unknown.fetch_add(seen.unknown, Ordering::Relaxed);
                    if !seen.wrong.is_empty() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        eprintln!("{}", report(seed, &seen));
                    }
                    if (seed + 1) % (seeds / 20).max(1) == 0 {
                        println!("{} seeds", seed + 1);
                    }
                }
            });
        }
    });
    println!(
        "{seeds} seeds: {} submissions acknowledged, {} of unknown outcome, {} attempts, {} take-overs, {} failed, \
         histories {:016x}",
        accepted.into_inner(),
        unknown.into_inner(),
        runs.into_inner(),
        takeovers.into_inner(),
        failed.load(Ordering::Relaxed),
        histories.into_inner(),
    );
    assert_eq!(failed.into_inner(), 0, "seeds failed");
}

fn report(seed: u64, seen: &Seen) -> String {
    let plan = Plan::new(seed);
    format!(
        "seed {seed} failed (ALOHA_SEED={seed} replays it):\n  {}\n{plan}",
        seen.wrong.join("\n  ")
    )
}

#[test]
fn a_seed_gives_the_same_history_each_time() {
    for seed in 0..6 {
        let again = thread::spawn(move || run(seed, false).history);
        let history = run(seed, false).history;
        assert_eq!(again.join().expect("no panic"), history, "seed {seed}");
    }
}

#[test]
fn a_store_that_takes_batches_of_older_epochs_is_noticed() {
    let is_noticed = |seed: u64| {
        let seen = run_with(seed, false, |cluster| cluster.disk().break_the_fence());
        seen.wrong
            .iter()
            .any(|wrong| wrong.contains("after one of epoch"))
    };
    assert!((0..SEEDS).any(is_noticed), "the checker sees nothing");
}

#[test]
fn leaders_that_do_not_know_what_was_stored_last_are_noticed() {
    let is_noticed = |seed: u64| {
        let seen = run_with(seed, false, |cluster| cluster.disk().break_catching_up());
        !seen.wrong.is_empty()
    };
    assert!((0..SEEDS).any(is_noticed), "nobody misses anything");
}
